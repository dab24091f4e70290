"""Which namespaces there are, and whose events a ranking goes by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_reranker.errors import FailedPrecondition, InvalidArgument, NotFound
from edge_reranker.store import Store
from edge_reranker.types import (
    Event,
    EventType,
    Grant,
    Namespace,
    PrefixState,
    Ranking,
    Recorded,
    Result,
    Selector,
)

MakeEvent = Callable[..., Event]


@pytest.fixture
def two(store: Store) -> Store:
    for name in ("news", "shop"):
        store.create_namespace(name)
    return store


def reopened(store: Store) -> Store:
    store.close()
    return Store.open(store.path.parent, key_source="file")


def log(store: Store, namespace: str, ranking_id: str, *sources: str) -> None:
    ranking = Ranking(ranking_id, (Result("x", 1),), 1.0)
    store.put_ranking(namespace, ranking, surface="", session_id="", created_at=1.0, sources=sources)
    store.flush()


def ids(store: Store, namespace: str) -> list[str]:
    return [event.event_id for event in store.context(namespace).events]


def test_the_default_namespace_is_always_there(store: Store) -> None:
    assert store.namespaces() == [Namespace("default")]
    with pytest.raises(InvalidArgument, match="default namespace stays"):
        store.delete_namespace("default")


def test_namespaces_stay_over_a_restart_and_count_their_own_events(two: Store, make_event: MakeEvent) -> None:
    two.record("news", [make_event(1), make_event(2)])
    two.create_namespace("news")
    grant = two.grant("news", "shop", 5.0)
    with reopened(two) as again:
        expected = [Namespace("default"), Namespace("news", 2), Namespace("shop", 0, (grant,))]
        assert again.namespaces() == expected
        assert again.sources("shop") == ("news",)


def test_a_deleted_namespace_leaves_no_row_and_takes_no_more(two: Store, make_event: MakeEvent) -> None:
    two.record("news", [make_event(1), make_event(2)])
    two.record("shop", [make_event(3)])
    two.put_vectors("news", "pack", [("h", "i1", b"1")])
    two.grant("shop", "news", 1.0)
    log(two, "news", "r", "shop")
    assert two.delete_namespace("news").events == 2
    assert not any(two.counts("news").values())
    assert [each.name for each in two.namespaces()] == ["default", "shop"]
    assert two.readers("shop") == ()
    with pytest.raises(NotFound, match="was deleted meanwhile"):
        two.record("news", [make_event(4)])
    assert two.delete_namespace("news").events == 0
    two.create_namespace("news")
    assert two.record("news", [make_event(4)]) == Recorded(1, 0)
    assert two.counts("shop")["events"] == 1


def test_a_deletion_that_was_cut_off_is_finished_at_the_next_start(two: Store, make_event: MakeEvent) -> None:
    two.record("news", [make_event(1)])
    two.grant("news", "shop", 1.0)
    log(two, "shop", "r", "news")
    two.begin_deletion("news")
    assert [each.name for each in two.namespaces()] == ["default", "shop"]
    with pytest.raises(FailedPrecondition, match="is being deleted"):
        two.create_namespace("news")
    with reopened(two) as again:
        assert not any(again.counts("news").values())
        assert again.ranking("shop", "r") is None
        again.create_namespace("news")
        assert Namespace("news") in again.namespaces()


def test_a_grant_lets_a_context_hold_the_newest_events_of_both(two: Store, make_event: MakeEvent) -> None:
    two.record("shop", [make_event(1), make_event(4)])
    two.record("news", [make_event(2), make_event(3), make_event(5)])
    two.grant("news", "shop", 1.0)
    assert ids(two, "shop") == ["e1", "e2", "e3", "e4", "e5"]
    context = two.context("shop", 3)
    assert [event.event_id for event in context.events] == ["e3", "e4", "e5"]
    assert context.namespaces == ("news", "shop", "news")
    assert context.sources == ("news",)
    assert ids(two, "news") == ["e2", "e3", "e5"], "it is not the other way round"
    assert len(two.context("shop", types={EventType.DISLIKE}).events) == 0


def test_a_grant_shows_and_touches_nothing_of_the_source(two: Store, make_event: MakeEvent) -> None:
    two.record("news", [make_event(1)])
    two.record("shop", [make_event(2, "i1")])
    two.grant("news", "shop", 1.0)
    assert [event.event_id for event in two.events("shop", 10)[0]] == ["e2"]
    assert two.forget("shop", Selector(event_id="e1")).events == 0
    assert two.forget("shop", Selector(item_id="i1")).events == 1
    assert two.forget("shop", Selector(everything=True)).events == 0
    assert two.counts("news")["events"] == 1


def test_a_grant_goes_one_step_and_no_further(two: Store, make_event: MakeEvent) -> None:
    two.record("default", [make_event(1)])
    two.record("news", [make_event(2)])
    two.grant("default", "news", 1.0)
    two.grant("news", "shop", 1.0)
    assert ids(two, "shop") == ["e2"]
    before = two.generation("shop")
    two.record("default", [make_event(3)])
    assert two.generation("shop") == before


def test_what_happens_in_the_source_renews_the_reader(two: Store, make_event: MakeEvent) -> None:
    seen = [two.generation("shop")]

    def changed(after: object) -> bool:
        seen.append(two.generation("shop"))
        return seen[-1] not in seen[:-1]

    assert changed(two.grant("news", "shop", 1.0))
    assert changed(two.record("news", [make_event(1)]))
    assert changed(two.forget("news", Selector(event_id="e1")))
    assert changed(two.revoke("news", "shop"))
    assert not changed(two.record("news", [make_event(2)]))


def test_a_grant_that_holds_keeps_its_date(two: Store) -> None:
    assert two.grant("news", "shop", 1.0) == Grant("news", "shop", 1.0)
    assert two.grant("news", "shop", 2.0) == Grant("news", "shop", 1.0)


def test_a_grant_needs_two_namespaces(two: Store) -> None:
    for source, reader in (("news", "nobody"), ("nobody", "news")):
        with pytest.raises(NotFound, match='"nobody" is not a namespace here'):
            two.grant(source, reader, 1.0)
    with pytest.raises(InvalidArgument, match="reader: is the source itself"):
        two.grant("news", "news", 1.0)
    assert two.sources("news") == ()


def test_a_revoke_takes_what_was_derived_by_the_grant_and_nothing_else(
    two: Store, make_event: MakeEvent
) -> None:
    two.record("news", [make_event(1)])
    two.put_vectors("shop", "pack", [("h", "i1", b"1")])
    log(two, "shop", "before")
    two.grant("news", "shop", 1.0)
    log(two, "shop", "during", "news")
    two.put_prefix_state(PrefixState("shop", "f", "e1", b"", b"x"))
    two.flush()
    two.revoke("news", "shop")
    assert two.ranking("shop", "during") is None
    assert two.ranking("shop", "before") is not None
    assert two.prefix_state() is None
    assert two.vectors("shop", "pack", ["h"]) == {"h": b"1"}
    assert ids(two, "shop") == []
    assert two.path.with_name("store.db-wal").stat().st_size == 0
    two.revoke("news", "shop")
    with reopened(two) as again:
        assert again.sources("shop") == ()


@pytest.mark.parametrize(
    "selector", [Selector(event_id="e1"), Selector(item_id="i1"), Selector(everything=True)]
)
def test_forgetting_in_the_source_takes_what_its_readers_derived(
    two: Store, make_event: MakeEvent, selector: Selector
) -> None:
    two.record("news", [make_event(1)])
    two.grant("news", "shop", 1.0)
    log(two, "shop", "r1", "news")
    log(two, "shop", "r2")
    two.put_prefix_state(PrefixState("shop", "f", "e1", b"", b"x"))
    two.flush()
    two.forget("news", Selector(event_id="unknown"))
    assert two.ranking("shop", "r1") is not None
    would = two.forget("news", selector, dry_run=True)
    assert two.forget("news", selector) == would
    assert (would.rankings, would.prefixes) == (1, 1)
    assert two.ranking("shop", "r1") is None
    assert two.ranking("shop", "r2") is not None
    assert two.prefix_state() is None


def test_one_apps_rankings_push_out_none_of_anothers(two: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_reranker.store.rankings.KEPT", 5)
    monkeypatch.setattr("edge_reranker.store.rankings.PRUNE_EVERY", 2)
    log(two, "shop", "mine")
    for number in range(20):
        log(two, "news", f"r{number}")
    log(two, "shop", "mine too")
    assert two.counts("news")["rankings"] == 6
    assert two.ranking("shop", "mine") is not None


def test_a_store_from_before_namespaces_has_the_default_one(data_dir: Path, make_event: MakeEvent) -> None:
    with Store.open(data_dir, key_source="file") as store:
        store.record("default", [make_event(1)])
        store._writer.alone(
            lambda db: db.conn.executescript(
                "DROP TABLE grants; DROP TABLE namespaces; DROP INDEX rankings_by_namespace;"
                "ALTER TABLE rankings DROP COLUMN sources;"
                "DELETE FROM _sqlite_migrations WHERE name = '0005_namespaces';"
            )
        )
    with Store.open(data_dir, key_source="file") as store:
        assert store.namespaces() == [Namespace("default", 1)]
