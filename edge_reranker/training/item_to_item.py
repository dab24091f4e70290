"""Learns which items the same people like: EASE, cut down to its largest weights.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019; see ``evaluation.servers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation.servers import ease_of_gram
from edge_reranker.models.item_to_item import ItemToItem
from edge_reranker.training.head import History

# The inverse of so many items takes 200 MB and some ten seconds; what fewer people know is left out.
MAX_ITEMS = 5_000
# Of so many users whole rows are multiplied: 40 MB at the most. Of more, each one's own pairs are added up:
# most of a row is nothing, and that is multiplied too.
_MOST_ROWS = 1_000
_LARGEST = 127


@dataclass(frozen=True, slots=True)
class Settings:
    """Chosen on the fusion users (docs/decisions/0013). ``others`` is what an item not liked counts."""

    ridge: float = 800.0
    others: float = 0.15
    n_weights: int = 20_000


def learn(histories: Sequence[History], hashes: Sequence[str], settings: Settings) -> ItemToItem:
    """The map for items by their content hashes (hexadecimal), aligned with the rows in ``histories``."""
    kept = _best_known(histories, hashes)
    weights = ease_of_gram(_gram(histories, kept, len(hashes), settings.others), settings.ridge)
    names = np.array([int(hashes[row][:16], 16) for row in kept], np.uint64)
    # Rows and columns in the order of their names, so that the file says nothing of the catalogue's.
    order = np.argsort(names)
    weights = weights[np.ix_(order, order)]
    n = min(settings.n_weights, int((weights != 0).sum()))
    smallest = np.partition(np.abs(weights).ravel(), -n)[-n] if n else np.inf
    chosen = (np.abs(weights) >= smallest) & (weights != 0)
    unit = np.float16(np.abs(weights).max(initial=0.0) / _LARGEST)
    rows, others = np.nonzero(chosen)
    rounded = np.clip(np.round(weights[rows, others] / max(float(unit), 1e-8)), -_LARGEST, _LARGEST)
    return ItemToItem(
        keys=names[order],
        starts=np.searchsorted(rows, np.arange(len(order) + 1)).astype(np.uint32),
        others=others.astype(np.uint16),
        weights=rounded.astype(np.int8),
        unit=np.asarray(unit, np.float16),
    )


def _gram(
    histories: Sequence[History], kept: NDArray[np.intp], n_items: int, others: float
) -> NDArray[np.float64]:
    """XᵀX of users by the items ``kept``."""
    place = np.full(n_items, -1)
    place[kept] = np.arange(len(kept))
    gram = np.zeros((len(kept), len(kept)))
    found = (_placed(history, place, others) for history in histories)
    if len(histories) > _MOST_ROWS:
        for at, weights in found:
            gram[np.ix_(at, at)] += np.outer(weights, weights)
        return gram
    users = np.zeros((len(histories), len(kept)))
    for row, (at, weights) in zip(users, found, strict=True):
        row[at] = weights
    gram += users.T @ users
    return gram


def _placed(
    history: History, place: NDArray[np.int64], others: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places of the items that are kept, none of them twice, and what they count."""
    at = place[history.rows]
    return at[at >= 0], np.where(history.liked, 1.0, others)[at >= 0]


def _best_known(histories: Sequence[History], hashes: Sequence[str]) -> NDArray[np.intp]:
    """Rows of the items that anybody knows, each text once; the most known if they are too many."""
    counts = np.zeros(len(hashes), np.int64)
    for history in histories:  # of which no row is there twice
        counts[history.rows] += 1
    first: dict[str, int] = {}
    for row in np.argsort(-counts, kind="stable"):
        if counts[row]:
            first.setdefault(hashes[row], int(row))
    return np.array(list(first.values())[:MAX_ITEMS], np.intp)
