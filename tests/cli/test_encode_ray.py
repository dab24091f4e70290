"""`encode --ray` on a local Ray of two workers, with the real model; one test, for Ray takes ten seconds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from edge_reranker.evaluation import movielens
from tests.service import Run

N_ITEMS = 200  # two batches, one for each worker


def processes_of_ray() -> set[int]:
    """Those that run; a container without an init keeps the dead ones in its list."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"er-ray-" in command or command.startswith(b"ray::"):
            found.add(int(folder.name))
    return found


@pytest.mark.model
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_ray_makes_the_same_bytes_and_leaves_nothing_behind(
    run: Run, movielens_dir: Path, tmp_path: Path
) -> None:
    films = movielens.load(movielens_dir).items[:N_ITEMS]
    rows = ({"id": film.id, "title": film.title, "tags": film.tags} for film in films)
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = processes_of_ray()
    made = []
    for name, more in (("here.parquet", ()), ("ray.parquet", ("--ray", "--ray-workers", "2"))):
        out = tmp_path / name
        command = ("encode", str(tmp_path / "items.jsonl"), "--out", str(out), *more)
        found = run(*command, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path))
        assert found.returncode == 0, found.stderr
        made.append(out.read_bytes())
    assert made[0] == made[1]
    assert {path.name for path in tmp_path.iterdir()} == {"items.jsonl", "here.parquet", "ray.parquet"}
    assert not list(Path("/tmp").glob("er-ray-*"))
    assert processes_of_ray() == before
