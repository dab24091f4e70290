"""How far the model reads a list: what can still change the first places, and no more."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapter, Encoded, Stop
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.pipeline import Pipeline
from edge_reranker.scoring import Plan
from edge_reranker.types import DegradedReason, Effort, Ranking, RerankQuery
from tests.parts import films, liked, pipeline, small_pack

LONG = Deadline()
N = 120


class InSteps(FakeEngine):
    """One that has time for so many items of candidates, and then for no more."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n

    def encode(
        self,
        sequences: Sequence[Sequence[int]],
        deadline: Deadline,
        *,
        background: bool = False,
        adapter: Adapter | None = None,
    ) -> Encoded:
        """The first of them, while there are any left."""
        if background:
            return super().encode([], deadline)
        given = list(sequences)[: self._n - self.encoded]
        made = super().encode(given, deadline, adapter=adapter)
        return Encoded(made.vectors, Stop.DONE if len(given) == len(sequences) else Stop.DEADLINE)


def settled(n: int = N, **fields: int) -> RerankQuery:
    return RerankQuery(films(n), effort=Effort.SETTLED, **fields)


def read(answer: Ranking) -> set[str]:
    return {result.id for result in answer.results if result.tier == 1}


def known(whole: Pipeline) -> None:
    """A user whose history has its vectors."""
    whole.record("a", liked(201, 202, 205))
    idle(whole)


def idle(whole: Pipeline) -> None:
    """Waits until nothing is left to read in the background."""
    background = whole._current.value.tiers.background
    assert background is not None
    assert background.wait_idle(Deadline.after_ms(10_000))


def test_a_settled_answer_leaves_some_unread_and_is_not_degraded(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        known(whole)
        *early, first = whole.rerank_stream("a", settled(), LONG)
        assert first.settled
        assert first.degraded_reason == DegradedReason.UNSPECIFIED
        assert 0 < first.coverage < 1
        assert {result.id for result in first.results[:3]} & read(first)
        assert not any(answer.settled for answer in early), "more may follow"
        idle(whole)
        later = whole.rerank("a", settled(), LONG)
    assert (later.coverage, later.settled) == (1.0, False), "the background has read the rest"


def test_a_request_that_does_not_ask_for_it_reads_everything(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        known(whole)
        answer = whole.rerank("a", RerankQuery(films(N)), LONG)
    assert (answer.coverage, answer.settled) == (1.0, False)


def test_a_pack_that_sees_each_candidate_beside_the_others_reads_them_all(tmp_path: Path) -> None:
    """Its vectors are taken from the mean of those at hand: of a few of them, it is another."""
    pack = small_pack(n_learned=0)
    pack = dataclasses.replace(pack, manifest=dataclasses.replace(pack.manifest, centred="list"))
    with pipeline(tmp_path, encoder=FakeEngine(), pack=pack) as whole:
        known(whole)
        answer = whole.rerank("a", settled(), LONG)
    assert (answer.coverage, answer.settled) == (1.0, False)


def test_the_first_places_of_a_settled_answer_are_nearly_those_of_a_full_one(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        known(whole)
        first = whole.rerank("a", settled(), LONG)
        full = whole.rerank("a", RerankQuery(films(N)), LONG)
    assert first.coverage < 1
    assert len({each.id for each in first.results[:10]} & {each.id for each in full.results[:10]}) >= 8


def test_two_services_read_the_same(tmp_path: Path) -> None:
    """What is read follows from the request and the user, not from the clock."""
    answers = []
    for name, slow_ms in (("one", 0.0), ("two", 1.0)):
        with pipeline(tmp_path / name, encoder=FakeEngine(ms_per_sequence=slow_ms)) as whole:
            known(whole)
            answers.append(whole.rerank("a", settled(), LONG).results)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("effort", [Effort.SETTLED, Effort.FULL])
def test_with_more_time_no_candidate_is_read_less(tmp_path: Path, effort: Effort) -> None:
    """So the coverage of the first places, whichever they are, never falls with the budget."""
    found: list[set[str]] = []
    for n in (3, 8, 11, 20, 40, N + 3):
        with pipeline(tmp_path / str(n), encoder=InSteps(n + 3)) as whole:
            whole.record("a", liked(201, 202, 205))
            answer = whole.rerank("a", RerankQuery(films(N), effort=effort), LONG)
            assert len(answer.results) == N
            found.append(read(answer))
            assert answer.settled == (len(found[-1]) < min(n, N))
    assert all(less <= more for less, more in itertools.pairwise(found))
    assert len(found[1]) == 8
    assert (len(found[-1]) == N) == (effort == Effort.FULL)


def test_fewer_places_to_fill_need_less_reading(tmp_path: Path) -> None:
    coverage = []
    for top_n in (1, 10, 100):
        with pipeline(tmp_path / str(top_n), encoder=FakeEngine()) as whole:
            known(whole)
            coverage.append(whole.rerank("a", settled(top_n=top_n), LONG).coverage)
    assert coverage == sorted(coverage)
    assert coverage[0] < coverage[-1]


@pytest.mark.parametrize(
    ("effort", "weight", "fewest", "most"),
    [(Effort.SETTLED, 0.05, 0, 12), (Effort.SETTLED, 3.0, 20, 20), (Effort.FULL, 0.05, 20, 20)],
)
def test_the_model_that_reads_candidates_reads_as_many_as_it_can_move(
    tmp_path: Path, effort: Effort, weight: float, fewest: int, most: int
) -> None:
    pack = small_pack(scorer_weight=weight)
    with pipeline(tmp_path, encoder=FakeEngine(), scorer=FakeEngine(), pack=pack) as whole:
        known(whole)
        answer = whole.rerank("a", RerankQuery(films(N), top_n=3, effort=effort), LONG)
    n = sum(result.tier == 2 for result in answer.results)
    assert answer.degraded_reason == DegradedReason.UNSPECIFIED
    assert fewest <= n <= most
    assert answer.settled == (effort == Effort.SETTLED)


@pytest.mark.parametrize("stop", [None, Stop.DIED, Stop.BUSY])
def test_what_failed_is_not_called_settled(tmp_path: Path, stop: Stop | None) -> None:
    encoder = None if stop is None else FakeEngine(fail_with=stop)
    with pipeline(tmp_path, encoder=encoder) as whole:
        whole.record("a", liked(5))
        answer = whole.rerank("a", settled(), LONG)
    assert answer.degraded_reason != DegradedReason.UNSPECIFIED
    assert not answer.settled


def test_a_plan_names_each_candidate_once_and_in_full_all_of_them() -> None:
    random = np.random.default_rng(0)
    scores, deviations = random.standard_normal(50), np.full(50, 0.4)
    left = set(range(5, 50))
    for effort in (Effort.FULL, Effort.SETTLED):
        plan = Plan(RerankQuery(films(50), effort=effort))
        plan.stands(scores, deviations)
        found = plan.next(left)
        assert len(set(found)) == len(found)
        assert set(found) <= left
        assert (set(found) == left) == (effort == Effort.FULL)
    plan.stands(scores, np.zeros(50))
    assert plan.next(left) == [], "all is read"
