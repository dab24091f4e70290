"""From answers to lists: the policy's last word, what a caller is told, and what is kept of it."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from edge_reranker.deadline import LEAST_CANDIDATES, Deadline, Paces, Watch
from edge_reranker.errors import StoreError
from edge_reranker.pipeline import answers
from edge_reranker.pipeline.answers import Answer, Answers
from edge_reranker.pipeline.explaining import Explaining
from edge_reranker.ranking import policy
from edge_reranker.scoring import Tiers
from edge_reranker.scoring.epochs import Owner
from edge_reranker.store import Store
from edge_reranker.types import DegradedReason, Ranking, RerankQuery

# After the last tier come fusion, policy and the answer's records: this, and some more for each candidate.
_AFTERWARDS_MS = 1.0
# Variety, calibration and exploration on a slow laptop core, until they are measured.
_POLICY_MS_PER_CANDIDATE = 0.01


@dataclass(frozen=True, slots=True)
class _Request:
    tiers: Tiers
    owner: Owner
    ranking_id: str
    query: RerankQuery
    deadline: Deadline
    watch: Watch

    @property
    def app(self) -> str:
        return self.owner.namespace


class Lists:
    """Makes the lists that requests are answered with, and logs the final ones. Thread-safe."""

    def __init__(
        self, store: Store, made_by: Answers, explaining: Explaining, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._answers = made_by
        self._explaining = explaining
        self._clock = clock
        # Each per candidate.
        self._afterwards_paces = Paces(None, LEAST_CANDIDATES)
        self._log_paces = Paces(None, LEAST_CANDIDATES)
        self._policy_paces = Paces(_POLICY_MS_PER_CANDIDATE, LEAST_CANDIDATES)

    def of(
        self, tiers: Tiers, namespace: str, query: RerankQuery, deadline: Deadline, *, every: bool
    ) -> Iterator[Ranking]:
        """With ``every``, one after each step; the final one in any case, once it is logged."""
        owner, ranking_id = tiers.epochs.owner(namespace), secrets.token_hex(12)
        request = _Request(tiers, owner, ranking_id, query, deadline, Watch())
        n = len(query.candidates)
        log_pace = self._log_paces.of(namespace)
        afterwards_ms = _AFTERWARDS_MS + log_pace.predict_ms(n)
        afterwards_ms += self._afterwards_paces.of(namespace).predict_ms(n)
        if policy.has_soft(query.policy):
            # A quarter of the time at the most: who comes first matters more than what the list is like.
            most_ms = max(0.0, deadline.remaining_ms() / 4)
            afterwards_ms += min(most_ms, self._policy_paces.of(namespace).predict_ms(n))
        in_time, watch = deadline.less_ms(afterwards_ms), request.watch
        last: tuple[Ranking, policy.Arranged] | None = None
        answer: Answer | None = None
        for answer in self._answers.of(tiers, namespace, query, in_time, watch):
            if every:
                last = self._list(request, answer)
                # More may follow, so nothing counts as missing yet, and nothing as settled.
                yield dataclasses.replace(last[0], degraded_reason=DegradedReason.UNSPECIFIED, settled=False)
        if answer is None:
            raise AssertionError("a request has at least one answer")
        ranking, shown = last or self._list(request, answer)
        final = dataclasses.replace(ranking, final=True)
        watch.lap("sent")
        self._explaining.keep(tiers, owner, query, final, answer, shown)
        watch.lap("logged")
        log_pace.measured(n, watch.spent_ms("logged"))
        yield final

    def _list(self, request: _Request, answer: Answer) -> tuple[Ranking, policy.Arranged]:
        """What is told of an answer: with the whole policy if there is time, else with what must hold."""
        query, watch, n = request.query, request.watch, len(request.query.candidates)
        before_ms = watch.spent_ms("fusion")
        soft, pace = policy.has_soft(query.policy), self._policy_paces.of(request.app)
        if soft and request.deadline.remaining_ms() < pace.predict_ms(n):
            pace.refused()
            soft = False
            if not answer.reason:
                answer = dataclasses.replace(answer, reason=DegradedReason.DEADLINE)
        muted: Collection[str] = ()
        try:
            muted = self._store.muted(request.app)
        except StoreError:
            answer = dataclasses.replace(answer, reason=DegradedReason.STORE_UNAVAILABLE)
        shown = answers.arranged(
            query,
            answer,
            ranking_id=request.ranking_id,
            now_s=self._clock(),
            muted=muted,
            soft=soft,
        )
        watch.lap("fusion")
        policy_ms = watch.spent_ms("fusion") - before_ms
        ranking = answers.ranking(request.tiers, request.ranking_id, query, answer, shown, watch)
        told_ms = watch.spent_ms("fusion") - before_ms - policy_ms
        if soft:
            pace.measured(n, policy_ms)
        else:
            told_ms += policy_ms
        self._afterwards_paces.of(request.app).measured(n, told_ms)
        return ranking, shown
