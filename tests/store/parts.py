"""What several of the store's tests do to a directory or a disk."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker.errors import StoreCorrupt, StoreError
from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Forgotten, Item


def fill(data_dir: Path, key_source: str = "file") -> None:
    """Make a store with one event in it, or add that event to the one that is there."""
    with Store.open(data_dir, key_source=key_source) as store:
        store.record("app", [Event("e", EventType.LIKE, 1.0, Item("i"))])


def assert_refused(data_dir: Path, match: str, error: type[StoreError] = StoreCorrupt) -> None:
    """Opening raises ``error``, and every file is as before."""
    before = {p.name: p.read_bytes() for p in data_dir.iterdir()}
    with pytest.raises(error, match=match):
        Store.open(data_dir, key_source="file")
    assert {p.name: p.read_bytes() for p in data_dir.iterdir()} == before


def removed(receipt: Forgotten) -> Forgotten:
    """A receipt's counts alone."""
    return dataclasses.replace(receipt, remaining_digest="")


def fill_up(disk: Path) -> Path:
    """Take all the room that a small disk has left; the file that holds it."""
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space"), ballast.open("ab", buffering=0) as f:  # noqa: PT012
        while True:
            f.write(b"\0" * 4096)
    return ballast


@contextlib.contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own at ``place``; skips the test where nothing may be mounted."""
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not sys.platform.startswith("linux") or mount is None or umount is None:
        pytest.skip("needs Linux and mount")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield place
    finally:
        subprocess.run([umount, str(place)], check=True)
