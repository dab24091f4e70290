"""Commands in this process, and trainings that are over in seconds: for what is about neither."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_reranker.cli import app
from tests.cli.shortened import shorten
from tests.service import Run, surroundings


@pytest.fixture
def run(data_dir: Path, cache_dir: Path) -> Run:
    """The same code from the arguments to the exit code, without the third of a second that imports take.

    What is about the process itself, such as its environment or what it imports, asks for ``run_process``.
    """

    def run_(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        around = {
            name: value for name, value in surroundings(data_dir, cache_dir).items() if "RERANKER" in name
        }
        with (
            pytest.MonkeyPatch.context() as patch,
            CliRunner().isolation(input=stdin, env=around | environment) as (out, err, _),
        ):
            patch.setattr(sys, "argv", ["edge-reranker", *arguments])
            code = app._run()
        return subprocess.CompletedProcess(
            arguments, code, out.getvalue().decode(), err.getvalue().decode() if err else ""
        )

    return run_


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towers of few steps: see ``shortened``."""
    pytest.importorskip("torch", reason="`make torch` installs it; CI does")
    shorten(monkeypatch.setattr)
