"""What is exported and imported is the same, whole, and of one moment."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker.errors import InvalidArgument, StoreBusy, StoreFull
from edge_reranker.store import Store
from edge_reranker.types import (
    DegradedReason,
    Event,
    EventType,
    LoggedRanking,
    Ranking,
    Result,
    Selector,
    Timings,
)
from tests.store.conftest import MakeEvent

Record = Event | LoggedRanking


def ranking(n: int) -> Ranking:
    results = (Result(f'i"{n}', 1), Result("ü", 0))
    timings = Timings(queue_ms=0.1, total_ms=1 / 3)
    return Ranking(f"r{n}", results, 0.5, DegradedReason.DEADLINE, timings, "m", "p")


def log(store: Store, namespace: str, *numbers: int) -> None:
    for n in numbers:
        store.put_ranking(namespace, ranking(n), surface="home", session_id="s", created_at=1e9 + n)
    store.flush()


def exported(store: Store, namespace: str = "app") -> list[Record]:
    return [record for page in store.export(namespace) for record in page]


def imported(store: Store, records: list[Record], namespace: str = "app") -> tuple[int, int]:
    taken = store.importing(namespace)
    try:
        for line, record in enumerate(records, start=2):
            taken.add(line, record)
        result = taken.finish()
    finally:
        taken.close()
    return result.recorded, result.duplicates


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "other", key_source="file") as opened:
        yield opened


def test_everything_comes_back_in_the_order_of_arrival(
    store: Store, other: Store, make_event: MakeEvent
) -> None:
    """Also of one moment, where nothing but that order tells events apart."""
    numbers = list(range(1200))
    random.Random(0).shuffle(numbers)
    store.record("app", [make_event(n, f"i{n % 7}", f"T{n % 13}", 1e9 + n % 5) for n in numbers])
    store.record("app", [Event("q", EventType.SEARCH, 1e9, query="films", context={"network": "wifi"})])
    store.record("another", [make_event(9999)])
    log(store, "app", 1, 2, 3)
    log(store, "another", 4)
    records = exported(store)
    assert len(records) == 1204
    assert [record.event_id for record in records[:3] if isinstance(record, Event)] == [
        f"e{n}" for n in numbers[:3]
    ]
    assert imported(other, records) == (1201, 0)
    assert exported(other) == records
    assert other.context("app", 1201) == store.context("app", 1201)
    assert other.counts("app") == store.counts("app")
    assert other.ranking("app", "r2") == ranking(2)
    assert other.counts("another")["events"] == 0


def test_what_is_known_already_changes_nothing(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(n) for n in range(3)])
    log(store, "app", 1)
    before = exported(store)
    # The same event with another snapshot: no row of that may stay.
    fresh: list[Record] = [make_event(1, title="other words"), make_event(3), *before[-1:]]
    assert imported(store, fresh) == (1, 1)
    after = exported(store)
    assert after == [*before[:3], make_event(3), *before[3:]]
    assert store.counts("app") == {"events": 4, "items": 4, "vectors": 0, "rankings": 1}


def test_readers_of_the_context_see_an_import_at_once(store: Store, make_event: MakeEvent) -> None:
    before = store.generation("app")
    imported(store, [make_event(1)])
    assert store.generation("app") != before


def test_nothing_is_seen_before_the_end_and_others_write_meanwhile(
    store: Store, make_event: MakeEvent, data_dir: Path
) -> None:
    taken = store.importing("app")
    taken.add(2, make_event(1))
    assert exported(store) == []
    store.record("app", [make_event(2)])
    (aside,) = data_dir.glob("*.import")
    assert aside.stat().st_mode & 0o777 == 0o600
    taken.close()
    assert not list(data_dir.glob("*.import"))
    assert exported(store) == [make_event(2)]


def test_an_id_that_comes_twice_is_refused_with_both_lines(store: Store, make_event: MakeEvent) -> None:
    with pytest.raises(InvalidArgument, match=r"^event\.event_id: is the same as in line 2;"):
        imported(store, [make_event(1), make_event(1)])
    twice = LoggedRanking(ranking(1), "", "", 1e9)
    with pytest.raises(InvalidArgument, match=r"^ranking\.ranking_id: is the same as in line 3;"):
        imported(store, [make_event(1), twice, twice])
    assert exported(store) == []


def test_newer_rankings_are_kept_longer_than_imported_ones(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_reranker.store.rankings.KEPT", 4)
    monkeypatch.setattr("edge_reranker.store.rankings.PRUNE_EVERY", 1)
    log(store, "app", 1, 2, 3)
    log(other, "app", 11, 12)
    imported(other, exported(store))
    log(other, "app", 13)
    kept = [each.ranking.ranking_id for each in exported(other) if isinstance(each, LoggedRanking)]
    assert kept == ["r13", "r12", "r11", "r3"]


def test_what_arrives_during_an_export_is_left_out(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(n) for n in range(700)])
    log(store, "app", 1)
    pages = store.export("app")
    first = next(pages)
    store.record("app", [make_event(n) for n in range(700, 1500)])
    log(store, "app", 2)
    rest = [record for page in pages for record in page]
    assert len(first) + len(rest) == 701


@pytest.mark.parametrize("gone", [{"event_id": "e3"}, {"event_id": "e650"}, {"item_id": 'i"1'}])
def test_an_export_during_which_something_was_forgotten_is_void(
    store: Store, make_event: MakeEvent, gone: dict[str, str]
) -> None:
    """Whether it was given already or was still to come; also a ranking alone."""
    store.record("app", [make_event(n) for n in range(700)])
    log(store, "app", 1, 2)
    pages = store.export("app")
    next(pages)
    store.forget("app", Selector(**gone))  # type: ignore[arg-type]
    # In the room of what went, so that counting rows would not show it.
    store.record("app", [make_event(9000)])
    with pytest.raises(StoreBusy, match="export again"):
        list(pages)
    assert exported(store)


def test_the_oldest_rankings_may_go_during_an_export(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_reranker.store.rankings.KEPT", 3)
    monkeypatch.setattr("edge_reranker.store.rankings.PRUNE_EVERY", 1)
    log(store, "app", 1, 2, 3)
    pages = store.export("app")
    next(pages)
    log(store, "app", 4)
    assert [each.ranking.ranking_id for page in pages for each in page] == ["r2"]  # type: ignore[union-attr]


def test_an_export_waited_for_neither_holds_the_log_nor_a_forget(
    store: Store, make_event: MakeEvent, data_dir: Path
) -> None:
    store.record("app", [make_event(n) for n in range(700)])
    pages = store.export("app")
    next(pages)
    store.record("another", [make_event(1)])
    store.forget("another", Selector(everything=True))  # it raises when a reader keeps the log
    assert (data_dir / "store.db-wal").stat().st_size == 0
    assert len(next(pages)) == 200


def test_what_a_killed_import_left_goes_at_the_next_start(data_dir: Path, make_event: MakeEvent) -> None:
    with Store.open(data_dir, key_source="file") as store:
        taken = store.importing("app")
        taken.add(2, make_event(1, title="canary"))
        taken._opened().conn.execute("COMMIT")  # as if it had come so far
        (aside,) = data_dir.glob("*.import")
        assert b"canary" not in aside.read_bytes()
    with Store.open(data_dir, key_source="file") as store:
        assert not list(data_dir.glob("*.import"))
        assert exported(store) == []
        imported(store, [make_event(2)])
    taken.close()


_DIES = """
import sys
from pathlib import Path
from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item

store = Store.open(Path(sys.argv[1]), key_source="file")
taken = store.importing("app")
for n in range(4000):
    taken.add(n + 2, Event(f"e{n}", EventType.LIKE, 1e9, Item(f"i{n}", "canary " * 30)))
print("staged", flush=True)
taken.finish()
print("finished", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.03, None])
def test_an_import_that_is_killed_at_its_end_is_there_whole_or_not_at_all(
    data_dir: Path, delay_s: float | None
) -> None:
    """Killed while it is moved; with no delay given, once it has said that it is done."""
    command = [sys.executable, "-c", _DIES, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        if delay_s is None:
            assert process.stdout.readline() == "finished\n"
        else:
            time.sleep(delay_s)
        process.kill()
        rest = process.stdout.read()
    with Store.open(data_dir, key_source="file") as store:
        kept = store.counts("app")["events"]
        assert kept == 4000 if delay_s is None or "finished" in rest else kept in (0, 4000)
        assert store.counts("app")["items"] == kept
        assert not list(data_dir.glob("*.import"))
        assert store.check() == []


def test_an_import_that_the_disk_has_no_room_for_leaves_nothing(
    small_disk: Path, make_event: MakeEvent
) -> None:
    with Store.open(small_disk / "data", key_source="file") as store:
        store.record("app", [make_event(0)])
        taken = store.importing("app")
        with pytest.raises(StoreFull):  # noqa: PT012
            for n in range(1, 20_000):
                taken.add(n + 1, make_event(n, title="words " * 50))
            taken.finish()
        taken.close()
        assert exported(store) == [make_event(0)]
        store.record("app", [make_event(1)])
