"""How much more a model should read: what each candidate that it has not read could still change.

A list is read as far as its first places are undecided. P(choice = i) = softmax_i(score), so an order is
worth sum_i P_i / log2(1 + place_i) over the first ``depth`` places: its expected NDCG for one choice
(Järvelin and Kekäläinen, 2002). Reading candidate i moves its score by d_i ~ N(0, deviation^2), for the mean
of what a model says is in the score already (``partly``). What reading i is worth is how much better the
order is in the mean when i alone may take the place that suits its new score: the knowledge gradient of
Frazier, Powell and Dayanik, "A knowledge-gradient policy for sequential information collection", SIAM
J. Control and Optimization 47, 2008. The mean is Gauss and Hermite's quadrature.

The uncertainty of the weights has no part in it: reading does not lessen it, and with it the choices come out
no better (docs/decisions/0030).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Reading a candidate that is expected to add less to the list's NDCG is left to the background. From users of
# whom no result is reported (docs/decisions/0030).
PRICE: Final = 1e-4
# Where a choice is looked for when the app does not say how many places it shows.
DEPTH: Final = 10
# Of the cosines of a user with candidates, where other columns do not foretell them; in both packs that ship.
SPREAD: Final = 0.15
# How many candidates that were read the usual spread counts as much as.
_USUAL = 8.0
# Of gains above half the price, nine in ten are then within a tenth of what 60 nodes give.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
# Above all others: there the choice is certain, and an exponential far beyond would overflow.
_FAR = 50.0


def entropy(scores: Float64) -> float:
    """Bits of the choice distribution, softmax of ``scores`` [n]: 0 when one is certain, log2(n) at most."""
    chances = np.exp(scores - scores.max())
    chances = chances / chances.sum()
    return float(-(chances * np.log2(np.maximum(chances, 1e-300))).sum())


def deviation(surprises: Float64, usual: float) -> float:
    """By how much reading moves a score, from the ``surprises`` [m] of those read and the ``usual`` one.

    The posterior of a variance, scaled inverse chi-squared with ``_USUAL`` degrees of freedom (Gelman et al.,
    "Bayesian Data Analysis", 2013, chapter 2.6). A shift of all moves nobody, so their mean does not count.
    """
    m = len(surprises)
    if m < 2:
        return usual
    squares = float(np.square(surprises - surprises.mean()).sum())
    return float(np.sqrt((_USUAL * usual**2 + squares) / (_USUAL + m - 1)))


def gains(scores: Float64, deviations: Float64, depth: int = DEPTH) -> Float64:
    """What reading each candidate would add to the expected NDCG@``depth``; [n], never negative.

    ``scores`` [n] are the fused scores so far, ``deviations`` [n] by how much reading moves them; 0 for a
    candidate that was read. ``depth`` is 1 at least.
    """
    n = len(scores)
    order = np.argsort(-scores, kind="stable")
    m = min(n, depth + 1)  # the last of these stands for all places that count nothing
    place = np.empty(n, np.intp)
    place[order] = np.arange(1, n + 1)
    before = np.minimum(place, m)
    discount = np.zeros(m + 2)
    discount[1 : min(depth, n) + 1] = 1.0 / np.log2(np.arange(2, min(depth, n) + 2))
    # What the first places lose when each falls by one, and win when each rises by one, summed up to a place.
    top = np.exp(scores[order[:m]] - scores[order[0]])
    fallen = np.concatenate([[0.0, 0.0], np.cumsum(top * (discount[1:-1] - discount[2:]))])
    risen = np.concatenate([[0.0, 0.0], np.cumsum(top[1:] * (discount[1:-2] - discount[2:-1]))])

    # Only those that are or can come among the first: of a long list a few, so the rest costs nothing.
    most = scores + _NODES[-1] * deviations
    at = np.flatnonzero((deviations > 0) & ((place <= m) | (most > scores[order[m - 1]])))
    old, spread, place, before = scores[at], deviations[at], place[at], before[at]
    new = np.minimum(old + _NODES[:, None] * spread, scores[order[0]] + _FAR)
    above = np.searchsorted(-scores[order[:m]], -new)
    above -= (place <= m) & (old > new)  # itself
    after = np.minimum(above + 1, m)
    chance = np.exp(new - scores[order[0]])
    moved = chance * (discount[after] - discount[before])
    others = np.where(after < before, fallen[after] - fallen[before], risen[after] - risen[before])
    now = np.exp(scores - scores[order[0]])
    total = now.sum() - now[at] + chance
    result = np.zeros(n)
    result[at] = _WEIGHTS @ np.maximum((moved + others) / total, 0.0)
    return result
