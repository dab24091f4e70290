"""Tier 2 with a rank model: its classifier says how well a candidate goes with what the user did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine
from edge_reranker.errors import EngineDied, EngineError
from edge_reranker.prompt import item_pieces, plain
from edge_reranker.scoring.plan import Plan
from edge_reranker.scoring.types import REASONS, TierScores, User
from edge_reranker.types import DegradedReason, RerankQuery

_MAX_EVENTS = 12
# Every candidate pays for both, for nothing of a pair can be kept for the next one.
_MAX_QUERY_TOKENS = 128
_MAX_DOCUMENT_TOKENS = 64
_AFTERWARDS_MS = 2.0
_READ_CHUNK = 8  # a sample that tells how much reading moves scores


class RankScorer:
    """Reads pairs of what the user did and one candidate; needs an engine in the role of a ranker."""

    column = "scorer"

    def __init__(self, engine: Engine, *, top_k: int = 20) -> None:
        self._engine = engine
        self._top_k = top_k

    def score(
        self,
        user: User,
        query: RerankQuery,
        order: Sequence[int],
        deadline: Deadline,
        plan: Plan | None = None,
    ) -> Iterator[TierScores]:
        """Scores of the top K of ``order``: of all at once, or with a ``plan`` of a few at a time."""
        deadline = deadline.less_ms(_AFTERWARDS_MS)
        n = len(query.candidates)
        scores, reached = np.zeros(n), np.zeros(n, np.bool_)
        left = np.zeros(n, np.bool_)
        top = list(order[: self._top_k])
        left[top] = True
        texts = [plain(user.context, query.query, _MAX_EVENTS)]
        texts += [item_pieces(query.candidates[index].item) for index in top]
        reason, told = DegradedReason.UNSPECIFIED, False
        try:
            asked, *documents = self._cut(self._engine.tokenize(texts, deadline))
            document_of = dict(zip(top, documents, strict=True))
            while document_of and not reason:
                missing = list(document_of)
                chunk = missing if plan is None or plan.full else plan.next(missing)[:_READ_CHUNK]
                if not chunk:
                    break
                ranked = self._engine.rank(asked, [document_of.pop(index) for index in chunk], deadline)
                done, reason = chunk[: len(ranked.scores)], REASONS[ranked.stop]
                scores[done], reached[done], left[done] = ranked.scores, True, False
                told = True
                yield TierScores(scores.copy(), reached.copy(), reason, left=left.copy())
        except EngineDied:
            reason, told = DegradedReason.MODEL_UNAVAILABLE, False
        except EngineError:
            reason, told = DegradedReason.MODEL_BUSY, False
        if not told:
            yield TierScores(scores, reached, reason, left=left)

    def forget(self, namespace: str) -> None:
        """Nothing is kept of a user."""

    def _cut(self, texts: list[list[int]]) -> list[list[int]]:
        """Query and documents in the model's room: the newest of the one, the beginning of the others."""
        query, *documents = texts
        room = self._engine.info.n_ctx_sequence if self._engine.info else 0
        n_document = min(_MAX_DOCUMENT_TOKENS, room // 2)
        n_query = min(_MAX_QUERY_TOKENS, room - n_document)
        return [query[len(query) - min(len(query), n_query) :], *(ids[:n_document] for ids in documents)]
