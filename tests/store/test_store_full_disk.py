"""Forgetting on a disk without room, which writes before it frees."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from edge_reranker.errors import StoreFull
from edge_reranker.store import Store, forget
from edge_reranker.store.reserve import RESERVE_BYTES
from edge_reranker.store.writer import checkpoint
from edge_reranker.types import Event, EventType, Forgotten, Item, Ranking, Result, Selector
from tests.store.parts import fill_up, removed

MakeEvent = Callable[..., Event]

_N_EVENTS = 2_400


@pytest.fixture
def full_disk_store(larger_disk: Path) -> Iterator[Store]:
    with Store.open(larger_disk / "data", key_source="file") as opened:
        yield opened


def _reserve(store: Store) -> Path:
    return store.path.with_name("reserve")


def _held(path: Path) -> int:
    return path.stat().st_blocks * 512


def _fold_in(store: Store) -> None:
    """Empty the log, so that nothing can be written into the room it has."""
    store._writer.alone(checkpoint)


def _search(event_id: str, n_chars: int) -> Event:
    return Event(event_id, EventType.SEARCH, 1.0, query="x" * n_chars)


def _fill_with_much(store: Store) -> Forgotten:
    """More than 8 MB of every kind of row; how many of each."""
    for start in range(0, _N_EVENTS, 200):
        batch = range(start, start + 200)
        store.record(
            "app", [Event(f"m{n}", EventType.LIKE, 1.0, Item(f"i{n}", text="x" * 4000)) for n in batch]
        )
    store.put_vectors("app", "pack", [(f"h{n}", f"i{n}", b"v" * 1000) for n in range(1000)])
    for n in range(300):
        ranking = Ranking(f"r{n}", tuple(Result(f"i{k}", 1) for k in range(50)), 0.5)
        store.put_ranking("app", ranking, surface="home", session_id="s", created_at=1.0)
    store.flush()
    assert store.path.stat().st_size >= 8_000_000
    return Forgotten(_N_EVENTS, _N_EVENTS, 1000, 300)


def test_an_event_is_forgotten_on_a_full_disk(
    full_disk_store: Store, larger_disk: Path, make_event: MakeEvent
) -> None:
    store = full_disk_store
    store.record("app", [make_event(1), make_event(2)])
    _fold_in(store)
    ballast = fill_up(larger_disk)
    assert removed(store.forget("app", Selector(event_id="e1"))) == Forgotten(events=1, items=1)
    assert store.context("app").events == (make_event(2),)
    assert store.path.with_name("store.db-wal").stat().st_size == 0
    ballast.unlink()
    assert store.check() == []


def test_an_event_is_forgotten_when_the_disk_was_full_before_the_first_write(
    larger_disk: Path, make_event: MakeEvent
) -> None:
    """The writer then has no connection yet, and opening one needs room by itself."""
    with Store.open(larger_disk / "data", key_source="file") as store:
        store.record("app", [make_event(1)])
    with Store.open(larger_disk / "data", key_source="file") as store:
        fill_up(larger_disk)
        with pytest.raises(StoreFull):
            store.record("app", [make_event(2)])
        assert store.forget("app", Selector(event_id="e1")).events == 1
        assert store.record("app", [make_event(2)]).recorded == 1


def test_everything_is_forgotten_on_a_full_disk_and_recording_goes_on(
    full_disk_store: Store, larger_disk: Path, make_event: MakeEvent
) -> None:
    store = full_disk_store
    store.record("other", [make_event(1)])
    before = store.generation("app")
    there = _fill_with_much(store)
    fill_up(larger_disk)
    assert removed(store.forget("app", Selector(everything=True))) == there
    assert not any(store.counts("app").values())
    assert store.counts("other")["events"] == 1
    assert store.generation("app") > before + _N_EVENTS // 200
    assert store.path.with_name("store.db-wal").stat().st_size == 0
    assert store.record("app", [make_event(n) for n in range(100)]).recorded == 100
    assert store.check() == []


def test_everything_is_forgotten_in_as_little_room_as_there_is(
    full_disk_store: Store, larger_disk: Path
) -> None:
    """A part that does not fit is tried again smaller, and each leaves its room to the next."""
    store = full_disk_store
    there = _fill_with_much(store)
    _fold_in(store)
    _reserve(store).unlink()
    ballast = fill_up(larger_disk)
    os.truncate(ballast, ballast.stat().st_size - 600_000)
    assert removed(store.forget("app", Selector(everything=True))) == there


def test_forgetting_works_each_time_the_disk_is_full(
    full_disk_store: Store, larger_disk: Path, make_event: MakeEvent
) -> None:
    store = full_disk_store
    for round_ in range(3):
        store.record("app", [make_event(round_)])
        fill_up(larger_disk)
        assert store.forget("app", Selector(event_id=f"e{round_}")).events == 1
        assert _held(_reserve(store)) > 0


def test_what_is_recorded_after_everything_was_forgotten_stays(
    full_disk_store: Store, larger_disk: Path, make_event: MakeEvent
) -> None:
    """Also when others recorded all the while."""
    store = full_disk_store
    _fill_with_much(store)
    fill_up(larger_disk)
    returned, stop = threading.Event(), threading.Event()
    after: list[str] = []

    def record() -> None:
        n = 10_000
        while not stop.is_set():
            began_after = returned.is_set()
            try:
                store.record("app", [make_event(n)])
            except StoreFull:
                continue
            if began_after:
                after.append(f"e{n}")
            if len(after) == 20:
                return
            n += 1

    recorder = threading.Thread(target=record)
    recorder.start()
    try:
        store.forget("app", Selector(everything=True))
        returned.set()
        recorder.join(20)
    finally:
        stop.set()
        recorder.join()
    assert len(after) == 20
    kept = {e.event_id for e in store.context("app", 100_000).events}
    assert set(after) <= kept
    assert not any(event_id.startswith("m") for event_id in kept)


def test_only_forgetting_gives_up_the_reserve(
    full_disk_store: Store, larger_disk: Path, make_event: MakeEvent
) -> None:
    store = full_disk_store
    fill_up(larger_disk)
    with pytest.raises(StoreFull):
        store.record("app", [_search("big", 1_000_000)])
    assert _held(_reserve(store)) == RESERVE_BYTES


def test_without_the_reserve_the_error_says_that_nothing_is_gone(
    full_disk_store: Store, larger_disk: Path, make_event: MakeEvent
) -> None:
    store = full_disk_store
    store.record("app", [make_event(1)])
    _fold_in(store)
    _reserve(store).unlink()
    ballast = fill_up(larger_disk)
    with pytest.raises(StoreFull) as caught:
        store.forget("app", Selector(event_id="e1"))
    assert str(caught.value) == (
        f"nothing was forgotten: the reserve {_reserve(store)} is missing and the disk is full; "
        "free some space and forget again"
    )
    assert store.context("app").events == (make_event(1),)
    ballast.unlink()
    assert store.forget("app", Selector(event_id="e1")).events == 1
    assert _held(_reserve(store)) == RESERVE_BYTES


def test_an_event_that_is_larger_than_the_reserve_stays_whole(
    full_disk_store: Store, larger_disk: Path
) -> None:
    store = full_disk_store
    store.record("app", [_search("big", RESERVE_BYTES + 1_000_000)])
    _fold_in(store)
    ballast = fill_up(larger_disk)
    with pytest.raises(StoreFull, match=r"nothing was forgotten: the reserve .* did not suffice"):
        store.forget("app", Selector(event_id="big"))
    assert store.counts("app")["events"] == 1
    ballast.unlink()
    assert store.forget("app", Selector(event_id="big")).events == 1


def test_a_log_that_cannot_be_emptied_does_not_hide_that_the_event_is_gone(
    full_disk_store: Store, larger_disk: Path, make_event: MakeEvent
) -> None:
    store = full_disk_store
    store.record("app", [_search("big", 1_000_000)])
    # Folded in but not cut: the log's file has room for what comes next, the database has none.
    store._writer.alone(lambda db: db.conn.execute("PRAGMA wal_checkpoint").fetchall())
    store.record("app", [make_event(1), _search("s", 500_000)])
    _reserve(store).unlink()
    ballast = fill_up(larger_disk)
    with pytest.raises(StoreFull) as caught:
        store.forget("app", Selector(event_id="e1"))
    assert str(caught.value) == (
        "forgotten, but the log could not be emptied: the disk is full; free some space and forget again"
    )
    assert {e.event_id for e in store.context("app").events} == {"big", "s"}
    ballast.unlink()
    assert removed(store.forget("app", Selector(event_id="e1"))) == Forgotten()
    assert store.path.with_name("store.db-wal").stat().st_size == 0


# Only the database would have to grow beyond the limit; that is an I/O error, as on a quota.
_LIMITED = """
import resource, signal, sys
from pathlib import Path
from edge_reranker.errors import StoreError
from edge_reranker.store import Store
from edge_reranker.store.writer import checkpoint
from edge_reranker.types import Event, EventType, Selector
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
store = Store.open(Path(sys.argv[1]), key_source="file")
def record(i, n): store.record("app", [Event(i, EventType.SEARCH, 1.0, query="x" * n)])
record("a", 500_000)
store._writer.alone(checkpoint)
record("b", 10)
record("c", 100_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (store.path.stat().st_size, hard))
try: store.forget("app", Selector(event_id="b")); sys.exit("no error")
except StoreError as e: print(e)
assert {e.event_id for e in store.context("app").events} == {"a", "c"}
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.forget("app", Selector(event_id="b"))
assert store.check() == []
store.close()
"""


def test_a_log_that_cannot_be_emptied_for_a_quota_does_not_hide_it_either(data_dir: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("forgotten, but the log could not be emptied: ")
    assert run.stdout.endswith("check the disk, its quota and the permissions and forget again\n")


def test_a_forget_that_stops_half_way_says_what_is_gone_and_again_finishes(
    full_disk_store: Store, larger_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = full_disk_store
    there = _fill_with_much(store)
    ballast = fill_up(larger_disk)
    n_parts = 0

    remove = forget.remove

    def part(db: Database, *whose: Any, until: int | None, n_rows: int) -> Forgotten:
        nonlocal n_parts
        if n_rows < 0:
            return remove(db, *whose, until=until, n_rows=n_rows)
        n_parts += 1
        found = remove(db, *whose, until=until, n_rows=min(n_rows, 150))
        if n_parts >= 5:
            fill_up(larger_disk)  # another program, in the middle
            found = remove(db, *whose, until=until, n_rows=_N_EVENTS)
        return found

    monkeypatch.setattr(forget, "remove", part)
    with pytest.raises(StoreFull, match=r"in part \(300 events, 300 items, 300 vectors, 300 rankings\)"):
        store.forget("app", Selector(everything=True))
    monkeypatch.undo()
    assert store.counts("app")["events"] == there.events - 300
    ballast.unlink()
    assert store.forget("app", Selector(everything=True)).events == there.events - 300
    assert not any(store.counts("app").values())


def test_a_store_whose_log_cannot_be_folded_in_opens_so_that_one_can_forget(
    larger_disk: Path, make_event: MakeEvent
) -> None:
    with Store.open(larger_disk / "data", key_source="file") as store:
        store.record("app", [make_event(1), _search("s", 500_000)])
        fill_up(larger_disk)
    assert store.path.with_name("store.db-wal").stat().st_size > 0
    with Store.open(larger_disk / "data", key_source="file") as store:
        assert store.forget("app", Selector(event_id="e1")).events == 1
        assert {e.event_id for e in store.context("app").events} == {"s"}


def test_the_reserve_is_real_room_without_content(full_disk_store: Store, larger_disk: Path) -> None:
    assert _held(_reserve(full_disk_store)) == RESERVE_BYTES
    assert not any(_reserve(full_disk_store).read_bytes())


def test_a_small_disk_is_left_without_a_reserve(small_disk: Path, make_event: MakeEvent) -> None:
    with Store.open(small_disk / "data", key_source="file") as store:
        assert not _reserve(store).exists()
        store.record("app", [make_event(1)])
        assert store.forget("app", Selector(event_id="e1")).events == 1
