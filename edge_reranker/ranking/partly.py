"""Candidates that the model has read beside others that it has not: one scale for both.

With the model's columns the other columns weigh less, for it takes over part of what they say. A candidate
that was not read would lose that part and get nothing for it: with 4 to 8 of 100 read, the order was worse
than with none (docs/decisions/0030). So it keeps what the weights without the model give it, which is the
mean of what the model would say, as far as the other columns tell: the column ``EXPECTED``, in units of the
score, with weight 1. Buck, "A method of estimation of missing values in multivariate data", JRSS B 22, 1960,
fills in conditional means in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.features import FEATURES, OF_THE_ENCODER
from edge_reranker.ranking.fusion import Float64, Weights, fuse

EXPECTED = "expected"
_OF_THE_ENCODER = [FEATURES.index(name) for name in sorted(OF_THE_ENCODER)]
_NOBODY = np.zeros(0)
_LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Weighed:
    """A matrix [n, k], its columns' ``names``, the weights that suit it, and the ``scores`` [n] they give.

    ``surprises`` [m] is by how much the model moved each score of those that it read from what was expected.
    """

    matrix: Float64
    names: tuple[str, ...]
    weights: Weights
    scores: Float64
    surprises: Float64

    def single(self) -> Weighed:
        """The same in single precision, and always with ``EXPECTED``: as it is kept."""
        matrix, names = self.matrix, self.names
        if EXPECTED not in names:
            matrix, names = np.column_stack([matrix, np.zeros(len(matrix))]), (*names, EXPECTED)
        # Within its range, too, which no feature of use leaves: fusion clips long before.
        matrix = np.clip(matrix, -_LARGEST, _LARGEST).astype(np.float32).astype(np.float64)
        return replace(self, matrix=matrix, names=names, scores=fuse(matrix, names, self.weights))

    def weight_of(self, name: str) -> float:
        """The weight that a column has here; 0 without one."""
        return float(self.weights.mean[self.weights.names.index(name)]) if name in self.weights.names else 0.0


def weighed(
    matrix: Float64, names: Sequence[str], read: NDArray[np.bool_], ours: Weights, without: Weights
) -> Weighed:
    """The scores when the model has ``read`` these candidates [n]; names begin with ``FEATURES``.

    By ``ours`` when it has read all of them; by the weights ``without`` it when it said nothing of any.
    """
    names = tuple(names)
    foretold = fuse(matrix, names, without)
    if not read.any() or not matrix[:, _OF_THE_ENCODER].any():
        return Weighed(matrix, names, without, foretold, _NOBODY)
    scores = fuse(matrix, names, ours)
    surprises = (scores - foretold)[read]
    if read.all():
        return Weighed(matrix, names, ours, scores, surprises)
    # Being read is neither good nor bad by itself: those read keep their mean.
    expected = np.where(read, 0.0, foretold - scores + surprises.mean())
    matrix, names = np.column_stack([matrix, expected]), (*names, EXPECTED)
    weights = _with_expected(ours)
    return Weighed(matrix, names, weights, fuse(matrix, names, weights), surprises)


def _with_expected(weights: Weights) -> Weights:
    if EXPECTED in weights.names:
        return weights
    k = len(weights.names)
    covariance = np.zeros((k + 1, k + 1))
    covariance[:k, :k] = weights.covariance
    return Weights((*weights.names, EXPECTED), np.append(weights.mean, 1.0), covariance)
