"""Backends that propose candidates. They know the public past, never the user at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from edge_reranker.evaluation.log import Interaction
from edge_reranker.types import Candidate, Item


class PopularityServer:
    """Proposes what most users met, whoever asks; ties by item id.

    ``server_score`` stays unset: the order is all that the server tells.
    """

    def __init__(self, interactions: Iterable[Interaction], items: Mapping[str, Item]) -> None:
        self.counts = Counter(each.item_id for each in interactions)
        self._order = sorted(self.counts, key=lambda item_id: (-self.counts[item_id], item_id))
        self._candidates = {item_id: Candidate(items[item_id]) for item_id in self._order}

    def candidates(self, seen: Collection[str], n: int = 100) -> tuple[Candidate, ...]:
        """The ``n`` most popular items that are not in ``seen``, most popular first."""
        skip = set(seen)
        fresh = (item_id for item_id in self._order if item_id not in skip)
        return tuple(self._candidates[item_id] for item_id, _ in zip(fresh, range(n), strict=False))
