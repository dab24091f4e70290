"""What is asked of a large store, counted in steps of SQLite's machine: a clock would tell of the device."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item

TELLING = frozenset(EventType) - {EventType.UNSPECIFIED, EventType.IMPRESSION, EventType.SKIP}
A_STEP = 10
_FRESH = itertools.count()


def made(n: int, kind: EventType, first: int = 0) -> list[Event]:
    return [
        Event(f"{kind.name}{place}", kind, 1e9 + place, Item(f"i{place % 300}", "Title"))
        for place in range(first, first + n)
    ]


def steps(store: Store, ask: Callable[[], object]) -> int:
    """How many steps a question takes, in tens, in the one connection that is idle."""
    count = [0]

    def counted() -> int:
        count[0] += 1
        return 0

    with store._readers.one() as db:
        db.conn.set_progress_handler(counted, A_STEP)
    ask()
    with store._readers.one() as db:
        db.conn.set_progress_handler(None, 0)
    assert count[0], "the test's own premise: steps are counted"
    return count[0]


def test_what_a_request_asks_costs_the_same_in_a_store_twenty_times_as_large(store: Store) -> None:
    def ask() -> None:
        assert len(store.context("app", 200, types=TELLING).events) == 200

    store.record("app", made(400, EventType.VIEW))
    small = steps(store, ask)
    store.record("app", made(8_000, EventType.VIEW, 1_000))
    assert steps(store, ask) < 1.1 * small


def test_impressions_cost_a_request_nothing(store: Store) -> None:
    def ask() -> None:
        assert len(store.context("app", 200, types=TELLING).events) == 200

    store.record("app", made(400, EventType.LIKE))
    before = steps(store, ask)
    store.record("app", made(5_000, EventType.IMPRESSION, 1_000))
    assert steps(store, ask) < 1.1 * before


@pytest.fixture(scope="module")
def shared_store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as d, Store.open(Path(d) / "data", key_source="file") as opened:
        yield opened


@pytest.mark.parametrize("limit", [1, 3, 100])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=st.lists(st.tuples(st.sampled_from(EventType), st.integers(0, 5)), max_size=30),
    types=st.one_of(st.none(), st.frozensets(st.sampled_from(EventType))),
)
def test_the_newest_of_some_types_are_those_of_all_without_the_others(
    shared_store: Store, limit: int, kinds: list[tuple[EventType, int]], types: Collection[EventType] | None
) -> None:
    namespace = f"app{next(_FRESH)}"
    events = [Event(f"e{n}", kind, float(at), Item("i")) for n, (kind, at) in enumerate(kinds)]
    shared_store.record(namespace, events)
    ordered = sorted(enumerate(events), key=lambda each: (each[1].occurred_at, each[0]))
    wanted = [event for _, event in ordered if types is None or event.type in types]
    assert shared_store.context(namespace, limit, types=types).events == tuple(wanted[-limit:])
