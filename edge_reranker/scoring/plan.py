"""What a tier reads next, and when the first places are settled."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge_reranker.ranking import effort
from edge_reranker.ranking.effort import Float64
from edge_reranker.types import Effort, RerankQuery


class Plan:
    """A request's candidates, those first whose reading is worth most; kept current while a tier reads.

    Of one request, not thread-safe. Everything follows from scores and deviations, nothing from the clock:
    with time enough, two runs read the same candidates.
    """

    def __init__(self, query: RerankQuery, *, full: bool = False, price: float = effort.PRICE) -> None:
        """Reading is worth it from a gain of ``price`` on; with ``full`` in any case."""
        self.full = full or query.effort != Effort.SETTLED
        """Whether to read on when the first places are settled."""
        self._price = price
        self._depth = query.top_n or effort.DEPTH
        self._state: tuple[Float64, Float64] = (np.zeros(0), np.zeros(0))
        self._worth: list[int] | None = None

    def stands(self, scores: Float64, deviations: Float64) -> None:
        """Takes in the fused scores [n] as they are now, and by how much reading would move each [n]."""
        self._state, self._worth = (scores, deviations), None

    def next(self, left: Iterable[int]) -> list[int]:
        """Of the candidates ``left`` to read those worth it, most first; none when all is settled."""
        if self._worth is None:  # of a list that is known whole nobody asks
            self._worth = self._sorted(*self._state)
        wanted = frozenset(left)
        return [index for index in self._worth if index in wanted]

    def _sorted(self, scores: Float64, deviations: Float64) -> list[int]:
        gains = effort.gains(scores, deviations, self._depth)
        order = np.lexsort((-scores, -gains))
        return [index for index in order.tolist() if self.full or gains[index] >= self._price]
