"""Forgotten means that no byte is left: not in a page, between rows, in the log or in a copy."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from edge_reranker.store import Store, erasure
from edge_reranker.store.forgetting import Forgetting
from edge_reranker.store.writer import checkpoint
from edge_reranker.types import Event, EventType, Item, PrefixState, Ranking, Result, Selector, Span
from tests.store import pages

_N_EVENTS, _N_FORGOTTEN = 800, 100


def _mark(n: int) -> str:
    return f"CANARY{n:05d}"


def _fill(store: Store, seed: int) -> list[Event]:
    """Events, each with its canary in every text; random ids, so that pages are split everywhere."""
    draw = random.Random(seed)
    events: list[Event] = []
    while len(events) < _N_EVENTS:
        batch = []
        for n in range(len(events), len(events) + draw.choice([1, 10, 50])):
            mark, noise = _mark(n), f"{draw.getrandbits(64):016x}"
            text = mark + "x" * draw.choice([0, 99, 5000 if n % 20 == 0 else 300])
            item = Item(
                f"{noise}{mark}i" + "p" * draw.randint(0, 150), f"{mark}t", text, (mark,), {mark: mark}
            )
            at_s = 1e9 + 1000 * n
            batch.append(
                Event(
                    f"{noise}{mark}e" + "p" * draw.randint(0, 200),
                    EventType.LIKE,
                    at_s,
                    item,
                    f"{mark}q",
                    1.0,
                    mark,
                    mark,
                    mark,
                    n,
                )
            )
        for each in batch:
            assert each.item is not None
            shown, detail = (
                Ranking(each.ranking_id, (Result(each.item.id, 1),), 1.0),
                each.session_id.encode(),
            )
            store.put_ranking(
                "app", shown, surface="", session_id="", created_at=1.0, detail=detail * draw.randint(1, 100)
            )
        store.record(
            "app",
            batch,
            {each.event_id: each.session_id.encode() * draw.randint(1, 60) for each in batch},
        )
        vectors = [(f"{draw.getrandbits(128):032x}", each.item.id, b"v" * 128) for each in batch if each.item]
        store.put_vectors("app", "pack", vectors)
        listed = tuple(Result(each.item.id, 1) for each in batch if each.item)
        store.put_ranking(
            "app", Ranking(batch[0].event_id, listed, 1.0), surface="", session_id="", created_at=1.0
        )
        text = batch[0].event_id.encode()
        store.put_prefix_state(PrefixState("app", "model", batch[0].event_id, b"", text * 100))
        store.flush()
        events += batch
    return events


def _selectors(events: list[Event]) -> list[Selector]:
    """One for each event, of a kind in turn."""
    made = []
    for turn, event in enumerate(events):
        assert event.item is not None
        made.append(
            (
                Selector(event_id=event.event_id),
                Selector(item_id=event.item.id),
                Selector(tag=event.item.tags[0].lower()),
                Selector(span=Span(event.occurred_at, event.occurred_at + 1.0)),
            )[turn % 4]
        )
    return made


def _most_copied(events: list[Event], everything: bytes) -> list[Event]:
    """Those of which SQLite has left most copies behind, for whatever reason."""
    ids = [(event, event.event_id.encode(), event.item.id.encode()) for event in events if event.item]
    ids.sort(key=lambda each: everything.count(each[1]) + everything.count(each[2]), reverse=True)
    return [event for event, _, _ in ids[:_N_FORGOTTEN]]


def _forget_and_look(folder: Path, seed: int) -> tuple[set[str], set[str]]:
    """Which canaries were forgotten, and which of those are in any byte, decrypted or not."""
    data_dir = folder / "data"
    with Store.open(data_dir, key_source="file") as store:
        events = _fill(store, seed)
        assert store.choices_state("app")[0] == len(events)
        (data_dir / "backups").mkdir(exist_ok=True)
        (data_dir / "backups" / "000001-20260101T000000Z.db").write_bytes(events[0].event_id.encode())
        store._writer.alone(checkpoint)
        gone = _most_copied(events, pages.plain(data_dir))
        for selector in _selectors(gone):
            assert store.forget("app", selector).events == 1
        everything = pages.plain(data_dir) + pages.folder(data_dir)
        marks = {event.session_id for event in gone}
        kept = {event.session_id for event in events} - marks
        assert all(mark.encode() in everything for mark in kept), "the look sees what is there"
    return marks, {mark for mark in marks if mark.encode() in everything}


def test_of_100_forgotten_events_no_byte_is_left(tmp_path: Path) -> None:
    gone, left = _forget_and_look(tmp_path, 0)
    assert len(gone) == _N_FORGOTTEN
    assert left == set()


def test_without_rewriting_the_pages_bytes_would_be_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: secure_delete alone does not reach what was moved from page to page."""
    monkeypatch.setattr(erasure, "_room_to_scrub", lambda path: False)
    assert _forget_and_look(tmp_path, 0)[1]


# Kills itself at a point of forgetting: name of the module, of the function, and before which of its calls.
_KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from edge_reranker.store import Store, erasure, promises
from edge_reranker.store.care import Care
from edge_reranker.types import Event, EventType, Item, Ranking, Result, Selector, Span
data_dir, module, name = Path(sys.argv[1]), *sys.argv[2:4]
call, parts = int(sys.argv[4]), sys.argv[5] == "parts"
store = Store.open(data_dir, key_source="file")
def like(id_, at_s, *item): return Event(id_, EventType.LIKE, at_s, Item(*item))
def log(name, detail):
    ranking = Ranking(name, (Result("k", 1),), 1.0)
    store.put_ranking("app", ranking, surface="", session_id="", created_at=1.0, detail=detail)
def choose(ranking_id, *events):
    named = [replace(event, ranking_id=ranking_id) for event in events]
    store.record("app", named, {event.event_id: b"CANARY" * (n + 200) for n, event in enumerate(named)})
log("early", b"shown")
marked = [like(f"CANARY{n}", n + 1.0, f"i{n}", "CANARY" + "x" * 3000) for n in range(40)]
choose("early", *marked)
log("late", b"CANARY" * 100)
choose("late", like("stays", 99.0, "j"))
store._writer.alone(erasure.checkpoint)
(data_dir / "backups").mkdir(exist_ok=True)
(data_dir / "backups" / "000001-20260101T000000Z.db").write_bytes(b"CANARY")
if parts:
    erasure._PART_ROWS = 10
    erasure.Erasure._with_room = lambda self, db, reserve: self._without_room(db)
where = {"care": Care, "erasure": erasure, "promises": promises}[module]
real, n = getattr(where, name), 0
def killing(*args):
    global n
    n += 1
    if n == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
setattr(where, name, killing)
if parts:
    selector = Selector(type=EventType.LIKE)
    choose("late", Event("other", EventType.VIEW, 1.0, Item("k")))
else:
    selector = Selector(span=Span(to_s=50.0))
store.forget("app", selector)
"""

POINTS = {
    "before the copies are removed": ("care", "remove_copies", 1, "whole"),
    "before the log is emptied": ("erasure", "checkpoint", 1, "whole"),
    "before the promise is struck out": ("promises", "strike", 1, "whole"),
    "before the log is emptied again": ("erasure", "checkpoint", 2, "whole"),
    "after the first part": ("erasure", "checkpoint", 2, "parts"),
    "after the third part": ("erasure", "checkpoint", 4, "parts"),
    "among the events": ("erasure", "checkpoint", 9, "parts"),
    "after the last part": ("care", "remove_copies", 1, "parts"),
}
UNFINISHED = [point for point in POINTS if not point.endswith(("struck out", "again"))]


def _kill(data_dir: Path, point: str) -> None:
    arguments = [sys.executable, "-c", _KILLED, str(data_dir), *map(str, POINTS[point])]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == -9, run.stderr


def _left(data_dir: Path) -> bool:
    return b"CANARY" in pages.plain(data_dir) + pages.folder(data_dir)


@pytest.mark.parametrize("point", POINTS)
def test_a_forget_that_is_killed_is_finished_at_the_next_start(tmp_path: Path, point: str) -> None:
    _kill(tmp_path / "data", point)
    assert _left(tmp_path / "data") or point not in UNFINISHED
    with Store.open(tmp_path / "data", key_source="file") as store:
        assert not _left(tmp_path / "data")
        expected = {"other"} if POINTS[point][3] == "parts" else {"stays"}
        assert {each.event_id for each in store.context("app").events} == expected
        assert store.choices("app") == []
        assert store._read(lambda db: db.conn.execute("SELECT count(*) FROM forgets").fetchone()[0]) == 0
        assert store.check() == []


@pytest.mark.parametrize("point", [point for point in UNFINISHED if not point.endswith("emptied")])
def test_without_finishing_it_bytes_would_be_left(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control, for each point; the log alone SQLite itself empties when the last connection is closed."""
    _kill(tmp_path / "data", point)
    monkeypatch.setattr(Forgetting, "_erase", lambda self, promise: None)
    with Store.open(tmp_path / "data", key_source="file"):
        assert _left(tmp_path / "data")


def test_what_comes_after_an_unfinished_forget_is_not_taken_by_its_end(tmp_path: Path) -> None:
    """A forget of a type that was killed half-way is finished for the events of its time only."""
    data_dir = tmp_path / "data"
    _kill(data_dir, "after the first part")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forgetting, "_erase", lambda self, promise: None)
        with Store.open(data_dir, key_source="file") as store:
            store.record("app", [Event("new", EventType.LIKE, 5.0, Item("n"))])
    with Store.open(data_dir, key_source="file") as store:
        assert {each.event_id for each in store.context("app").events} == {"other", "new"}
