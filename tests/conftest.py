"""What many tests share: real files where they have to be real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from tests.service import Run, serving, surroundings


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Children heed Ctrl-C also where the tests run in the background, as in `make test &`.

    There a shell has SIGINT ignored, and whoever is started inherits that.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where `make` has put model and data."""
    chosen = os.environ.get("EDGE_RERANKER_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("edge-reranker", appauthor=False))


@pytest.fixture(scope="session")
def movielens_dir(cache_dir: Path) -> Path:
    """MovieLens-100K; `make data` fetches it."""
    folder = cache_dir / "data" / "movielens-100k"
    assert folder.is_dir(), "run `make models` first: the data is not there"
    return folder


@pytest.fixture(scope="session")
def encoder_path(cache_dir: Path) -> Path:
    """The other encoder; `make smollm2` makes it."""
    from edge_reranker.models import ModelCache

    return ModelCache(cache_dir).open("smollm2-135m", "encoder")[1]


@pytest.fixture(scope="session")
def minilm_path(cache_dir: Path) -> Path:
    """The default encoder; `make models` makes it."""
    from edge_reranker.models import ModelCache

    return ModelCache(cache_dir).open("minilm", "encoder")[1]


@pytest.fixture(scope="session")
def scorer_path(cache_dir: Path) -> Path:
    """The model that reads candidates one by one; `make smollm2` makes it."""
    from edge_reranker.models import ModelCache

    return ModelCache(cache_dir).open("smollm2-135m", "scorer")[1]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path: a unix socket's may not be longer than about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="er-") as name:
        yield Path(name)


@pytest.fixture
def run(run_process: Run) -> Run:
    """Runs one command to its end, away from the user's own folders; in ``cli`` in this process."""
    return run_process


@pytest.fixture
def run_process(data_dir: Path, cache_dir: Path) -> Run:
    """The same always in a process of its own."""

    def run_(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edge_reranker.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env=surroundings(data_dir, cache_dir) | environment,
        )

    return run_


@pytest.fixture
def service(data_dir: Path, cache_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """The service without a model."""
    with serving(data_dir, cache_dir, "--model", "none") as process:
        yield process
