"""Tier 2 with a rank model: its classifier says how well a candidate goes with what the user did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine
from edge_reranker.errors import EngineDied, EngineError
from edge_reranker.prompt import item_pieces, plain
from edge_reranker.scoring.types import REASONS, TierScores, User
from edge_reranker.types import DegradedReason, RerankQuery

_MAX_EVENTS = 12
# Every candidate pays for both, for nothing of a pair can be kept for the next one.
_MAX_QUERY_TOKENS = 128
_MAX_DOCUMENT_TOKENS = 64
_AFTERWARDS_MS = 2.0


class RankScorer:
    """Reads pairs of what the user did and one candidate; needs an engine in the role of a ranker."""

    column = "scorer"

    def __init__(self, engine: Engine, *, top_k: int = 20) -> None:
        self._engine = engine
        self._top_k = top_k

    def score(
        self, user: User, query: RerankQuery, order: Sequence[int], deadline: Deadline
    ) -> Iterator[TierScores]:
        """Scores of the top K of ``order``."""
        deadline = deadline.less_ms(_AFTERWARDS_MS)
        n = len(query.candidates)
        scores = np.zeros(n, dtype=np.float64)
        reached = np.zeros(n, dtype=np.bool_)
        top = list(order[: self._top_k])
        texts = [plain(user.context, query.query, _MAX_EVENTS)]
        texts += [item_pieces(query.candidates[index].item) for index in top]
        try:
            asked, *documents = self._cut(self._engine.tokenize(texts, deadline))
            ranked = self._engine.rank(asked, documents, deadline)
        except EngineDied:
            yield TierScores(scores, reached, DegradedReason.MODEL_UNAVAILABLE)
            return
        except EngineError:
            yield TierScores(scores, reached, DegradedReason.MODEL_BUSY)
            return
        done = top[: len(ranked.scores)]
        scores[done] = ranked.scores
        reached[done] = True
        yield TierScores(scores, reached, REASONS[ranked.stop])

    def forget(self, namespace: str) -> None:
        """Nothing is kept of a user."""

    def _cut(self, texts: list[list[int]]) -> list[list[int]]:
        """Query and documents in the model's room: the newest of the one, the beginning of the others."""
        query, *documents = texts
        room = self._engine.info.n_ctx_sequence if self._engine.info else 0
        n_document = min(_MAX_DOCUMENT_TOKENS, room // 2)
        n_query = min(_MAX_QUERY_TOKENS, room - n_document)
        return [query[len(query) - min(len(query), n_query) :], *(ids[:n_document] for ids in documents)]
