"""How far the model has read one request's list, and whether it is worth it to read on."""

from __future__ import annotations

import math

import numpy as np

from edge_reranker.ranking.effort import SPREAD, Float64, deviation
from edge_reranker.ranking.features import FEATURES, OF_THE_ENCODER, evidence
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.partly import Weighed
from edge_reranker.scoring import Plan, TierScores, User
from edge_reranker.types import RerankQuery

_SCORER = FEATURES.index("scorer")
_BY_QUERY = "query_content"
# Logits; of a scorer nothing is known before it has read a few.
_LOGITS = 1.0


class Reading:
    """Keeps a tier's ``plan`` current. Of one request, not thread-safe."""

    def __init__(self, ours: Weights, user: User, query: RerankQuery, plan: Plan) -> None:
        """``ours`` are the weights with the model."""
        self.plan = plan
        self.settled = False
        """Whether candidates were left unread that would hardly change the first places."""
        self._weight_of = dict(zip(ours.names, ours.mean.tolist(), strict=True))
        self._usual = {1: self._usual_of_the_encoder(user, query), 2: abs(self._scorer) * _LOGITS}
        self._settled_before = False

    def begins(self, scores: Float64) -> None:
        """A tier begins that has read nobody; ``scores`` [n] are the fused ones so far."""
        self._settled_before = self.settled
        self.plan.stands(scores, np.full(len(scores), self._usual[2]))

    def took(self, tier: int, found: Weighed, result: TierScores) -> None:
        """Takes in what a tier has read by now, and what it comes to."""
        read = found.surprises if tier == 1 else self._scorer * found.matrix[result.reached, _SCORER]
        left = np.zeros(len(found.scores), np.bool_) if result.left is None else result.left
        spread = deviation(read, self._usual[tier])
        self.plan.stands(found.scores, np.where(left, spread, 0.0))
        enough = left.any() and not self.plan.next(np.flatnonzero(left).tolist())
        self.settled = self._settled_before or (bool(enough) and not result.reason)

    @property
    def _scorer(self) -> float:
        return float(self._weight_of.get("scorer", 0.0))

    def _usual_of_the_encoder(self, user: User, query: RerankQuery) -> float:
        """What the weights make of the usual spread of cosines, as much as the history says."""
        of_user = [self._weight_of.get(name, 0.0) for name in OF_THE_ENCODER if name != _BY_QUERY]
        of_query = self._weight_of.get(_BY_QUERY, 0.0) if query.query else 0.0
        much = evidence(len(user.profile.items))
        return SPREAD * math.hypot(*(much * weight for weight in of_user), of_query)
