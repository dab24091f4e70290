"""What the pipeline does with the time it has, and with what it had no time for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker.deadline import Deadline, Pace
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.pipeline import Pipeline
from edge_reranker.types import Candidate, DegradedReason, Item, RerankQuery, Selector
from tests.parts import films, liked, pipeline

LONG = Deadline()


def settled(engine: FakeEngine, n: int) -> bool:
    """Whether ``n`` items are encoded before long, and no more after that."""
    until = time.monotonic() + 5
    while engine.encoded < n and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    return engine.encoded == n


@contextlib.contextmanager
def busy(whole: Pipeline) -> Iterator[None]:
    """A request of somebody else's that takes as long as the block."""
    answers = whole.rerank_stream("another", RerankQuery(films(1, first=900)), LONG)
    next(answers)
    yield
    for _ in answers:
        pass


def test_a_slow_device_answers_in_time_and_catches_up_in_the_background(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine(ms_per_sequence=10.0)) as whole:
        whole.record("a", liked(5))
        start = time.monotonic()
        first = whole.rerank("a", RerankQuery(films(40)), Deadline.after_ms(120))
        took_ms = (time.monotonic() - start) * 1000
        assert took_ms < 130
        assert first.degraded_reason == DegradedReason.DEADLINE
        assert 0 < first.coverage < 1
        until = time.monotonic() + 20
        while whole.rerank("a", RerankQuery(films(40)), Deadline.after_ms(30)).coverage < 1:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_stream_answers_before_the_model_has_begun(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine(ms_per_sequence=40.0)) as whole:
        whole.record("a", liked(*range(10)))
        start = time.monotonic()
        first = next(iter(whole.rerank_stream("a", RerankQuery(films(20)), Deadline.after_ms(2_000))))
        took_ms = (time.monotonic() - start) * 1000
    assert sorted(result.id for result in first.results) == sorted(f"f{n}" for n in range(20))
    assert took_ms < 40, "no time for a single encoding"


def test_with_no_time_at_all_even_a_long_list_is_answered_at_once(tmp_path: Path) -> None:
    long = tuple(Candidate(Item(f"x{n}", f"Title {n} " * 40, tags=("a", "b"))) for n in range(1_000))
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        start = time.monotonic()
        answer = whole.rerank("a", RerankQuery(long), Deadline.after_ms(0))
        assert (time.monotonic() - start) * 1000 < 50
    assert answer.degraded_reason == DegradedReason.DEADLINE
    assert len(answer.results) == 1_000


def test_a_megabyte_of_text_costs_no_more_than_its_cap(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        start = time.monotonic()
        answer = whole.rerank("a", RerankQuery((Candidate(Item("big", "word " * 200_000)), *films(3))), LONG)
        assert time.monotonic() - start < 2
    assert {result.tier for result in answer.results} == {1}


@pytest.mark.parametrize("history", [(), (5,)])
def test_a_list_that_nobody_had_time_to_read_is_read_in_the_background(
    tmp_path: Path, history: tuple[int, ...]
) -> None:
    engine = FakeEngine()
    with pipeline(tmp_path, encoder=engine) as whole:
        whole.record("a", liked(*history))
        assert settled(engine, len(history))
        answer = whole.rerank("a", RerankQuery(films(30, first=100)), Deadline.after_ms(0))
        assert [result.tier for result in answer.results] == [0] * 30
        assert answer.degraded_reason == (DegradedReason.DEADLINE if history else DegradedReason.NO_HISTORY)
        assert settled(engine, len(history) + 30)


def test_what_was_not_read_yet_is_not_read_after_a_forget(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pipeline(tmp_path, encoder=engine) as whole:
        with busy(whole):
            whole.rerank("a", RerankQuery(films(30)), Deadline.after_ms(0))
            whole.rerank("b", RerankQuery(films(3)), Deadline.after_ms(0))
            whole.forget("a", Selector(everything=True))
            assert engine.encoded == 0
        assert settled(engine, 3 + 1)  # b's, and the busy one's


def test_no_item_is_begun_in_the_background_while_a_request_is_worked_on(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pipeline(tmp_path, encoder=engine) as whole:
        answers = whole.rerank_stream("a", RerankQuery(films(20)), LONG)
        next(answers)  # the request is not over
        time.sleep(0.1)
        assert engine.encoded == 0
        for _ in answers:
            pass
        assert settled(engine, 20)


def test_requests_without_a_gap_do_not_keep_the_background_from_working(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pipeline(tmp_path, encoder=engine) as whole, busy(whole):
        whole.rerank("a", RerankQuery(films(2)), LONG)
        until = time.monotonic() + 10
        while engine.encoded < 2:
            assert time.monotonic() < until, "it starved"
            time.sleep(0.02)


def test_a_pace_follows_what_is_measured() -> None:
    pace = Pace()
    assert pace.predict_ms(100) == 0
    pace.measured(10, 20.0)
    assert pace.predict_ms(100) == pytest.approx(200.0)
    for _ in range(50):
        pace.measured(10, 5.0)
    assert pace.predict_ms(100) == pytest.approx(50.0, rel=0.01)


def test_what_it_costs_to_begin_is_not_taken_for_a_pace() -> None:
    """After lists of one candidate, 2 ms each, one of 200 is not thought to take 400 ms."""
    pace = Pace(None, 50.0)
    pace.measured(1, 2.0)
    assert pace.predict_ms(1) == pytest.approx(2.0)
    assert pace.predict_ms(200) == pytest.approx(8.0)
    pace.measured(100, 4.0)
    assert pace.predict_ms(100) == pytest.approx(4.0)


def test_short_lists_do_not_keep_a_long_one_from_being_reranked(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        whole.rerank("a", RerankQuery(films(300)), LONG)
        for _ in range(20):
            whole.rerank("a", RerankQuery(films(1)), LONG)
        again = whole.rerank("a", RerankQuery(films(300)), Deadline.after_ms(300))
        assert again.timings.tier0_ms > 0
        assert again.coverage == 1


def test_one_stall_does_not_forbid_work_for_ever() -> None:
    """Every refusal lowers the prediction, so the work is tried and measured again."""
    pace = Pace()
    pace.measured(1, 60_000.0)
    refusals = 0
    while pace.predict_ms(1) > 100:
        pace.refused()
        refusals += 1
    assert 10 < refusals < 100
