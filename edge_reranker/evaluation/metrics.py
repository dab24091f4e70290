"""How good an order is, and how sure that is.

A case is one target in one list; its place is counted from 1, 0 when the list does not have it. Cases of
one user depend on each other, so intervals come from resampling users, not cases (Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]

N_RESAMPLES = 2000
_SEED = 20231


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over cases and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """One order's figures; all between 0 and 1, larger is better. ``hr`` is the hit rate at a depth."""

    ndcg10: Interval
    ndcg10_hits_only: float
    mrr: float
    hr1: float
    hr5: float
    hr10: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One order against another on the same cases: NDCG@10 after less before, and users by its sign."""

    ndcg10: Interval
    users_better: int
    users_same: int
    users_worse: int


def ndcg(places: Places, depth: int = 10) -> NDArray[np.float64]:
    """Every case's NDCG with its target as the only relevant item: 1 / log2(1 + place), 0 past ``depth``.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.
    """
    safe = np.maximum(places, 1)
    return np.where((places > 0) & (places <= depth), 1.0 / np.log2(1.0 + safe), 0.0)


def reciprocal(places: Places) -> NDArray[np.float64]:
    """Every case's reciprocal rank, 0 for a target that the list does not have."""
    return np.where(places > 0, 1.0 / np.maximum(places, 1), 0.0)


def hits(places: Places, depth: int) -> NDArray[np.float64]:
    """1 for every case whose target is among the first ``depth``."""
    return ((places > 0) & (places <= depth)).astype(np.float64)


def quality(places: Places, users: Sequence[str]) -> Quality:
    """All figures of one order; ``users`` names each case's user. Raises ``ValueError`` without cases."""
    gains = ndcg(places)
    found = places > 0
    return Quality(
        ndcg10=bootstrap(gains, users),
        ndcg10_hits_only=float(gains[found].mean()) if found.any() else 0.0,
        mrr=float(reciprocal(places).mean()),
        hr1=float(hits(places, 1).mean()),
        hr5=float(hits(places, 5).mean()),
        hr10=float(hits(places, 10).mean()),
    )


def compare(after: Places, before: Places, users: Sequence[str]) -> Comparison:
    """Paired difference of two orders over the same cases."""
    change = ndcg(after) - ndcg(before)
    names, of_case = np.unique(np.asarray(users), return_inverse=True)
    per_user = np.bincount(of_case, weights=change, minlength=len(names))
    # Sums of equal terms in another order may differ in the last bit; that is "the same".
    sign = np.where(np.abs(per_user) < 1e-12, 0.0, per_user)
    return Comparison(
        ndcg10=bootstrap(change, users),
        users_better=int((sign > 0).sum()),
        users_same=int((sign == 0).sum()),
        users_worse=int((sign < 0).sum()),
    )


def bootstrap(values: NDArray[np.float64], users: Sequence[str]) -> Interval:
    """Mean over cases and its 95 % percentile interval over resampled users; deterministic."""
    if len(values) == 0:
        raise ValueError("no cases to measure")
    names, of_case = np.unique(np.asarray(users), return_inverse=True)
    n = len(names)
    totals = np.bincount(of_case, weights=values, minlength=n)
    sizes = np.bincount(of_case, minlength=n)
    rng = np.random.default_rng(_SEED)
    draws = rng.multinomial(n, np.full(n, 1.0 / n), size=N_RESAMPLES)
    means = (draws @ totals) / (draws @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
