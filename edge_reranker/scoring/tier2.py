"""Tier 2: the model reads the user's context and one candidate at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine, Stop
from edge_reranker.errors import EngineDied, EngineError
from edge_reranker.prompt import Template
from edge_reranker.scoring.types import TierScores, User
from edge_reranker.types import DegradedReason, Piece, RerankQuery

_MAX_EVENTS = 12
_MAX_PREFIX_TOKENS = 320
_MAX_SUFFIX_TOKENS = 64  # both together fill an engine's sequence
_AFTERWARDS_MS = 2.0
_REASONS = {
    Stop.DONE: DegradedReason.UNSPECIFIED,
    Stop.DEADLINE: DegradedReason.DEADLINE,
    Stop.BUSY: DegradedReason.MODEL_BUSY,
    Stop.DIED: DegradedReason.MODEL_UNAVAILABLE,
}


class CrossScorer:
    """Reads the logit of the template's positive answer less that of its negative one."""

    column = "scorer"

    def __init__(self, engine: Engine, template: Template, *, top_k: int = 20) -> None:
        self._engine = engine
        self._template = template
        self._top_k = top_k
        self._targets: list[int] = []

    def score(
        self, user: User, query: RerankQuery, order: Sequence[int], deadline: Deadline
    ) -> Iterator[TierScores]:
        """Scores of the top K of ``order``."""
        deadline = deadline.less_ms(_AFTERWARDS_MS)
        n = len(query.candidates)
        scores = np.zeros(n, dtype=np.float64)
        reached = np.zeros(n, dtype=np.bool_)
        top = list(order[: self._top_k])
        try:
            targets = self._answers(deadline)
            texts = [self._template.prefix(user.context, query.query, _MAX_EVENTS)]
            texts += [self._template.suffix(query.candidates[index].item) for index in top]
            prefix, *suffixes = self._engine.tokenize(texts, deadline)
            suffixes = [ids[-_MAX_SUFFIX_TOKENS:] for ids in suffixes]
            prefix = prefix[:_MAX_PREFIX_TOKENS]
            result = self._engine.score(prefix, suffixes, targets, deadline)
        except EngineDied:
            yield TierScores(scores, reached, DegradedReason.MODEL_UNAVAILABLE)
            return
        except EngineError:
            yield TierScores(scores, reached, DegradedReason.MODEL_BUSY)
            return
        where = np.array(top)[result.reached]
        scores[where] = result.logits[result.reached, 0] - result.logits[result.reached, 1]
        reached[where] = True
        yield TierScores(scores, reached, _REASONS[result.stop])

    def _answers(self, deadline: Deadline) -> list[int]:
        """The first tokens of the two answers; asked for once."""
        if not self._targets:
            words = (self._template.positive, self._template.negative)
            ids = self._engine.tokenize([[Piece(word)] for word in words], deadline)
            self._targets = [answer[0] for answer in ids]
        return self._targets
