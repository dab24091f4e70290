"""Items that the same people like: what a log says about them, without a word or a model.

A sparse map from an item to others, each with a weight that may be negative; EASE learns it offline (Steck,
"Embarrassingly Shallow Autoencoders for Sparse Data", 2019). Items are known by what they say, not by an
app's ids, so a pack works wherever the same texts are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

KEY_CHARS = 16
"""So much of a content hash (hexadecimal) names an item."""


class ItemToItemArrays(Protocol):
    """The map's arrays, as a pack holds them: rows in compressed sparse form."""

    @property
    def keys(self) -> NDArray[np.uint64]:
        """The beginning of each item's content hash, [n_items]."""

    @property
    def starts(self) -> NDArray[np.uint32]:
        """Where each item's row begins, and where the last one ends, [n_items + 1]."""

    @property
    def others(self) -> NDArray[np.uint16]:
        """Items of the rows, [n]."""

    @property
    def weights(self) -> NDArray[np.int8]:
        """Their weights in units of ``unit``, [n]."""

    @property
    def unit(self) -> NDArray[np.float16]:
        """One number, []."""


@dataclass(frozen=True, slots=True)
class ItemToItem:
    """The map, ready to use."""

    row_of: dict[str, int]
    starts: NDArray[np.int64]
    others: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, arrays: ItemToItemArrays) -> ItemToItem:
        """A pack's arrays."""
        return cls(
            {f"{int(key):0{KEY_CHARS}x}": row for row, key in enumerate(arrays.keys)},
            arrays.starts.astype(np.int64),
            arrays.others.astype(np.int64),
            arrays.weights.astype(np.float64) * float(arrays.unit),
        )

    def user(self, known: Sequence[str], weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """For every item the sum of weights from the items ``known``, each times its own: [n_items].

        ``known`` are content hashes; what the map does not have gives nothing.
        """
        sums = np.zeros(len(self.row_of))
        for name, weight in zip(known, weights, strict=True):
            row = self.row_of.get(name[:KEY_CHARS])
            if row is not None:
                part = slice(self.starts[row], self.starts[row + 1])
                sums[self.others[part]] += weight * self.weights[part]
        return sums

    def has(self, candidates: Sequence[str]) -> NDArray[np.bool_]:
        """Which of the candidates, content hashes, are in the map; [n_candidates]."""
        return np.array([name[:KEY_CHARS] in self.row_of for name in candidates], np.bool_)

    def scores(self, user: NDArray[np.float64], candidates: Sequence[str]) -> NDArray[np.float64]:
        """The ``user``'s sum for every candidate, content hashes; 0 for what the map does not have."""
        rows = np.array([self.row_of.get(name[:KEY_CHARS], -1) for name in candidates], np.intp)
        found = np.zeros(len(rows))
        found[rows >= 0] = user[rows[rows >= 0]]
        return found
