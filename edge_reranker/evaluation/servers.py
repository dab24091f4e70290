"""Backends that propose candidates: one that knows nobody, and two that know the user at hand.

Each learns from the public past only. What a server does with a user's interactions is tuned on the fusion
users (``tuning``), never on those who test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation.log import Interaction
from edge_reranker.types import Candidate, Item

Float64 = NDArray[np.float64]


class Server(Protocol):
    """A backend; ``server_score`` stays unset: the order is all that it tells."""

    def candidates(
        self, history: Sequence[Interaction], seen: Collection[str], n: int = 100
    ) -> tuple[Candidate, ...]:
        """The ``n`` best items for ``history`` that are not in ``seen``, best first."""


class PopularityServer:
    """Proposes what was met most often, whoever asks; ties by item id."""

    def __init__(self, interactions: Iterable[Interaction], items: Mapping[str, Item]) -> None:
        self._take(Counter(each.item_id for each in interactions), items)

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], items: Mapping[str, Item]) -> PopularityServer:
        """The same from how often each item was met: millions of interactions need not become records."""
        server = cls((), {})
        server._take(Counter(counts), items)
        return server

    def _take(self, counts: Counter[str], items: Mapping[str, Item]) -> None:
        self.counts = counts
        self.order = sorted(self.counts, key=lambda item_id: (-self.counts[item_id], item_id))
        self._candidates = {item_id: Candidate(items[item_id]) for item_id in self.order}

    def candidates(
        self, history: Sequence[Interaction], seen: Collection[str], n: int = 100
    ) -> tuple[Candidate, ...]:
        """The ``n`` most popular items that are not in ``seen``, most popular first."""
        skip = set(seen)
        fresh = (item_id for item_id in self.order if item_id not in skip)
        return tuple(self._candidates[item_id] for item_id, _ in zip(fresh, range(n), strict=False))


@dataclass(frozen=True, slots=True)
class Reading:
    """How a server reads a user: the newest ``last`` interactions, those not liked weighted ``low``."""

    last: int = 20
    low: float = 0.4


@dataclass(frozen=True, slots=True)
class Past:
    """What a server learns from. Items in order of popularity, ties by id, so a stable sort keeps it.

    ``liked`` and ``others`` [n_users, n_items] are 1 where the user liked the item, or only met it.
    """

    items: tuple[Item, ...]
    row_of: Mapping[str, int]
    counts: Float64
    liked: Float64
    others: Float64

    @classmethod
    def of(cls, users: Iterable[Sequence[Interaction]], items: Mapping[str, Item]) -> Past:
        """The past of ``users``; items that none of them met are not in it."""
        histories = list(users)
        server = PopularityServer((each for history in histories for each in history), items)
        row_of = {item_id: row for row, item_id in enumerate(server.order)}
        liked, others = np.zeros((2, len(histories), len(row_of)))
        for user, history in enumerate(histories):
            for each in history:
                into = liked if each.liked else others
                into[user, row_of[each.item_id]] = 1.0
        others[liked > 0] = 0.0  # an item viewed and then bought is one item
        counts = np.array([server.counts[item_id] for item_id in server.order], np.float64)
        return cls(tuple(items[item_id] for item_id in server.order), row_of, counts, liked, others)

    def weighted(self, low: float) -> Float64:
        """[n_users, n_items]: 1 for liked, ``low`` for met and not liked."""
        return self.liked + low * self.others

    def read(self, histories: Sequence[Sequence[Interaction]], reading: Reading) -> Float64:
        """Users of now as ``reading`` says, [n_histories, n_items]; unknown items count nothing."""
        result = np.zeros((len(histories), len(self.items)))
        for row, history in enumerate(histories):
            for each in history[-reading.last :]:
                at = self.row_of.get(each.item_id)
                if at is not None:
                    result[row, at] = max(result[row, at], 1.0 if each.liked else reading.low)
        return result


@dataclass(frozen=True, slots=True)
class ItemServer:
    """Scores are the user's weights times ``similarity`` [n_items, n_items]; ties by popularity, then id."""

    past: Past
    similarity: Float64
    reading: Reading

    def scores(self, histories: Sequence[Sequence[Interaction]]) -> Float64:
        """Every item of ``past`` for every history, [n_histories, n_items]."""
        return self.past.read(histories, self.reading) @ self.similarity

    def candidates(
        self, history: Sequence[Interaction], seen: Collection[str], n: int = 100
    ) -> tuple[Candidate, ...]:
        """The ``n`` items of the highest score that are not in ``seen``."""
        skip = set(seen)
        best = np.argsort(-self.scores([history])[0], kind="stable")
        fresh = (self.past.items[row] for row in best if self.past.items[row].id not in skip)
        return tuple(Candidate(item) for item, _ in zip(fresh, range(n), strict=False))


def ease(past: Past, reading: Reading, ridge: float) -> ItemServer:
    """Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019: ridge regression of every item
    on all others, in closed form. ``ridge`` is its lambda, above 0.
    """
    return ItemServer(past, ease_weights(past.weighted(reading.low), ridge), reading)


def ease_weights(users: Float64, ridge: float) -> Float64:
    """EASE's weight of every item for every other, [n_items, n_items], from ``users`` [n_users, n_items].

    With P the inverse of XᵀX + ridge I, the weight of item i for item j is -P[i, j] / P[j, j].
    """
    return ease_of_gram(users.T @ users, ridge)


def ease_of_gram(gram: Float64, ridge: float) -> Float64:
    """The same from XᵀX, which is all that EASE needs to know of the users; ``gram`` is used up."""
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights, np.float64)


def item_knn(past: Past, reading: Reading, k: int, shrinkage: float) -> ItemServer:
    """Cosine of items' users, ``shrinkage`` added to its denominator, the ``k`` nearest of each candidate.

    Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", 2004.
    """
    weighted = past.weighted(reading.low)
    gram = weighted.T @ weighted
    lengths = np.sqrt(np.diag(gram))
    similarity = gram / np.maximum(np.outer(lengths, lengths) + shrinkage, 1e-12)
    np.fill_diagonal(similarity, 0.0)
    if k < len(similarity):
        # Column j scores candidate j: only its k nearest may speak for it. Ties at the edge all stay.
        least = np.partition(similarity, -k, axis=0)[-k]
        similarity = np.where(similarity >= least, similarity, 0.0)
    return ItemServer(past, np.asarray(similarity, np.float64), reading)
