"""Rules of retention, and the sweep that keeps to them, in a real store under a clock that a test sets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_reranker.store import Store
from edge_reranker.types import (
    Event,
    EventType,
    Forgotten,
    Item,
    PrefixState,
    Ranking,
    Result,
    Retention,
    Selector,
    TypeRetention,
)

DAY = 86_400.0
YEAR = 365 * DAY
NOW = 1_800_000_000.0
LIKE, VIEW, SEARCH = EventType.LIKE, EventType.VIEW, EventType.SEARCH


@dataclass
class Device:
    """A device's clock, and one that nobody can set."""

    clock_s: float = NOW
    passed_s: float = 0.0

    def waits(self, for_s: float) -> None:
        self.clock_s += for_s
        self.passed_s += for_s

    @contextlib.contextmanager
    def store(self, folder: Path) -> Iterator[Store]:
        with Store.open(
            folder, key_source="file", device_s=lambda: self.clock_s, passed_s=lambda: self.passed_s
        ) as store:
            yield store


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def kept(data_dir: Path, device: Device) -> Iterator[Store]:
    with device.store(data_dir) as store:
        yield store


def event(n: int, at: float = NOW, kind: EventType = LIKE, item_id: str = "") -> Event:
    return Event(f"e{n}", kind, at, Item(item_id or f"i{n}", f"Title {n}"))


def sweep(store: Store, namespace: str = "app") -> Forgotten:
    """All of what went."""
    steps = [step.forgotten for step in store.sweep(namespace)]
    kinds = ("events", "items", "vectors", "rankings")
    return Forgotten(*(sum(getattr(step, kind) for step in steps) for kind in kinds))


def ids(store: Store, namespace: str = "app") -> set[str]:
    return {each.event_id for each in store.events(namespace, 10_000)[0]}


def test_everything_is_kept_until_a_rule_is_set(kept: Store) -> None:
    kept.record("app", [event(n, NOW - n * YEAR) for n in range(30)])
    assert kept.retention("app") == Retention()
    assert kept.retentions() == {}
    assert sweep(kept) == Forgotten()
    assert len(ids(kept)) == 30


def test_a_rule_outlives_a_restart_and_an_empty_one_takes_it_away(data_dir: Path) -> None:
    rule = Retention(30, 0, (TypeRetention(VIEW, 7, 20), TypeRetention(LIKE, 0, 5)))
    only_types = Retention(by_type=(TypeRetention(VIEW, 7),))
    with Store.open(data_dir, key_source="file") as store:
        store.set_retention("app", Retention(1, 1))
        store.set_retention("app", rule)
        store.set_retention("other", only_types)
    with Store.open(data_dir, key_source="file") as store:
        assert store.retentions() == {"app": rule, "other": only_types}
        store.set_retention("app", Retention())
        assert store.retentions() == {"other": only_types}


def test_events_go_with_what_only_they_needed(kept: Store) -> None:
    old, young = NOW - 31 * DAY, NOW - 29 * DAY
    kept.record("app", [event(1, old), event(2, old, item_id="both"), event(3, young)])
    kept.record("app", [Event("e4", LIKE, young, Item("both", "Title 2")), event(5, young)])
    kept.record("app", [Event("s", SEARCH, old, query="words")])
    kept.record("other", [event(1, old)])
    kept.put_vectors("app", "pack", [("h1", "i1", b"1"), ("h2", "both", b"2"), ("h3", "shown", b"3")])
    for name, at in (("r1", old), ("r2", young)):
        ranking = Ranking(name, (Result("i1", 0),), 1.0)
        kept.put_ranking("app", ranking, surface="", session_id="", created_at=at)
    kept.flush()
    kept.set_retention("app", Retention(max_age_days=30))
    assert sweep(kept) == Forgotten(events=3, items=1, vectors=1, rankings=1)
    assert ids(kept) == {"e3", "e4", "e5"}
    assert ids(kept, "other") == {"e1"}
    assert set(kept.vectors("app", "pack", ["h1", "h2", "h3"])) == {"h2", "h3"}
    assert kept.ranking("app", "r1") is None
    assert kept.ranking("app", "r2") is not None
    assert kept.check() == []


def test_the_state_of_a_model_that_read_what_goes_goes_too(kept: Store) -> None:
    kept.record("app", [event(n, NOW - n * DAY) for n in range(10)])
    kept.put_prefix_state(PrefixState("app", "model", "e9", b"", b""))
    kept.flush()
    kept.set_retention("app", Retention(max_events=9))
    sweep(kept)
    assert kept.prefix_state() is None


def test_nothing_of_what_was_swept_stays_in_the_log(kept: Store) -> None:
    kept.record("app", [event(1), event(2)])
    kept.set_retention("app", Retention(max_events=1))
    sweep(kept)
    assert kept.path.with_name("store.db-wal").stat().st_size == 0


EVENTS = st.lists(
    st.tuples(st.sampled_from([LIKE, VIEW, SEARCH]), st.integers(0, 40), st.integers(0, 5)), max_size=30
)
RULES = st.builds(
    lambda days, events, by_type: Retention(
        days, events, tuple(TypeRetention(kind, *limits) for kind, limits in sorted(by_type.items()))
    ),
    st.integers(0, 30),
    st.integers(0, 12),
    st.dictionaries(
        st.sampled_from([LIKE, VIEW]), st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=2
    ),
)


def expected(events: list[Event], rule: Retention) -> set[str]:
    """What a rule keeps, said as the contract says it. Of one moment, what was recorded last is newer."""
    order = {each.event_id: place for place, each in enumerate(events)}

    def over(of_type: list[Event], days: int, most: int) -> set[str]:
        newest = sorted(of_type, key=lambda each: (each.occurred_at, order[each.event_id]), reverse=True)
        gone = {each.event_id for each in newest[most:]} if most else set()
        return gone | {each.event_id for each in of_type if days and each.occurred_at < NOW - days * DAY}

    gone = over(events, rule.max_age_days, rule.max_events)
    for each in rule.by_type:
        gone |= over([one for one in events if one.type == each.type], each.max_age_days, each.max_events)
    return set(order) - gone


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Device().store(tmp_path_factory.mktemp("shared") / "data") as store:
        yield store


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=EVENTS, rule=RULES, data=st.data())
def test_a_sweep_leaves_exactly_what_the_rule_keeps_and_a_second_finds_nothing(
    shared: Store, drawn: list[tuple[EventType, int, int]], rule: Retention, data: st.DataObject
) -> None:
    shared.forget("app", Selector(everything=True))
    events = [
        Event(f"e{n}", kind, NOW - days * DAY, Item(f"i{item}")) for n, (kind, days, item) in enumerate(drawn)
    ]
    shared.set_retention("app", rule)
    # Whatever was swept before the rest came, and however far that sweep got.
    early = data.draw(st.integers(0, len(events)))
    shared.record("app", events[:early])
    if early == len(events):
        for _ in zip(shared.sweep("app"), range(data.draw(st.integers(0, 2))), strict=False):
            pass
    shared.record("app", events[early:])
    gone = sweep(shared)
    assert ids(shared) == expected(events, rule)
    assert sweep(shared) == Forgotten()
    items = {each.item.id for each in events if each.item and each.event_id in ids(shared)}
    assert shared.counts("app")["items"] == len(items)
    assert early == len(events) or gone.events == len(events) - len(ids(shared))


def test_a_sweep_that_was_stopped_is_finished_by_the_next(kept: Store) -> None:
    kept.record("app", [event(n, NOW - (n + 1) * DAY) for n in range(500)])
    kept.set_retention("app", Retention(max_events=10))
    steps = kept.sweep("app")
    first = next(steps).forgotten
    steps.close()
    assert 0 < first.events < 490
    assert sweep(kept).events == 490 - first.events
    assert ids(kept) == {f"e{n}" for n in range(10)}


def test_what_is_recorded_during_a_sweep_is_not_taken_for_what_had_its_number(kept: Store) -> None:
    kept.record("app", [event(n, NOW - 50 * DAY) for n in range(400)])
    kept.set_retention("app", Retention(max_age_days=30))
    steps = kept.sweep("app")
    next(steps)
    kept.forget("app", Selector(everything=True))
    kept.record("app", [event(n, NOW) for n in range(400)])
    assert sum(step.forgotten.events for step in steps) == 0
    assert len(ids(kept)) == 400


# Jumps of the clock.


@pytest.mark.parametrize("jump_s", [10 * YEAR, -10 * YEAR])
@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_that_jumps_ten_years_and_back_removes_nothing(
    data_dir: Path, device: Device, jump_s: float, restart: bool
) -> None:
    def again(store: Store, stack: contextlib.ExitStack) -> Store:
        if not restart:
            return store
        stack.close()
        return stack.enter_context(device.store(data_dir))

    with contextlib.ExitStack() as stack:
        store = stack.enter_context(device.store(data_dir))
        store.set_retention("app", Retention(max_age_days=30, max_events=50))
        store.record("app", [event(n, NOW - n * DAY) for n in range(29)])
        device.clock_s += jump_s
        store = again(store, stack)
        assert sweep(store).events == 0
        # Dated by the clock that is wrong, as it is when an app leaves that to the service.
        store.record("app", [event(n, device.clock_s) for n in range(100, 110)])
        device.waits(DAY / 2)
        assert sweep(store).events == 0
        device.clock_s -= jump_s
        store = again(store, stack)
        assert sweep(store).events == 0
        assert len(ids(store)) == 39
        # And those that were recorded meanwhile are as old as they are.
        device.waits(25 * DAY)
        assert {f"e{n}" for n in range(100, 110)} <= ids(store)
        sweep(store)
        assert {f"e{n}" for n in range(100, 110)} <= ids(store)
        device.waits(10 * DAY)
        sweep(store)
        assert ids(store) == set()


def test_after_two_years_off_old_events_go_within_a_week_and_new_ones_stay(
    data_dir: Path, device: Device
) -> None:
    with device.store(data_dir) as store:
        store.set_retention("app", Retention(max_age_days=30))
        store.record("app", [event(n) for n in range(5)])
    device.clock_s += 2 * YEAR
    with device.store(data_dir) as store:
        assert sweep(store).events == 0
        store.record("app", [event(9, device.clock_s)])
        assert store.now() < device.clock_s - YEAR
        device.waits(7 * DAY)
        assert sweep(store).events == 5
        assert ids(store) == {"e9"}
        assert store.now() == pytest.approx(device.clock_s)


def test_a_board_whose_clock_is_first_set_after_its_first_events_keeps_them(
    data_dir: Path, device: Device
) -> None:
    device.clock_s = 86_400.0 * 365 * 30  # 1999: there is no battery
    with device.store(data_dir) as store:
        store.set_retention("app", Retention(max_age_days=30))
        store.record("app", [event(1, device.clock_s - 20 * DAY), event(2, device.clock_s)])
        device.clock_s = NOW  # by the network, while the service runs
        assert sweep(store).events == 0
    with device.store(data_dir) as store:
        assert sweep(store).events == 0
        assert store.now() == NOW
        device.waits(11 * DAY)
        sweep(store)
        assert ids(store) == {"e2"}


def test_an_event_of_tomorrow_and_an_old_one_are_counted_from_when_they_happened(
    kept: Store, device: Device
) -> None:
    kept.set_retention("app", Retention(max_age_days=30))
    kept.record("app", [event(1, NOW + 0.9 * DAY), event(2, NOW - 29 * DAY), event(3, NOW - 3 * YEAR)])
    sweep(kept)
    assert ids(kept) == {"e1", "e2"}
    device.waits(2 * DAY)
    sweep(kept)
    assert ids(kept) == {"e1"}


def test_an_empty_store_believes_the_clock(data_dir: Path, device: Device) -> None:
    device.clock_s = NOW + 10 * YEAR
    with device.store(data_dir) as store:
        store.record("app", [event(1, device.clock_s)])
        store.forget("app", Selector(everything=True))
    device.clock_s = NOW
    with device.store(data_dir) as store:
        assert store.now() == NOW


# What others read meanwhile.


def test_only_a_removal_from_what_was_read_says_that_it_must_be_read_again(kept: Store) -> None:
    kept.record("app", [event(n, NOW - n * DAY) for n in range(100)])
    kept.record("app", [event(n, NOW - n * DAY, VIEW) for n in range(100, 200)])
    kept.context("app", 10, types={LIKE})
    before = kept.generation("app")
    kept.set_retention("app", Retention(max_events=20, by_type=(TypeRetention(VIEW, 0, 1),)))
    assert sweep(kept).events == 180
    assert kept.generation("app") == before
    kept.set_retention("app", Retention(max_events=5))
    assert sweep(kept).events == 15
    assert kept.generation("app") != before
