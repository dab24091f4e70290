"""What many tests share: real files where they have to be real."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest


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
    """The default model's encoder; `make models` makes it."""
    from edge_reranker.models import ModelCache

    return ModelCache(cache_dir).open("smollm2-135m", "encoder")[1]


@pytest.fixture(scope="session")
def scorer_path(cache_dir: Path) -> Path:
    """The whole default model; `make models` makes it."""
    from edge_reranker.models import ModelCache

    return ModelCache(cache_dir).open("smollm2-135m", "scorer")[1]
