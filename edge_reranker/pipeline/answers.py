"""One request: what each tier says, fused with what the tiers below it said."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline, Paces, Watch
from edge_reranker.errors import StoreError
from edge_reranker.pipeline.basis import Basis
from edge_reranker.ranking import policy
from edge_reranker.ranking.features import server_rank
from edge_reranker.ranking.fusion import order
from edge_reranker.scoring import Scorer, Tiers, TierScores, Users
from edge_reranker.types import DegradedReason, Ranking, RerankQuery, Result

Float64 = npt.NDArray[np.float64]

# Tier 0 on a slow laptop core, until it is measured.
_TIER0_MS_PER_CHARACTER = 0.0001


@dataclass(frozen=True, slots=True)
class Answer:
    """An order [n] of candidate indices, the tier [n] of each candidate, and how good it is.

    ``scores`` [n] are what it is by, and ``basis`` is what they were made of; None: it is the server's.
    ``vectors`` are TierScores'.
    """

    order: npt.NDArray[np.intp]
    tier: npt.NDArray[np.intp]
    coverage: float
    reason: DegradedReason = DegradedReason.UNSPECIFIED
    scores: Float64 | None = None
    basis: Basis | None = None
    vectors: Callable[[Sequence[int]], npt.NDArray[np.floating]] | None = None

    def because(self, reason: DegradedReason, coverage: float) -> Answer:
        """The same order, with what was missing."""
        return Answer(self.order, self.tier, coverage, reason)


class Answers:
    """Answers requests, and learns what its own parts take. Thread-safe."""

    def __init__(self, users: Users, clock: Callable[[], float]) -> None:
        self._users = users
        self._clock = clock
        self._tier0_paces = Paces(_TIER0_MS_PER_CHARACTER)
        self._fusion_paces = Paces()  # per candidate, after each result of a tier

    def of(
        self, tiers: Tiers, namespace: str, query: RerankQuery, deadline: Deadline, watch: Watch
    ) -> Iterator[Answer]:
        """An answer after each tier, each better informed than the one before; one at the least."""
        n = len(query.candidates)
        as_served = Answer(np.arange(n), np.zeros(n, dtype=np.intp), 1.0)
        try:
            user = self._users.now(tiers, namespace)
        except StoreError:
            watch.lap("context")
            yield as_served.because(DegradedReason.STORE_UNAVAILABLE, 0.0)
            return
        watch.lap("context")
        if tiers.weights is None or tiers.without_model is None:
            yield as_served.because(DegradedReason.PACK_INVALID, 0.0)
            return
        if not user.profile and not query.query:
            # Nobody is known yet: so much more time to get ready for what they pick of this.
            if tiers.public is not None:
                tiers.public.remember(user.owner, query.candidates, deadline)
            if tiers.background is not None:
                tiers.background.read(user.owner, query.candidates)
            yield as_served.because(DegradedReason.NO_HISTORY, 1.0)
            return
        work = query.work
        tier0_pace, fusion_pace = self._tier0_paces.of(namespace), self._fusion_paces.of(namespace)
        if deadline.remaining_ms() < tier0_pace.predict_ms(work):
            tier0_pace.refused()
            if tiers.background is not None:
                tiers.background.read(user.owner, query.candidates)
            yield as_served.because(DegradedReason.DEADLINE, 0.0)
            return
        start = time.perf_counter()
        weights = (tiers.weights, tiers.without_model)
        basis = Basis.of(tiers, weights, user, query, self._clock(), deadline)
        answer = _by(basis)
        watch.lap("tier0")
        tier0_pace.measured(work, (time.perf_counter() - start) * 1000.0)
        above: list[tuple[int, Scorer | None]] = [(1, tiers.tier1), (2, tiers.tier2)]
        if not user.profile:
            # A search by somebody unknown: the query is all that there is to read.
            above = [(1, tiers.tier1)] if tiers.tier1 is not None and tiers.tier1.reads_queries else []
        due = [(number, scorer) for number, scorer in above if scorer is not None]
        answer = dataclasses.replace(answer, coverage=0.0 if due else 1.0)
        yield answer
        for number, scorer in due:
            before, reason = basis, answer.reason
            in_time = deadline.less_ms(fusion_pace.predict_ms(n))
            for result in scorer.score(user, query, answer.order.tolist(), in_time):
                watch.lap(f"tier{number}")
                fused_ms = watch.spent_ms("fusion")
                basis = before.above(scorer.column, result)
                answer = _fused(basis, answer, number, result, reason)
                if number != due[-1][0]:
                    answer = dataclasses.replace(answer, coverage=0.0)
                watch.lap("fusion")
                fusion_pace.measured(n, watch.spent_ms("fusion") - fused_ms)
                yield answer


def _by(basis: Basis) -> Answer:
    """The order by the scores, of tier 0."""
    scores = basis.scores()
    return Answer(order(scores), np.zeros(len(scores), dtype=np.intp), 0.0, scores=scores, basis=basis)


def _fused(basis: Basis, before: Answer, tier: int, result: TierScores, reason: DegradedReason) -> Answer:
    return dataclasses.replace(
        _by(basis),
        tier=np.where(result.reached, tier, before.tier),
        coverage=result.coverage,
        reason=result.reason or reason,
        vectors=result.vectors or before.vectors,
    )


def arranged(
    query: RerankQuery,
    answer: Answer,
    *,
    ranking_id: str,
    now_s: float,
    muted: Collection[str] = (),
    soft: bool = True,
) -> policy.Arranged:
    """An answer once the list's policy was applied; ``soft`` and ``muted`` as there."""
    basis = answer.basis
    scores = server_rank(len(query.candidates)) if answer.scores is None else answer.scores
    given = policy.Given(
        query=query,
        scores=scores,
        order=answer.order,
        now_s=now_s,
        ranking_id=ranking_id,
        muted=muted,
        taste={} if basis is None else basis.user.profile.tag_shares,
        vectors=answer.vectors,
        drawn=None if basis is None else policy.Drawn(basis.matrix, basis.names, basis.used),
    )
    return policy.apply(given, soft=soft)


def ranking(
    tiers: Tiers,
    ranking_id: str,
    query: RerankQuery,
    answer: Answer,
    shown: policy.Arranged,
    watch: Watch,
) -> Ranking:
    """What a caller is told of an answer and the list that became of it; not final."""
    watch.lap("fusion")
    candidates = query.candidates
    return Ranking(
        ranking_id=ranking_id,
        results=tuple(Result(candidates[i].id, int(answer.tier[i])) for i in shown.order.tolist()),
        coverage=answer.coverage,
        degraded_reason=answer.reason,
        timings=watch.timings(),
        model=tiers.model if answer.tier.any() else "",
        pack=tiers.pack_id if answer.basis is not None else "",
        final=False,
        blocked_ids=tuple(candidates[i].id for i in shown.blocked.tolist()),
    )
