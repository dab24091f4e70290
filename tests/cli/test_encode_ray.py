"""`--ray` on a local Ray of two workers, with the real model; one test a command, for Ray takes seconds."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_reranker.cli.hidden import kept_hidden_states
from edge_reranker.config import Config
from edge_reranker.evaluation import movielens, synthetic
from edge_reranker.training import recipe
from tests.service import Run, surroundings

N_ITEMS = 200  # two batches, one for each worker
WITH_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)


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
@WITH_RAY
def test_ray_makes_the_same_bytes_and_leaves_nothing_behind(
    run: Run, run_process: Run, movielens_dir: Path, tmp_path: Path
) -> None:
    films = movielens.load(movielens_dir).items[:N_ITEMS]
    rows = ({"id": film.id, "title": film.title, "tags": film.tags} for film in films)
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = processes_of_ray()
    made = []
    with_ray = ("--ray", "--ray-workers", "2")
    for name, encode, more in (("here.parquet", run, ()), ("ray.parquet", run_process, with_ray)):
        out = tmp_path / name
        command = ("encode", str(tmp_path / "items.jsonl"), "--out", str(out), *more)
        found = encode(*command, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path))
        assert found.returncode == 0, found.stderr
        made.append(out.read_bytes())
    assert made[0] == made[1]
    assert {path.name for path in tmp_path.iterdir()} == {"items.jsonl", "here.parquet", "ray.parquet"}
    assert not list(Path("/tmp").glob("er-ray-*"))
    assert processes_of_ray() == before


@pytest.mark.model
@WITH_RAY
def test_ray_makes_the_hidden_states_that_a_training_reads(
    data_dir: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """Of equal states every training makes an equal pack, so one training is enough to see it."""
    pytest.importorskip("torch", reason="`make torch` installs it; CI does")
    log = synthetic.make("shop", n_users=30, n_items=N_ITEMS, n_each=20)
    synthetic.write(log, tmp_path)
    files = ("--items", tmp_path / "items.jsonl", "--interactions", tmp_path / "interactions.jsonl")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "models").symlink_to(cache_dir / "models")
    more = ("--out", str(tmp_path / "pack"), "--ray", "--ray-workers", "2", "--cache-dir", str(cache))
    train = [sys.executable, "-c", "from tests.cli.shortened import main; main()", "train"]
    around = surroundings(data_dir, cache_dir) | {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    found = subprocess.run(
        [*train, *map(str, files), *more],
        env=around,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "pack" / "pack.json").is_file()
    (kept,) = (cache / "hidden").iterdir()
    with_ray = kept.read_bytes()
    kept.unlink()
    kept_hidden_states(Config(cache, cache / "socket", cache, "minilm"), recipe.MINILM, log.items)
    assert kept.read_bytes() == with_ray, "the same name, made here, and the same bytes"
