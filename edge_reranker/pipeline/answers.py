"""One request: what each tier says, fused with what the tiers below it said."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import LEAST_CANDIDATES, LEAST_CHARACTERS, Deadline, Paces, Watch
from edge_reranker.errors import StoreError
from edge_reranker.pipeline.basis import Basis
from edge_reranker.pipeline.reading import Reading
from edge_reranker.ranking import policy
from edge_reranker.ranking.features import server_rank
from edge_reranker.ranking.fusion import order
from edge_reranker.scoring import Learning, Plan, Scorer, Tiers, TierScores, Users
from edge_reranker.types import DegradedReason, Ranking, RerankQuery, Result

# Tier 0 on a slow laptop core, until it is measured.
_TIER0_MS_PER_CHARACTER = 0.0001


@dataclass(frozen=True, slots=True)
class Answer:
    """An order [n] of candidate indices, the tier [n] of each candidate, and how good it is.

    ``basis`` is what its scores were made of; None: the order is the server's, not by scores. ``by_server``
    says that the server's is to be served all the same: it is what suits this user better. ``settled`` says
    that the model left some unread because they would hardly change the first places. ``vectors`` are
    TierScores'.
    """

    order: npt.NDArray[np.intp]
    tier: npt.NDArray[np.intp]
    coverage: float
    reason: DegradedReason = DegradedReason.UNSPECIFIED
    basis: Basis | None = None
    by_server: bool = False
    settled: bool = False
    vectors: Callable[[Sequence[int]], npt.NDArray[np.floating]] | None = None

    @property
    def weighed(self) -> bool:
        """Whether what is served is by scores."""
        return self.basis is not None and not self.by_server

    def because(self, reason: DegradedReason, coverage: float) -> Answer:
        """The same order, with what was missing."""
        return Answer(self.order, self.tier, coverage, reason)


class Answers:
    """Answers requests, and learns what its own parts take. Thread-safe."""

    def __init__(self, users: Users, learning: Learning, clock: Callable[[], float]) -> None:
        self._users = users
        self._learning = learning
        self._clock = clock
        self._tier0_paces = Paces(_TIER0_MS_PER_CHARACTER, LEAST_CHARACTERS)
        self._fusion_paces = Paces(None, LEAST_CANDIDATES)  # after each result of a tier

    def of(
        self, tiers: Tiers, namespace: str, query: RerankQuery, deadline: Deadline, watch: Watch
    ) -> Iterator[Answer]:
        """An answer after each tier, each better informed than the one before; one at the least."""
        n = len(query.candidates)
        as_served = Answer(np.arange(n), np.zeros(n, dtype=np.intp), 1.0)
        try:
            user = self._users.now(tiers, namespace)
            learned = self._learning.now(tiers, namespace, deadline.half())
        except (StoreError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            watch.lap("context")
            if late and tiers.background is not None:
                tiers.background.read(tiers.epochs.owner(namespace), query.candidates)
            reason = DegradedReason.DEADLINE if late else DegradedReason.STORE_UNAVAILABLE
            yield as_served.because(reason, 0.0)
            return
        watch.lap("context")
        if learned is None:
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
        weights = (learned.with_model, learned.without_model)
        basis = Basis.of(tiers, weights, user, query, self._clock(), deadline)
        watch.lap("tier0")
        tier0_pace.measured(work, (time.perf_counter() - start) * 1000.0)
        above: list[tuple[int, Scorer | None]] = [(1, tiers.tier1), (2, tiers.tier2)]
        if not user.profile:
            # A search by somebody unknown: the query is all that there is to read.
            above = [(1, tiers.tier1)] if tiers.tier1 is not None and tiers.tier1.reads_queries else []
        due = [(number, scorer) for number, scorer in above if scorer is not None]
        answer = Answer(
            order(basis.found.scores), np.zeros(n, dtype=np.intp), 0.0 if due else 1.0, basis=basis
        )
        # Ours is made all the same: what the user chooses says how good it would have been.
        answer = dataclasses.replace(answer, by_server=learned.gate.server_wins)
        yield answer
        whole = tiers.tier1 is not None and tiers.tier1.reads_lists
        reading = Reading(learned.with_model, user, query, Plan(query, full=whole))
        for number, scorer in due:
            before, reason = basis, answer.reason
            reading.begins(basis.found.scores)
            in_time = deadline.less_ms(fusion_pace.predict_ms(n))
            for result in scorer.score(user, query, answer.order.tolist(), in_time, reading.plan):
                watch.lap(f"tier{number}")
                fused_ms = watch.spent_ms("fusion")
                basis = before.above(number, scorer.column, result)
                reading.took(number, basis.found, result)
                answer = _fused(basis, answer, number, result, reason, reading.settled)
                if number != due[-1][0]:
                    answer = dataclasses.replace(answer, coverage=0.0)
                watch.lap("fusion")
                fusion_pace.measured(n, watch.spent_ms("fusion") - fused_ms)
                yield answer


def _fused(
    basis: Basis, before: Answer, tier: int, result: TierScores, reason: DegradedReason, settled: bool
) -> Answer:
    return Answer(
        order=order(basis.found.scores),
        tier=np.where(result.reached, tier, before.tier),
        coverage=result.coverage,
        reason=result.reason or reason,
        basis=basis,
        by_server=before.by_server,
        settled=settled,
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
    n = len(query.candidates)
    basis = answer.basis
    found = basis.found if basis is not None and not answer.by_server else None
    given = policy.Given(
        query=query,
        scores=server_rank(n) if found is None else found.scores,
        order=np.arange(n) if answer.by_server else answer.order,
        now_s=now_s,
        ranking_id=ranking_id,
        muted=muted,
        taste={} if basis is None else basis.user.profile.tag_shares,
        drawn=None if found is None else policy.Drawn(found.matrix, found.names, found.weights),
        vectors=answer.vectors,
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
    tier = np.zeros_like(answer.tier) if answer.by_server else answer.tier
    return Ranking(
        ranking_id=ranking_id,
        results=tuple(Result(candidates[i].id, int(tier[i])) for i in shown.order.tolist()),
        coverage=answer.coverage,
        degraded_reason=DegradedReason.SERVER_PREFERRED if answer.by_server else answer.reason,
        timings=watch.timings(),
        model=tiers.model if tier.any() else "",
        pack=tiers.pack_id if answer.weighed else "",
        final=False,
        settled=answer.settled,
        blocked_ids=tuple(candidates[i].id for i in shown.blocked.tolist()),
    )
