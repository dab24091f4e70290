"""Forgetting, vectors and rankings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument
from edge_reranker.store import Store, forget
from edge_reranker.texts import content_hash
from edge_reranker.types import (
    DegradedReason,
    Event,
    EventType,
    Forgotten,
    Ranking,
    Recorded,
    Result,
    Selector,
    Span,
    Timings,
)
from tests.store.parts import removed

MakeEvent = Callable[..., Event]


def _ranking(ranking_id: str, *ids: str) -> Ranking:
    return Ranking(ranking_id, tuple(Result(id_, 1) for id_ in ids), 0.5)


def _log(store: Store, namespace: str, *logged: Ranking) -> None:
    for ranking in logged:
        store.put_ranking(namespace, ranking, surface="home", session_id="s", created_at=1.0)
    store.flush()


def test_forgetting_an_event_takes_what_only_it_needed(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1), make_event(2)])
    store.put_vectors("app", "pack", [("h1", "i1", b"1"), ("h2", "i2", b"2"), ("h9", "i9", b"9")])
    _log(store, "app", _ranking("r1", "i1", "i3"), _ranking("r2", "i3"))
    assert removed(store.forget("app", Selector(event_id="e1"))) == Forgotten(
        events=1, items=1, vectors=1, rankings=2
    )
    assert store.counts("app") == {"events": 1, "items": 1, "vectors": 2, "rankings": 0}
    assert store.context("app").events == (make_event(2),)
    assert store.vectors("app", "pack", ["h1", "h2", "h9"]) == {"h2": b"2", "h9": b"9"}
    assert store.ranking("app", "r1") is None


def test_what_another_event_needs_stays(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1, "x"), make_event(2, "x")])
    store.put_vectors("app", "pack", [("h", "x", b"v")])
    store.flush()
    assert removed(store.forget("app", Selector(event_id="e1"))) == Forgotten(events=1)
    assert store.vectors("app", "pack", ["h"]) == {"h": b"v"}
    assert store.context("app").events == (make_event(2, "x"),)


def test_a_snapshot_that_goes_takes_the_vectors_of_its_text_only(store: Store, make_event: MakeEvent) -> None:
    """What is by the item's id, and what another of its texts made, is as if the event had never been."""
    old, new = make_event(1, "x", "Old"), make_event(2, "x", "New")
    store.record("app", [old, new])
    names = [content_hash(each.item) for each in (old, new) if each.item is not None]
    store.put_vectors("app", "pack", [(names[0], "x", b"1"), (names[1], "x", b"2"), ("id:x", "x", b"3")])
    store.flush()
    assert removed(store.forget("app", Selector(event_id="e1"))) == Forgotten(events=1, items=1, vectors=1)
    assert store.context("app").events == (new,)
    assert set(store.vectors("app", "pack", [*names, "id:x"])) == {names[1], "id:x"}
    assert store.forget("app", Selector(event_id="e2")).vectors == 2


def test_forgetting_an_item_takes_all_its_events(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1, "x", "Old"), make_event(2, "x", "New"), make_event(3)])
    store.put_vectors("app", "pack", [("same", "x", b"1"), ("same", "y", b"1")])
    _log(store, "app", _ranking("r1", "a", "x"), _ranking("r2", "xx", 'x",1],["'))
    gone = removed(store.forget("app", Selector(item_id="x")))
    assert gone == Forgotten(events=2, items=2, vectors=1, rankings=2)
    assert store.context("app").events == (make_event(3),)
    assert store.vectors("app", "pack", ["same"]) == {"same": b"1"}


@pytest.mark.parametrize("item_id", ['a"b', "a\\", "a\0b", "é☃", "[1]"])
def test_rankings_are_found_by_any_item_id(store: Store, item_id: str) -> None:
    _log(store, "app", _ranking("r1", item_id), _ranking("r2", item_id + "x", "x" + item_id))
    assert store.forget("app", Selector(item_id=item_id)).rankings == 1
    assert store.ranking("app", "r1") is None


def test_rankings_are_found_by_an_item_that_they_did_not_show(store: Store) -> None:
    _log(store, "app", dataclasses.replace(_ranking("r1", "a"), blocked_ids=("b", "c")), _ranking("r2", "a"))
    logged = store.ranking("app", "r1")
    assert logged is not None
    assert logged.blocked_ids == ("b", "c")
    assert store.forget("app", Selector(item_id="c")).rankings == 1
    assert store.ranking("app", "r1") is None


def test_forgetting_everything_takes_everything_of_the_namespace(store: Store, make_event: MakeEvent) -> None:
    for namespace in ("app", "other"):
        search = Event("s", EventType.SEARCH, 1.0, query="words")
        store.record(namespace, [make_event(1), make_event(2), search])
        store.put_vectors(namespace, "pack", [("h", "i7", b"1")])
        _log(store, namespace, _ranking("r", "i1"))
    kept = store.counts("other")
    assert removed(store.forget("app", Selector(everything=True))) == Forgotten(
        events=3, items=2, vectors=1, rankings=1
    )
    assert not any(store.counts("app").values())
    assert store.counts("other") == kept


def test_forgetting_again_finds_nothing(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    store.forget("app", Selector(event_id="e1"))
    assert removed(store.forget("app", Selector(event_id="e1"))) == Forgotten()
    assert removed(store.forget("app", Selector(item_id="i1"))) == Forgotten()
    assert removed(store.forget("app", Selector(everything=True))) == Forgotten()


def test_rankings_from_before_an_event_stay_and_those_from_after_it_go(
    store: Store, make_event: MakeEvent
) -> None:
    store.record("app", [make_event(1)])
    _log(store, "app", _ranking("before", "i8"))
    store.record("app", [make_event(2), make_event(3)])
    _log(store, "app", _ranking("after", "i8"))
    assert store.forget("app", Selector(event_id="e3")).rankings == 1
    assert store.ranking("app", "before") is not None
    assert store.ranking("app", "after") is None
    assert store.forget("app", Selector(event_id="e1")).rankings == 1


SELECTORS = {
    "type": (Selector(type=EventType.LIKE), {"e1", "e2", "e3", "e4"}),
    "tag": (Selector(tag="STRASSE"), {"e2"}),
    "from": (Selector(span=Span(from_s=3.0)), {"e3", "e4", "s"}),
    "to": (Selector(span=Span(to_s=3.0)), {"e1", "e2"}),
    "span": (Selector(span=Span(2.0, 4.0)), {"e2", "e3"}),
    "an empty span": (Selector(span=Span(8.0, 9.0)), set()),
}


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_selector_takes_exactly_the_events_it_says(store: Store, kind: str, make_event: MakeEvent) -> None:
    events = [make_event(n, at=float(n)) for n in (1, 2, 3, 4)]
    assert events[1].item is not None
    events[1] = dataclasses.replace(events[1], item=events[1].item._replace(tags=("x", "Straße")))
    events.append(Event("s", EventType.SEARCH, 5.0, query="straße"))
    for namespace in ("app", "other"):
        store.record(namespace, events)
    selector, expected = SELECTORS[kind]
    assert store.forget("app", selector).events == len(expected)
    assert {each.event_id for each in store.context("app").events} == {"e1", "e2", "e3", "e4", "s"} - expected
    assert len(store.context("other").events) == 5


def test_all_namespaces_are_forgotten_together(store: Store, make_event: MakeEvent) -> None:
    for namespace in ("app", "other"):
        store.record(namespace, [make_event(1)])
    before = store.generation("app"), store.generation("other")
    assert store.forget("app", Selector(all_namespaces=True)) == Forgotten(events=2, items=2)
    assert not any((*store.counts("app").values(), *store.counts("other").values()))
    assert store.generation("app") > before[0]
    assert store.generation("other") > before[1]


def test_a_dry_run_says_what_the_real_one_does_and_writes_nothing(
    store: Store, make_event: MakeEvent
) -> None:
    store.record("app", [make_event(1), make_event(2), make_event(3, "i1")])
    store.put_vectors("app", "pack", [("h", "i2", b"2")])
    _log(store, "app", _ranking("r", "i1"))
    store.back_up()
    backup = store.backups.list()[0].path
    for selector in (
        Selector(event_id="e1"),
        Selector(tag="drama"),
        Selector(item_id="i2"),
        Selector(everything=True),
        Selector(all_namespaces=True),
    ):
        log = store.path.with_name("store.db-wal")
        files = {path: path.read_bytes() for path in (store.path, log, backup) if path.exists()}
        told = store.forget("app", selector, dry_run=True)
        assert {path: path.read_bytes() for path in (store.path, log, backup) if path.exists()} == files
        assert store.forget("app", selector) == told
    assert not backup.exists()


def test_the_digest_is_of_what_is_left_in_whatever_order_it_came(
    store: Store, tmp_path: Path, make_event: MakeEvent
) -> None:
    """Equal to that of a store that never saw the event, and not to one with another event."""
    events = [make_event(n) for n in range(1, 6)]
    store.record("app", events)
    store.put_vectors("app", "pack", [("h", "shown", b"1")])
    store.flush()
    digest = store.forget("app", Selector(event_id="e3")).remaining_digest
    assert len(digest) == 64
    with Store.open(tmp_path / "never", key_source="file") as never:
        never.put_vectors("app", "pack", [("h", "shown", b"1")])
        for event in reversed(events):
            if event.event_id != "e3":
                never.record("app", [event])
        assert never.forget("app", Selector(event_id="e3")).remaining_digest == digest
        never.record("app", [dataclasses.replace(events[2], query="x")])
        assert never.forget("app", Selector(event_id="none")).remaining_digest != digest


@pytest.mark.parametrize(
    "selector", [Selector(event_id="e1"), Selector(item_id="i1"), Selector(span=Span(1e9, 1e9 + 2))]
)
def test_a_few_events_are_found_and_removed_by_index(
    store: Store, make_event: MakeEvent, selector: Selector
) -> None:
    """Only rankings are looked through, of which there are 2,000 at most."""
    store.record("app", [make_event(n) for n in range(50)])
    store.put_vectors("app", "pack", [(f"h{n}", f"i{n}", b"1") for n in range(50)])
    _log(store, "app", _ranking("r", "i1"))
    statements: list[str] = []

    def run(db: Database) -> list[str]:
        db.conn.execute("BEGIN")
        db.conn.set_trace_callback(statements.append)
        assert forget.remove(db, "app", selector).events > 0
        db.conn.set_trace_callback(None)
        plans = [
            step[3]
            for sql in statements
            if sql.lstrip().startswith(("SELECT", "INSERT", "DELETE"))
            for step in db.conn.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        ]
        db.conn.execute("ROLLBACK")
        return plans

    plans = store._writer.alone(run)
    assert any("SEARCH" in step for step in plans)
    tables = r"SCAN (events|items|vectors|e|i|v)\b"
    assert [step for step in plans if re.match(tables, step)] == []


def test_copies_of_the_store_go_with_every_forget(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    store.back_up()
    assert store.forget("app", Selector(event_id="e1")).backups == 1
    assert store.backups.list() == []


def test_a_forgotten_event_can_be_recorded_anew(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    store.forget("app", Selector(event_id="e1"))
    assert store.record("app", [make_event(1)]) == Recorded(1, 0)


def test_forgetting_empties_the_log(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    log = store.path.with_name("store.db-wal")
    assert log.stat().st_size > 0
    store.context("app")
    store.forget("app", Selector(everything=True))
    assert log.stat().st_size == 0


def test_exactly_one_selector_is_needed() -> None:
    for wrong in ({}, {"event_id": "e", "everything": True}, {"type": EventType.UNSPECIFIED}, {"tag": ""}):
        with pytest.raises(InvalidArgument, match=r"^selector: needs exactly one of "):
            Selector(**wrong)  # type: ignore[arg-type]


def test_vectors_belong_to_their_namespace_and_space(store: Store) -> None:
    store.put_vectors("app", "pack", [("h", "i", b"\0\xff")])
    store.flush()
    assert store.vectors("app", "pack", ["h", "unknown"]) == {"h": b"\0\xff"}
    assert store.vectors("app", "other", ["h"]) == {}
    assert store.vectors("other", "pack", ["h"]) == {}
    assert store.vectors("app", "pack", []) == {}
    store.put_vectors("app", "pack", [("h", "i", b"newer")])
    store.flush()
    assert store.vectors("app", "pack", ["h"]) == {"h": b"newer"}


def test_a_ranking_comes_back_as_it_was(store: Store) -> None:
    ranking = Ranking(
        "r",
        (Result("a\0", 2), Result('"', 0)),
        0.25,
        DegradedReason.DEADLINE,
        Timings(tier2_ms=1.5),
        "model",
        "pack",
        final=False,
    )
    _log(store, "app", ranking)
    assert store.ranking("app", "r") == ranking
    assert store.ranking("other", "r") is None


def test_what_nobody_waits_for_and_cannot_be_stored_is_counted(store: Store) -> None:
    good = _ranking("good", "a")
    _log(store, "app", dataclasses.replace(good, ranking_id="\ud800"), good)
    assert store.dropped == 1
    assert store.ranking("app", "good") == good
