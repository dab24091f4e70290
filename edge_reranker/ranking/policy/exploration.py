"""Trying out what the weights leave open: Thompson sampling, and the chances it gave to everybody.

Thompson, "On the likelihood that one unknown probability exceeds another", 1933; for linear models Agrawal
and Goyal, "Thompson sampling for contextual bandits with linear payoffs", ICML 2013. The weights of one
ranking are drawn from their posterior, w ~ N(mean, exploration^2 covariance), and the list is ordered by
them.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.fusion import Weights

Float64 = NDArray[np.float64]

# One of them is served, and all are what could have been.
N_DRAWS = 16


def weights(ranking_id: str, posterior: Weights, exploration: float, n_draws: int = N_DRAWS) -> Float64:
    """Draws of the weights, [n_draws, k]; the first is the one to serve. The same for the same ranking id.

    mean + exploration * L z with L L^T = covariance and z standard normal.
    """
    seed = int.from_bytes(hashlib.blake2b(ranking_id.encode(), digest_size=16).digest(), "big")
    z = np.random.default_rng(seed).standard_normal((n_draws, len(posterior.mean)))
    return np.asarray(posterior.mean + exploration * (z @ _root(posterior.covariance).T), np.float64)


def _root(covariance: Float64) -> Float64:
    """L with L L^T = covariance, also where that is singular."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)), np.float64)
