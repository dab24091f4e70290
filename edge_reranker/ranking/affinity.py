"""What tier 1 says of each candidate: towers, content and the pack's map of items, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.towers import Float32, Towers

Column = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Scores [n_candidates], and where they mean anything."""


@dataclass(frozen=True, slots=True)
class Likes:
    """What is known of a user: vectors [n_dims] of the whole history and of its newest items, what the pack's
    map says that people like who like those [n_items], and how many items it all comes from.
    """

    whole: Float32
    recent: Float32
    together: NDArray[np.float64]
    n_items: int

    @property
    def has_vector(self) -> bool:
        """Whether any item of the history has one."""
        return bool(self.whole.any())


@dataclass(frozen=True, slots=True)
class Affinity:
    """A pack's towers and its map of items, if it has one."""

    towers: Towers
    items: ItemToItem | None = None

    def likes(
        self,
        vectors: Mapping[str, NDArray[np.floating]],
        history: tuple[Sequence[str], NDArray[np.floating]],
        recent: tuple[Sequence[str], NDArray[np.floating]],
    ) -> Likes:
        """A user who has these items, by content hash and weight: ``history``, and the newest of it.

        An item that is not among ``vectors`` (by hash, [n_dims] each) counts for the map only.
        """
        together = np.zeros(0) if self.items is None else self.items.user(*recent)
        whole = self._user(vectors, *history)
        return Likes(whole, self._user(vectors, *recent), together, len(history[0]))

    def columns(
        self,
        likes: Likes,
        candidates: Sequence[str],
        vectors: Mapping[str, NDArray[np.floating]],
        query: Float32 | None = None,
    ) -> dict[str, Column]:
        """Every column of tier 1 for the candidates, by content hash; ``query`` is its vector [n_dims].

        The learned part speaks of items that the pack's people knew, the content part of the others: of these
        nothing was learned, and of those it says nothing that the learned part does not know better. Which
        are known is in the map; a pack without one takes all as known, unless it has learned nothing at all.
        """
        n = len(candidates)
        reached = np.array([name in vectors for name in candidates], np.bool_)
        seen = self._seen(candidates)
        rows = np.stack([vectors[name] for name in candidates if name in vectors]) if reached.any() else None

        def cosines(user: Float32 | None) -> NDArray[np.float64]:
            found = np.zeros((2, n))
            if rows is not None and user is not None:
                found[:, reached] = self.towers.scores(user, rows)
            return found

        (towers, content), (towers_recent, content_recent) = cosines(likes.whole), cosines(likes.recent)
        none = np.zeros(n)
        together = none if self.items is None else self.items.scores(likes.together, candidates)
        return {
            "towers": (towers, reached & seen),
            "towers_recent": (towers_recent, reached & seen),
            "content": (content, reached & ~seen),
            "content_recent": (content_recent, reached & ~seen),
            "query_content": (cosines(query)[1], reached),
            "unseen": (np.where(seen, 0.0, 1.0) if likes.n_items else none, np.ones(n, np.bool_)),
            "item_to_item": (together, seen),
        }

    def _seen(self, candidates: Sequence[str]) -> NDArray[np.bool_]:
        if self.items is not None:
            return self.items.has(candidates)
        return np.full(len(candidates), self.towers.n_learned > 0)

    def _user(
        self,
        vectors: Mapping[str, NDArray[np.floating]],
        names: Sequence[str],
        weights: NDArray[np.floating],
    ) -> Float32:
        pairs = [(vectors[n], weight) for n, weight in zip(names, weights, strict=True) if n in vectors]
        if not pairs:
            return np.zeros(self.towers.n_dims, np.float32)
        return self.towers.user_vector(
            np.stack([vector for vector, _ in pairs]), np.array([weight for _, weight in pairs])
        )
