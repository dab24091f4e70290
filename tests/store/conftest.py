"""A store in a real directory, and events to put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item
from tests.store.parts import disk

MakeEvent = Callable[..., Event]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir, key_source="file") as opened:
        yield opened


@pytest.fixture
def make_event() -> MakeEvent:
    def make(n: int, item_id: str | None = None, title: str | None = None, at: float | None = None) -> Event:
        id_ = f"i{n}" if item_id is None else item_id
        item = Item(id_, f"Title of {id_}" if title is None else title, "words", ("Drama",), {"year": "1999"})
        return Event(f"e{n}", EventType.LIKE, 1e9 + n if at is None else at, item, surface="home", position=n)

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with disk(tmp_path / "disk", "1m") as place:
        yield place


@pytest.fixture
def larger_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB: the reserve has room, and twice as much is left."""
    with disk(tmp_path / "disk", "40m") as place:
        yield place
