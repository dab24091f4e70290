"""Commands in this process, and trainings that are over in seconds: for what is about neither."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from edge_reranker.cli import app
from tests.cli.shortened import shorten
from tests.service import Run, surroundings


class _Stdin(io.BytesIO):
    name = "<stdin>"


@pytest.fixture
def run(data_dir: Path, cache_dir: Path) -> Run:
    """The same code from the arguments to the exit code, without the third of a second that imports take.

    What is about the process itself, such as its environment or what it imports, asks for ``run_process``.
    """

    def run_(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (surroundings(data_dir, cache_dir) | environment).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["edge-reranker", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(_Stdin(stdin.encode()), "utf-8"))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = app._run()
        told = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(arguments, code, *told)

    return run_


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers of few steps: see ``shortened``."""
    pytest.importorskip("torch", reason="`make torch` installs it; CI does")
    shorten(monkeypatch.setattr)
