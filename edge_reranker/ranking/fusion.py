"""One score out of all features: a linear choice model, fitted from choices and nothing else.

P(choice = i | list) = softmax_i(log server prior_i + w . phi_i), w ~ N(mean, covariance). The server prior
is Zipf's law over the places (``features.server_rank``), and the same column is in phi too, so w says how
far to trust the server beyond it. McFadden, "Conditional logit analysis of qualitative choice behavior",
1974; the posterior is Laplace's approximation, Bishop, "Pattern Recognition and Machine Learning", 2006,
chapter 4.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Past this a single list has said all it can: no one column may decide by being far out of range.
CLIP = 10.0
# Whatever was learned, a candidate with nothing else for it never passes one that the server put above it.
MIN_TRUST = 0.05
_MAX_STEPS = 100
_TOLERANCE = 1e-10


class PriorWeights(Protocol):
    """A prior over weights, as a pack holds it."""

    @property
    def names(self) -> Sequence[str]:
        """The columns the weights belong to."""

    @property
    def mean(self) -> Sequence[float]:
        """One per name."""

    @property
    def covariance(self) -> Sequence[Sequence[float]]:
        """One row per name."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A Gaussian over the columns' weights: ``mean`` [k], ``covariance`` [k, k]."""

    names: tuple[str, ...]
    mean: Float64
    covariance: Float64

    @classmethod
    def of(cls, prior: PriorWeights) -> Weights:
        """A pack's prior as arrays."""
        return cls(
            tuple(prior.names),
            np.asarray(prior.mean, np.float64),
            np.asarray(prior.covariance, np.float64),
        )


def with_priors(weights: Weights, priors: Mapping[str, tuple[float, float]]) -> Weights:
    """``weights`` and one more for each name in ``priors``, by mean and deviation, independent of the others.

    What has a weight already keeps it.
    """
    new = {name: prior for name, prior in priors.items() if name not in weights.names}
    k = len(weights.names)
    covariance = np.zeros((k + len(new), k + len(new)))
    covariance[:k, :k] = weights.covariance
    covariance[range(k, k + len(new)), range(k, k + len(new))] = [spread**2 for _, spread in new.values()]
    mean = np.concatenate([weights.mean, [middle for middle, _ in new.values()]])
    return Weights((*weights.names, *new), mean, covariance)


@dataclass(frozen=True, slots=True)
class Choices:
    """Lists and what was chosen from them.

    ``matrix`` [n_lists, n_candidates, k] and ``counts`` [n_lists, n_candidates], the number of choices;
    ``offset`` [n_lists, n_candidates] is the log server prior. Lists of other lengths go into other
    ``Choices``.
    """

    matrix: Float64
    counts: Float64
    offset: Float64


def fuse(matrix: Float64, names: Sequence[str], weights: Weights) -> Float64:
    """The fused score of every candidate, [n_candidates]; larger is better.

    ``names`` are the columns of ``matrix`` [n_candidates, n_columns], among them "server_rank", which is
    also the log server prior; columns without a weight count nothing.
    """
    return np.asarray(_clipped(matrix, names) @ _slopes(names, weights.names, weights.mean), np.float64)


def fuse_with(matrix: Float64, names: Sequence[str], weights: Weights, means: Float64) -> Float64:
    """``fuse`` with each of several ``means`` [m, k] in place of the weights' own: [m, n_candidates]."""
    return np.asarray(_slopes(names, weights.names, means) @ _clipped(matrix, names).T, np.float64)


def contributions(matrix: Float64, names: Sequence[str], weights: Weights) -> Mapping[str, Float64]:
    """What each column added to the fused score, [n_candidates] each; they sum to ``fuse``."""
    parts = _clipped(matrix, names) * _slopes(names, weights.names, weights.mean)
    return {name: parts[:, at] for at, name in enumerate(names)}


def _slopes(names: Sequence[str], weighted: Sequence[str], means: Float64) -> Float64:
    """What one unit of each column adds to the score, [..., n_columns]; ``means`` are [..., k]."""
    place_of = {name: at for at, name in enumerate(weighted)}
    at = [place_of.get(name, len(weighted)) for name in names]
    none = np.zeros((*means.shape[:-1], 1))
    slopes = np.concatenate([means, none], axis=-1)[..., at]
    rank = list(names).index("server_rank")
    slopes[..., rank] = np.maximum(MIN_TRUST, 1.0 + slopes[..., rank])
    return np.asarray(slopes, np.float64)


def _clipped(matrix: Float64, names: Sequence[str]) -> Float64:
    result = np.clip(matrix, -CLIP, CLIP)
    at = list(names).index("server_rank")
    result[:, at] = matrix[:, at]
    return result


def order(scores: Float64) -> NDArray[np.intp]:
    """Candidates' indices, best first; equal scores keep the server's order."""
    return np.argsort(-scores, kind="stable")


def fit(choices: Sequence[Choices], prior: Weights) -> Weights:
    """The posterior over the weights after ``choices``: its mode, and the inverse Hessian there.

    Newton's method on a concave function, with step halving; deterministic.
    """
    precision = np.linalg.inv(prior.covariance)
    mean = prior.mean.copy()
    value, gradient, hessian = _objective(choices, mean, prior.mean, precision)
    for _ in range(_MAX_STEPS):
        step = np.linalg.solve(hessian, gradient)
        for _halving in range(30):
            trial = _objective(choices, mean + step, prior.mean, precision)
            if trial[0] >= value - 1e-12:
                break
            step = step / 2
        mean = mean + step
        value, gradient, hessian = trial
        if np.abs(step).max(initial=0.0) < _TOLERANCE:
            break
    covariance = np.linalg.inv(hessian)
    return Weights(prior.names, mean, (covariance + covariance.T) / 2)


def log_posterior(choices: Sequence[Choices], mean: Float64, prior: Weights) -> float:
    """Log likelihood of ``choices`` under weights ``mean`` [k] plus the log prior, without its constant."""
    return _objective(choices, mean, prior.mean, np.linalg.inv(prior.covariance))[0]


def _objective(
    choices: Sequence[Choices], mean: Float64, prior_mean: Float64, precision: NDArray[np.floating]
) -> tuple[float, Float64, Float64]:
    """Log posterior, its gradient [k], and its negative Hessian [k, k]."""
    away = mean - prior_mean
    value = float(-0.5 * away @ precision @ away)
    gradient = np.asarray(-precision @ away, np.float64)
    hessian = np.array(precision, np.float64)
    for part in choices:
        logits = part.offset + part.matrix @ mean
        logits = logits - logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        total = part.counts.sum(axis=1)
        value += float((part.counts * log_p).sum())
        gradient = gradient + np.einsum("ij,ijk->k", part.counts - total[:, None] * p, part.matrix)
        centre = np.einsum("ij,ijk->ik", p, part.matrix)
        weighted = part.matrix * np.sqrt(total[:, None] * p)[:, :, None]
        flat = weighted.reshape(-1, len(mean))
        hessian = hessian + flat.T @ flat - (centre * total[:, None]).T @ centre
    return value, gradient, hessian
