"""What the README shows works when it is pasted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import serving, surroundings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell_lines() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_targets_exist(line: str) -> None:
    result = subprocess.run(
        ["make", "--dry-run", *line.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.model
def test_every_command_works_when_pasted(data_dir: Path, cache_dir: Path, tmp_path: Path) -> None:
    """One service, the commands in the README's order."""
    bin_ = str(Path(sys.executable).parent)
    environment = surroundings(data_dir, cache_dir) | {"PATH": f"{bin_}:{os.environ['PATH']}"}
    lines = [line for line in shell_lines() if not line.startswith(("make ", ". "))]
    assert "edge-reranker serve" in lines
    assert shutil.which("edge-reranker", path=environment["PATH"])
    with serving(data_dir, cache_dir):
        for line in lines:
            if line == "edge-reranker serve":
                continue  # it runs
            result = subprocess.run(
                ["bash", "-o", "pipefail", "-c", line],
                cwd=tmp_path,  # what is exported lands there
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"


@pytest.mark.model
def test_the_python_example_prints_what_the_text_says(data_dir: Path, cache_dir: Path) -> None:
    (example,) = blocks("python")
    assert len(example.splitlines()) <= 15
    with serving(data_dir, cache_dir):
        result = subprocess.run(
            [sys.executable, "-c", example],
            env=surroundings(data_dir, cache_dir),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("('c', ")


def test_the_proto_excerpt_is_in_the_contract() -> None:
    (excerpt,) = blocks("proto")
    contract = "".join(path.read_text() for path in (ROOT / "proto").rglob("*.proto"))
    for line in excerpt.splitlines():
        assert line.split("//")[0].strip() in contract, line


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
