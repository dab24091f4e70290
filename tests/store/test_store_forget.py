"""Forgetting, vectors and rankings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from edge_reranker.errors import InvalidArgument
from edge_reranker.store import Store
from edge_reranker.types import (
    DegradedReason,
    Event,
    EventType,
    Forgotten,
    Ranking,
    Recorded,
    Result,
    Timings,
)

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
    assert store.forget("app", event_id="e1") == Forgotten(events=1, items=1, vectors=1, rankings=1)
    assert store.counts("app") == {"events": 1, "items": 1, "vectors": 2, "rankings": 1}
    assert store.context("app").events == (make_event(2),)
    assert store.vectors("app", "pack", ["h1", "h2", "h9"]) == {"h2": b"2", "h9": b"9"}
    assert store.ranking("app", "r1") is None


def test_what_another_event_needs_stays(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1, "x"), make_event(2, "x")])
    store.put_vectors("app", "pack", [("h", "x", b"v")])
    store.flush()
    assert store.forget("app", event_id="e1") == Forgotten(events=1)
    assert store.vectors("app", "pack", ["h"]) == {"h": b"v"}
    assert store.context("app").events == (make_event(2, "x"),)


def test_a_snapshot_that_goes_takes_the_vectors_of_its_item(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1, "x", "Old"), make_event(2, "x", "New")])
    store.put_vectors("app", "pack", [("old", "x", b"1"), ("new", "x", b"2")])
    store.flush()
    assert store.forget("app", event_id="e1") == Forgotten(events=1, items=1, vectors=2)
    assert store.context("app").events == (make_event(2, "x", "New"),)


def test_forgetting_an_item_takes_all_its_events(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1, "x", "Old"), make_event(2, "x", "New"), make_event(3)])
    store.put_vectors("app", "pack", [("same", "x", b"1"), ("same", "y", b"1")])
    _log(store, "app", _ranking("r1", "a", "x"), _ranking("r2", "xx", 'x",1],["'))
    assert store.forget("app", item_id="x") == Forgotten(events=2, items=2, vectors=1, rankings=1)
    assert store.context("app").events == (make_event(3),)
    assert store.vectors("app", "pack", ["same"]) == {"same": b"1"}
    assert store.ranking("app", "r2") is not None


@pytest.mark.parametrize("item_id", ['a"b', "a\\", "a\0b", "é☃", "[1]"])
def test_rankings_are_found_by_any_item_id(store: Store, item_id: str) -> None:
    _log(store, "app", _ranking("r1", item_id), _ranking("r2", item_id + "x", "x" + item_id))
    assert store.forget("app", item_id=item_id).rankings == 1
    assert store.ranking("app", "r1") is None


def test_forgetting_everything_takes_everything_of_the_namespace(store: Store, make_event: MakeEvent) -> None:
    for namespace in ("app", "other"):
        search = Event("s", EventType.SEARCH, 1.0, query="words")
        store.record(namespace, [make_event(1), make_event(2), search])
        store.put_vectors(namespace, "pack", [("h", "i7", b"1")])
        _log(store, namespace, _ranking("r", "i1"))
    kept = store.counts("other")
    assert store.forget("app", everything=True) == Forgotten(events=3, items=2, vectors=1, rankings=1)
    assert not any(store.counts("app").values())
    assert store.counts("other") == kept


def test_forgetting_again_finds_nothing(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    store.forget("app", event_id="e1")
    assert store.forget("app", event_id="e1") == Forgotten()
    assert store.forget("app", item_id="i1") == Forgotten()
    assert store.forget("app", everything=True) == Forgotten()


def test_a_forgotten_event_can_be_recorded_anew(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    store.forget("app", event_id="e1")
    assert store.record("app", [make_event(1)]) == Recorded(1, 0)


def test_forgetting_empties_the_log(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    log = store.path.with_name("store.db-wal")
    assert log.stat().st_size > 0
    store.context("app")
    store.forget("app", everything=True)
    assert log.stat().st_size == 0


def test_exactly_one_selector_is_needed(store: Store) -> None:
    with pytest.raises(InvalidArgument):
        store.forget("app")
    with pytest.raises(InvalidArgument):
        store.forget("app", event_id="e", everything=True)


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
