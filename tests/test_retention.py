"""Rules of retention in a whole pipeline: when they are kept to, and what the next order is then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.pipeline import Pipeline
from edge_reranker.store import Store
from edge_reranker.sweeper import Sweeper
from edge_reranker.types import Event, EventType, Ranking, RerankQuery, Retention, TypeRetention
from tests.parts import film, films, liked, pipeline
from tests.test_forget_races import held

LONG = Deadline()


def ids(ranking: Ranking) -> list[str]:
    return [result.id for result in ranking.results]


def settled(whole: Pipeline, namespace: str = "a") -> None:
    """Waits until nothing is over the rule."""
    eventually(lambda: not whole.retention(namespace).sweeping)


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def known(whole: Pipeline, namespace: str = "a") -> list[str]:
    return [event.event_id for event in whole.events(namespace, 10_000, "")[0]]


def sweepers() -> int:
    return sum(thread.name == "sweeper" for thread in threading.enumerate())


def test_after_a_sweep_the_order_is_that_of_a_store_which_never_had_what_went(tmp_path: Path) -> None:
    with (
        pipeline(tmp_path / "one", encoder=FakeEngine()) as one,
        pipeline(tmp_path / "two", encoder=FakeEngine()) as two,
    ):
        one.record("a", liked(3, 7, 11))
        two.record("a", liked(3, 7, 11)[2:])
        before = ids(one.rerank("a", RerankQuery(films(20)), LONG))
        expected = ids(two.rerank("a", RerankQuery(films(20)), LONG))
        assert before != expected
        one.set_retention("a", Retention(max_events=1))
        settled(one)
        assert not {event.event_id for event in held(one, Event)} & {"e3", "e7"}
        assert ids(one.rerank("a", RerankQuery(films(20)), LONG)) == expected
        assert known(one) == ["e11"]


def test_a_rule_is_kept_to_again_at_the_next_start(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.set_retention("a", Retention(max_events=2))
        settled(whole)
        whole.record("a", liked(1, 2, 3))
        assert len(known(whole)) == 3  # less than a margin: nobody hurries
    with pipeline(tmp_path) as whole:
        settled(whole)
        assert known(whole) == ["e3", "e2"]


def test_a_namespace_is_swept_when_it_has_a_tenth_more_than_it_keeps(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.set_retention("a", Retention(max_events=1_000))
        settled(whole)
        for first in range(0, 1_200, 200):
            whole.record("a", liked(*range(first, first + 200), at_s=1e9 + first))
        settled(whole)
        assert known(whole) == [f"e{n}" for n in range(1_199, 199, -1)]


def test_once_everything_is_to_be_kept_nothing_more_goes_by_the_rule_before(tmp_path: Path) -> None:
    with Store.open(tmp_path, key_source="file") as store:
        store.record("a", liked(*range(3_000)))
        sweeper = Sweeper(store, lambda namespace, touched: None, rest_s=0.2)
        try:
            sweeper.set("a", Retention(max_events=1))
            eventually(lambda: store.counts("a")["events"] < 3_000)
            sweeper.set("a", Retention())
            left = store.counts("a")["events"]
            assert not sweeper.status("a").sweeping
            time.sleep(0.3)
            assert store.counts("a")["events"] == left > 1
        finally:
            sweeper.close()


def test_without_a_rule_no_thread_is_there_to_wake_up(tmp_path: Path) -> None:
    before = sweepers()
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(1, 2, 3))
        whole.rerank("a", RerankQuery(films(5)), LONG)
        assert sweepers() == before
        whole.set_retention("a", Retention(max_events=2))
        settled(whole)
        assert sweepers() == before + 1
    assert sweepers() == before


@pytest.mark.parametrize(
    ("rule", "wakes"),
    [
        (Retention(max_age_days=1), True),
        (Retention(by_type=(TypeRetention(EventType.VIEW, 1),)), True),
        (Retention(max_events=5), False),
    ],
)
def test_only_a_rule_by_age_wakes_a_service_that_rests(tmp_path: Path, rule: Retention, wakes: bool) -> None:
    now = [time.time()]
    with Store.open(tmp_path, key_source="file", device_s=lambda: now[0]) as store:
        store.set_retention("a", rule)
        sweeper = Sweeper(store, lambda namespace, touched: None, every_s=0.05)
        try:
            eventually(lambda: not sweeper.status("a").sweeping)
            noted = store._clock._kept
            time.sleep(0.3)
            assert (store._clock._kept is not noted) == wakes
        finally:
            sweeper.close()


def test_what_was_recorded_below_the_margin_goes_within_the_hour(tmp_path: Path) -> None:
    with Store.open(tmp_path, key_source="file") as store:
        sweeper = Sweeper(store, lambda namespace, touched: None, every_s=0.05)
        try:
            sweeper.set("a", Retention(max_events=2))
            store.record("a", liked(1, 2, 3))
            sweeper.recorded("a", 3)
            eventually(lambda: store.counts("a")["events"] == 2)
        finally:
            sweeper.close()


def test_one_namespaces_rule_is_not_anothers(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(1, 2, 3))
        whole.record("b", liked(1, 2, 3))
        whole.set_retention("a", Retention(max_events=1))
        settled(whole)
        assert (len(known(whole, "a")), len(known(whole, "b"))) == (1, 3)
        assert whole.retention("b").retention == Retention()


def test_requests_and_records_go_on_during_a_sweep_and_every_order_is_complete(tmp_path: Path) -> None:
    views = [Event(f"v{n}", EventType.VIEW, 9e8 + n, film(n)) for n in range(2_000)]
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        for first in range(0, len(views), 500):
            whole.record("a", views[first : first + 500])
        whole.record("a", liked(3, 7))
        expected = ids(whole.rerank("a", RerankQuery(films(20)), LONG))
        whole.set_retention("a", Retention(max_events=10))
        n_during = 0
        while whole.retention("a").sweeping:
            assert ids(whole.rerank("a", RerankQuery(films(20)), LONG)) == expected
            assert whole.record("a", [Event(f"n{n_during}", EventType.VIEW, 8e8, film(1))]).recorded == 1
            n_during += 1
        assert n_during > 3
        assert {"e3", "e7"} <= set(known(whole))
