"""How good an order is, and how sure that is.

A case is one target in one list; its place is counted from 1, 0 when the list does not have it. What a
place is worth is trec_eval's word, through ir-measures; intervals and comparisons are ours. Cases of one
user depend on each other, so intervals come from resampling users, not cases (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import Missing

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


def require_library() -> ModuleType:
    """The ir_measures package. Raises ``Missing`` when it is not installed."""
    try:
        import ir_measures
    except ImportError as error:
        raise Missing("measuring needs ir-measures: pip install 'edge-reranker[eval]'") from error
    module: ModuleType = ir_measures
    return module


def ndcg(places: Places, depth: int = 10) -> NDArray[np.float64]:
    """Every case's NDCG with its target as the only relevant item: 1 / log2(1 + place), 0 past ``depth``.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.
    """
    return _measured(f"nDCG@{depth}", places)


def reciprocal(places: Places) -> NDArray[np.float64]:
    """Every case's reciprocal rank, 0 for a target that the list does not have."""
    return _measured("RR", places)


def hits(places: Places, depth: int) -> NDArray[np.float64]:
    """1 for every case whose target is among the first ``depth``."""
    return _measured(f"Success@{depth}", places)


def _measured(measure: str, places: Places) -> NDArray[np.float64]:
    """``measure`` of every case. One relevant item: a function of the place, so each is asked once."""
    return _of_place(measure, int(places.max(initial=0)))[places]


@lru_cache(maxsize=64)
def _of_place(measure: str, longest: int) -> NDArray[np.float64]:
    """What a list whose only relevant item is at each place, 0 to ``longest``, is worth: [longest + 1]."""
    library = require_library()
    places = range(longest + 1)
    relevant = {str(place): {"target": 1} for place in places}
    run = {
        str(place): {("target" if at == place else str(at)): -float(at) for at in range(1, max(place, 1) + 1)}
        for place in places
    }
    values = np.empty(longest + 1)
    for found in library.iter_calc([library.parse_measure(measure)], relevant, run):
        values[int(found.query_id)] = found.value
    values.flags.writeable = False
    return values


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


def bootstrap(
    values: NDArray[np.float64], users: Sequence[str], weights: NDArray[np.float64] | None = None
) -> Interval:
    """Mean over cases and its 95 % percentile interval over resampled users; deterministic.

    ``weights`` is how often each case counts, above 0; None means once. Raises ``ValueError`` without cases.
    """
    if len(values) == 0:
        raise ValueError("no cases to measure")
    names, of_case = np.unique(np.asarray(users), return_inverse=True)
    n = len(names)
    weighted = values if weights is None else values * weights
    totals = np.bincount(of_case, weights=weighted, minlength=n)
    sizes = np.bincount(of_case, weights=weights, minlength=n)
    draws = _draws(n)
    means = (draws @ totals) / (draws @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.average(values, weights=weights)), float(low), float(high))


@lru_cache(maxsize=2)
def _draws(n_users: int) -> NDArray[np.int64]:
    """How often each resample draws each user, [N_RESAMPLES, n_users]."""
    draws = np.random.default_rng(_SEED).multinomial(
        n_users, np.full(n_users, 1.0 / n_users), size=N_RESAMPLES
    )
    draws.flags.writeable = False
    return draws
