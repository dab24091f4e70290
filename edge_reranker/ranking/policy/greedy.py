"""The first places, one after the other: relevance, variety and the user's mix of tags weighed up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.policy.calibration import MAX_DIVERGENCE, Mix
from edge_reranker.ranking.policy.diversity import Novelty

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

LADDER = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""The strengths of calibration that lists are made for; which of them is taken, the request's decides."""

# The place whose score counts as nothing; docs/decisions/0028 has the figures.
_REACH = 50


def relevance(scores: Float64, order: Indices) -> Float64:
    """Scores [n] with 1 for the best and 0 for place 50 of ``order``, or the last; all 0 if these are equal.

    So a strength means the same whatever the scale of the scores and however long the list's tail.
    """
    best, least = scores[order[0]], scores[order[min(len(order), _REACH) - 1]]
    if best - least < 1e-9:
        return np.zeros(len(scores))
    return np.asarray((scores - least) / (best - least), np.float64)


def lists(
    relevant: Float64,
    n_places: int,
    seeds: int,
    ladder: tuple[float, ...],
    novelty: Callable[[int, int], Novelty] | None,
    diversity: float,
    mix: Mix | None,
) -> Indices:
    """For each strength of ``ladder`` the places of the pool that a greedy list takes, [n_lists, n_places].

    ``relevant`` [n_pool] is ``relevance``, best first. The first ``seeds`` of the pool have their places
    already: they count, and are not taken. Each step takes the candidate with the largest

        (1 - c) ((1 - diversity) relevance + diversity novelty) - c n_places KL / max KL

    of the list with it, c a strength of the ladder; KL as in ``calibration``. Equal ones keep their order.
    """
    n_lists = len(ladder)
    weights = np.array(ladder)[:, None]
    base = (1.0 - weights) * ((1.0 - diversity) * relevant)
    rows = np.arange(n_lists)
    kept_apart = None if novelty is None else novelty(n_lists, seeds + n_places)
    of_novelty = (1.0 - weights) * diversity
    of_mix = weights * ((seeds + n_places) / MAX_DIVERGENCE)
    sums = np.zeros((n_lists, 0 if mix is None else len(mix.p)))
    n_tagged = np.zeros(n_lists)
    taken = np.empty((n_lists, n_places), np.intp)
    for step in range(seeds + n_places):
        if step < seeds:
            chosen = np.full(n_lists, step, np.intp)
        else:
            value = base if kept_apart is None else base + of_novelty * kept_apart.values
            if mix is not None:
                value = value + of_mix * mix.gains(sums, n_tagged)
            chosen = value.argmax(axis=1)
            taken[:, step - seeds] = chosen
        base[rows, chosen] = -np.inf
        if kept_apart is not None:
            kept_apart.took(chosen)
        if mix is not None:
            sums += mix.shares[chosen]
            n_tagged += mix.tagged[chosen]
    return taken
