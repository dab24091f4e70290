"""Hidden states that `evaluate` and `train` keep in the cache, with the real encoder."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_reranker.cli.hidden import kept_hidden_states
from edge_reranker.cli.wiring import pack_folder
from edge_reranker.config import Config
from edge_reranker.models import load_pack
from edge_reranker.types import Item
from tests.service import Run

pytestmark = pytest.mark.model

ITEMS = [Item("1", "Heat (1995)", tags=("Crime",)), Item("2", "Babe (1995)")]


@pytest.fixture
def own_cache(tmp_path: Path, cache_dir: Path) -> Path:
    """A cache folder of this test's own, with everybody's models."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "models").symlink_to(cache_dir / "models")
    return folder


def states(cache: Path, items: list[Item] = ITEMS) -> np.ndarray:
    config = Config(cache, cache / "socket", cache, "minilm")
    return kept_hidden_states(config, load_pack(pack_folder(config)).manifest.encoder, items)


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "hidden").iterdir())


def other_number(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE = {
    "emptied": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "junk": lambda data: b"junk" * 100,
    "zeros": lambda data: bytes(len(data)),
    "one bit": other_number,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_states_are_made_again_and_kept_whole(own_cache: Path, damage: str) -> None:
    first = states(own_cache)
    (file,) = kept(own_cache)
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[damage](whole))
    assert np.array_equal(states(own_cache), first)
    assert file.read_bytes() == whole


def test_whole_states_are_not_made_again(own_cache: Path) -> None:
    first = states(own_cache)
    (file,) = kept(own_cache)
    before = file.stat().st_ino
    assert np.array_equal(states(own_cache), first)
    assert file.stat().st_ino == before


@pytest.mark.parametrize("change", [{"pooling": "last"}, {"normalise": False}, {"prefix": "film: "}])
def test_states_made_in_another_way_are_kept_apart(own_cache: Path, change: dict[str, Any]) -> None:
    first = states(own_cache)
    config = Config(own_cache, own_cache / "socket", own_cache, "minilm")
    encoder = dataclasses.replace(load_pack(pack_folder(config)).manifest.encoder, **change)
    assert not np.allclose(kept_hidden_states(config, encoder, ITEMS), first)
    assert len(kept(own_cache)) == 2
    assert np.array_equal(states(own_cache), first)


def test_states_that_cannot_be_kept_are_given_all_the_same(
    own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cache is in the way of its own folder, which stops root too."""
    (own_cache / "hidden").write_text("")
    assert states(own_cache).shape == (2, 384)
    assert "not kept for the next time: File exists" in capsys.readouterr().err


def test_of_many_catalogues_the_newest_are_kept(own_cache: Path) -> None:
    (own_cache / "hidden").mkdir()
    for age_s in range(1, 7):
        old = own_cache / "hidden" / f"{age_s}.npy"
        old.write_bytes(b"old")
        os.utime(old, (1e9 - age_s, 1e9 - age_s))
    states(own_cache)
    names = [path.name for path in kept(own_cache)]
    assert names[:3] == ["1.npy", "2.npy", "3.npy"]
    assert len(names) == 4


def test_encode_leaves_nothing_in_the_cache(run: Run, own_cache: Path) -> None:
    line = json.dumps({"id": "1", "title": "Heat (1995)"})
    found = run("encode", "-", "--cache-dir", str(own_cache), stdin=line)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["id"] == "1"
    assert [path.name for path in own_cache.iterdir()] == ["models"]
