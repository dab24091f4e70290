"""The mix of tags: a list's against the user's. Steck, "Calibrated recommendations", RecSys 2018.

p(g) is the share of tag g in what the user likes, q(g) in the list: each item counts once, spread evenly
over its tags. The divergence of a list is KL(p || (1 - alpha) q + alpha p), 0 to -log(alpha).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_reranker.types import Candidate

Float64 = NDArray[np.float64]

# The paper's: a tag that the list lacks costs much, but not without bound.
ALPHA = 0.01
MAX_DIVERGENCE = -math.log(ALPHA)


class Mix:
    """What each candidate adds to the mix of a list, as far as the user's tags go.

    ``p`` [n_tags] is the user's share of each; ``shares`` [n_pool, n_tags] each candidate's, and ``tagged``
    [n_pool] is 1 where it has any tag at all.
    """

    def __init__(
        self, taste: Mapping[str, float], candidates: Sequence[Candidate], pool: Sequence[int]
    ) -> None:
        self._at = {tag: at for at, tag in enumerate(taste)}
        self._candidates = candidates
        self._row_of: dict[tuple[str, ...], tuple[Float64, float]] = {}
        self.p: Float64 = np.array(list(taste.values()), np.float64)
        self.shares, self.tagged = self.rows(pool)
        # Candidates have few tags: of all pairs only those are computed with that have a share.
        row, tag = np.nonzero(self.shares)
        self._rows, self._starts = np.unique(row, return_index=True)
        self._tag = tag
        self._p = self.p[tag]
        self._share = (1.0 - ALPHA) * self.shares[row, tag]

    def rows(self, indices: Sequence[int]) -> tuple[Float64, Float64]:
        """``shares`` and ``tagged`` of these candidates."""
        found = [self._row(self._candidates[index].item.tags) for index in indices]
        shares = np.array([row for row, _ in found]).reshape(len(found), len(self.p))
        return shares, np.array([tagged for _, tagged in found])

    def divergence(self, sums: Float64, n_tagged: Float64) -> Float64:
        """Of lists [m] whose tags' shares sum to ``sums`` [m, n_tags] over ``n_tagged`` [m] items; [m].

        As far as can be for a list without any tag.
        """
        q = sums / np.maximum(n_tagged, 1.0)[:, None]
        return np.asarray(-(np.log((1.0 - ALPHA) * q / self.p + ALPHA) @ self.p), np.float64)

    def after(self, sums: Float64, n_tagged: Float64) -> Float64:
        """The divergence of every list with one more candidate, each of the pool: [m, n_pool]."""
        n = n_tagged[:, None] + 1.0
        base = (1.0 - ALPHA) * sums / n + ALPHA * self.p
        with_any = -(np.log(base / self.p) @ self.p)
        found = np.where(self.tagged > 0, with_any[:, None], self.divergence(sums, n_tagged)[:, None])
        if len(self._rows):
            parts = self._p * np.log1p(self._share / (n * base[:, self._tag]))
            found[:, self._rows] -= np.add.reduceat(parts, self._starts, axis=1)
        return found

    def _row(self, tags: tuple[str, ...]) -> tuple[Float64, float]:
        known = self._row_of.get(tags)
        if known is None:
            row = np.zeros(len(self.p))
            own = set(map(str.casefold, tags))
            for tag in own:
                at = self._at.get(tag)
                if at is not None:
                    row[at] = 1.0 / len(own)
            known = self._row_of[tags] = row, float(bool(own))
        return known
