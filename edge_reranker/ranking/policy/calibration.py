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
Indices = NDArray[np.intp]

# The paper's: a tag that the list lacks costs much, but not without bound.
ALPHA = 0.01
MAX_DIVERGENCE = -math.log(ALPHA)


class Mix:
    """What each candidate adds to the mix of a list, as far as the user's tags go.

    ``p`` [n_tags] is the user's share of each; ``shares`` [n_pool, n_tags] are the pool's, and ``tagged``
    [n_pool] is 1 for those with any tag at all.
    """

    def __init__(
        self, taste: Mapping[str, float], candidates: Sequence[Candidate], pool: Sequence[int]
    ) -> None:
        self._at = {tag: at for at, tag in enumerate(taste)}
        self._candidates = candidates
        self._known: dict[tuple[str, ...], tuple[list[int], float, float]] = {}
        self.p: Float64 = np.array(list(taste.values()), np.float64)
        told = [self._told(candidates[index].item.tags) for index in pool]
        lengths = np.array([len(tags) for tags, _, _ in told], np.intp)
        self._tag = np.array([tag for tags, _, _ in told for tag in tags], np.intp)
        share = np.repeat([share for _, share, _ in told], lengths)
        self.tagged: Float64 = np.array([tagged for _, _, tagged in told])
        self.shares: Float64 = np.zeros((len(pool), len(self.p)))
        self.shares[np.repeat(np.arange(len(pool)), lengths), self._tag] = share
        # Candidates have few tags: of all pairs, only those are computed with that have a share.
        self._some = np.flatnonzero(lengths)
        self._starts = (np.cumsum(lengths) - lengths)[self._some]
        self._p = self.p[self._tag]
        self._share = (1.0 - ALPHA) * share

    def divergence(self, sums: Float64, n_tagged: Float64) -> Float64:
        """Of lists [m] whose tags' shares sum to ``sums`` [m, n_tags] over ``n_tagged`` [m] items; [m].

        As far as can be for a list without any tag.
        """
        q = sums / np.maximum(n_tagged, 1.0)[:, None]
        return np.asarray(-(np.log((1.0 - ALPHA) * q / self.p + ALPHA) @ self.p), np.float64)

    def of(self, lists: Indices) -> Float64:
        """The divergence of each of these lists of candidates, [m, n] indices: [m]."""
        distinct, at = np.unique(lists, return_inverse=True)
        rows = np.zeros((len(distinct), len(self.p)))
        tagged = np.zeros(len(distinct))
        for row, index in enumerate(distinct.tolist()):
            tags, share, tagged[row] = self._told(self._candidates[index].item.tags)
            rows[row, tags] = share
        at = at.reshape(lists.shape)
        return self.divergence(rows[at].sum(axis=1), tagged[at].sum(axis=1))

    def gains(self, sums: Float64, n_tagged: Float64) -> Float64:
        """How much nearer to the user's mix each list comes with each candidate of the pool, [m, n_pool].

        Up to a number for each list, which does not matter to who is best for it.
        """
        n = n_tagged[:, None] + 1.0
        mass = (1.0 - ALPHA) * sums + (ALPHA * n) * self.p  # n times the mix, if the next one has other tags
        found = np.zeros((len(sums), len(self.tagged)))
        if len(self._tag):
            parts = np.log1p(self._share / mass[:, self._tag])
            parts *= self._p
            found[:, self._some] = np.add.reduceat(parts, self._starts, axis=1)
        if not self.tagged.all():
            # One without any tag leaves the mix as it is.
            other = np.log(mass / (n * self.p)) @ self.p
            found[:, self.tagged == 0] = -(self.divergence(sums, n_tagged) + other)[:, None]
        return found

    def _told(self, tags: tuple[str, ...]) -> tuple[list[int], float, float]:
        """Which of the user's tags these are, the share that each has, and 1 if there are any tags at all."""
        found = self._known.get(tags)
        if found is None:
            own = dict.fromkeys(map(str.casefold, tags))
            at = [self._at[tag] for tag in own if tag in self._at]
            found = self._known[tags] = at, 1.0 / max(1, len(own)), float(bool(own))
        return found
