"""What tier 1 says of each candidate: towers, content and the pack's map of items, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.features import evidence
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.towers import Float32, Towers

_UNIT = 2.0**30

Column = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Scores [n_candidates], and where they mean anything."""


@dataclass(frozen=True, slots=True)
class Known:
    """Items' vectors [m, n_dims] and weights [m], and the user's vector [n_dims] that they make."""

    vectors: Float32
    weights: Float32
    user: Float32


@dataclass(frozen=True, slots=True)
class Likes:
    """What is known of a user: the items of the whole history and its newest that have a vector, what the
    pack's map says that people like who like the newest [n_items], and how many items it all comes from.
    """

    whole: Known
    recent: Known
    together: NDArray[np.float64]
    n_items: int

    @property
    def has_vector(self) -> bool:
        """Whether any item of the history has one."""
        return bool(self.whole.user.any())


@dataclass(frozen=True, slots=True)
class Affinity:
    """A pack's towers and its map of items, if it has one.

    ``centred`` on "list": the content part is taken from the mean of what is at hand, history and candidates,
    not from that of the pack's catalogue. So a pack serves texts that it was not made for: what they all have
    in common says nothing about what anybody likes (docs/decisions/0015).
    """

    towers: Towers
    items: ItemToItem | None = None
    centred: Literal["pack", "list"] = "pack"

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
        whole, newest = self._found(vectors, *history), self._found(vectors, *recent)
        return Likes(whole, newest, together, len(history[0]))

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
        What the history says grows with its length (``features.evidence``).
        """
        n = len(candidates)
        reached = np.array([name in vectors for name in candidates], np.bool_)
        seen = self._seen(candidates)
        rows = self._rows([vectors[name] for name in candidates if name in vectors])
        asked = None if query is None else self._known(self._rows([query]), np.ones(1))
        whole, recent, asked, rows = self._centred(rows, likes.whole, likes.recent, asked)
        rows = self.towers.trusted(rows)

        def cosines(known: Known | None) -> NDArray[np.float64]:
            found = np.zeros((2, n))
            if known is not None and len(rows):
                found[:, reached] = self.towers.cosines(known.user, rows)
            return found

        much = evidence(likes.n_items)
        (towers, content), (towers_recent, content_recent) = much * cosines(whole), much * cosines(recent)
        together = np.zeros(n) if self.items is None else self.items.scores(likes.together, candidates)
        return {
            "towers": (towers, reached & seen),
            "towers_recent": (towers_recent, reached & seen),
            "content": (content, reached & ~seen),
            "content_recent": (content_recent, reached & ~seen),
            "query_content": (cosines(asked)[1], reached),
            "unseen": (np.where(seen, 0.0, much), np.ones(n, np.bool_)),
            "item_to_item": (much * together, seen),
        }

    def content(
        self, candidates: Sequence[str], vectors: Mapping[str, NDArray[np.floating]]
    ) -> NDArray[np.float32]:
        """The content parts of the candidates' vectors, ``centred`` as all, [n, n_content]; zeros: none."""
        reached = np.array([name in vectors for name in candidates], np.bool_)
        at = self.towers.n_learned
        result = np.zeros((len(candidates), self.towers.n_dims - at), np.float32)
        rows = self._rows([vectors[name] for name in candidates if name in vectors])
        result[reached] = self.towers.trusted(rows)[:, at:]
        if self.centred == "list" and len(rows):
            result[reached] -= result[reached].mean(axis=0)
        return result

    def _seen(self, candidates: Sequence[str]) -> NDArray[np.bool_]:
        if self.items is not None:
            return self.items.has(candidates)
        return np.full(len(candidates), self.towers.n_learned > 0)

    def _centred(
        self, rows: Float32, whole: Known, recent: Known, asked: Known | None
    ) -> tuple[Known, Known, Known | None, Float32]:
        """The same, seen from the content's mean over the ``whole`` history and the candidates' ``rows``."""
        if self.centred == "pack":
            return whole, recent, asked, rows
        at = self.towers.n_learned
        content = self.towers.trusted(np.concatenate([whole.vectors, rows]))[:, at:]
        # Whole numbers, so that the order of the candidates does not change the sum's last bit.
        total = np.round(content.astype(np.float64) * _UNIT).astype(np.int64).sum(axis=0)
        mean = (total / _UNIT / max(1, len(content))).astype(np.float32)

        def away(vectors: Float32) -> Float32:
            result = self.towers.trusted(vectors)
            # A vector of nothing stays one: it is not far from the mean, it is nowhere.
            result[:, at:] -= mean * result[:, at:].any(axis=1, keepdims=True)
            return result

        def moved(known: Known) -> Known:
            return self._known(away(known.vectors), known.weights)

        return moved(whole), moved(recent), None if asked is None else moved(asked), away(rows)

    def _found(
        self,
        vectors: Mapping[str, NDArray[np.floating]],
        names: Sequence[str],
        weights: NDArray[np.floating],
    ) -> Known:
        pairs = [(vectors[n], weight) for n, weight in zip(names, weights, strict=True) if n in vectors]
        rows = self._rows([vector for vector, _ in pairs])
        return self._known(rows, np.array([weight for _, weight in pairs]))

    def _known(self, rows: Float32, weights: NDArray[np.floating]) -> Known:
        weights = np.asarray(weights, np.float32)
        return Known(rows, weights, self.towers.user_vector(rows, weights))

    def _rows(self, vectors: Sequence[NDArray[np.floating]]) -> Float32:
        return np.array(vectors, np.float32).reshape(len(vectors), self.towers.n_dims)
