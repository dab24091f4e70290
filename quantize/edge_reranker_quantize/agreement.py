"""How like two rankings, two distributions or two sets of vectors are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from edge_reranker.evaluation import metrics
from edge_reranker.evaluation.metrics import Interval

Float = NDArray[np.floating]
TOP = 5


@dataclass(frozen=True, slots=True)
class Rankings:
    """Of each request its user, one score per candidate, higher first, and the places of what was liked.

    A place is from 1, 0 for what is not among the candidates.
    """

    users: Sequence[str]
    scores: Sequence[Float]
    places: Sequence[Sequence[int]]

    def first(self, n: int) -> Rankings:
        """Those of the first ``n`` requests."""
        return Rankings(self.users[:n], self.scores[:n], self.places[:n])

    def then(self, more: Rankings) -> Rankings:
        """These, and ``more`` behind them."""
        return Rankings(
            [*self.users, *more.users], [*self.scores, *more.scores], [*self.places, *more.places]
        )

    @property
    def cases(self) -> metrics.Places:
        """All places, one behind another."""
        return np.array([place for places in self.places for place in places], np.int64)

    @property
    def users_of_cases(self) -> list[str]:
        """The user of each."""
        return [user for user, places in zip(self.users, self.places, strict=True) for _ in places]


@dataclass(frozen=True, slots=True)
class Likeness:
    """A variant's rankings against the reference's, with 95 % intervals over users.

    ``tau`` is the mean over requests of Kendall's tau-b, ``top5`` the share of the reference's first five
    that the variant has there too, ``change`` its NDCG@10 less the reference's, paired.
    """

    tau: Interval
    top5: float
    ndcg10: float
    change: Interval


def likeness(found: Rankings, reference: Rankings) -> Likeness:
    """Both of the same requests."""
    taus = np.array([tau(a, b) for a, b in zip(found.scores, reference.scores, strict=True)])
    shared = [
        len(set(_first(a)) & set(_first(b))) / min(TOP, len(a))
        for a, b in zip(found.scores, reference.scores, strict=True)
    ]
    gains, before = metrics.ndcg(found.cases), metrics.ndcg(reference.cases)
    return Likeness(
        metrics.bootstrap(taus, found.users),
        float(np.mean(shared)),
        float(gains.mean()),
        metrics.bootstrap(gains - before, found.users_of_cases),
    )


def tau(a: Float, b: Float) -> float:
    """Kendall's tau-b; 1 for two rankings that tie everything, 0 where only one of them does."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float(np.ptp(a) == np.ptp(b))
    return float(kendalltau(a, b).statistic)


def _first(scores: Float) -> list[int]:
    return [int(at) for at in np.argsort(-scores, kind="stable")[:TOP]]


def place(scores: Float, at: int) -> int:
    """The place from 1 of candidate ``at``; of equals, the first given comes first."""
    return int((np.argsort(-scores, kind="stable") == at).argmax()) + 1


@dataclass(frozen=True, slots=True)
class Divergence:
    """Kullback-Leibler divergence from the reference's next-token distributions, in nats.

    ``top1`` is the share of positions where both find the same token likeliest.
    """

    mean: float
    p99: float
    top1: float
    n_positions: int


def log_softmax(logits: Float) -> Float:
    """Rows of logits to rows of log probabilities."""
    shifted: Float = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def divergence(found: Float, reference: Float) -> Divergence:
    """Of log probabilities [n_positions, n_vocab]."""
    each = (np.exp(reference) * (reference - found)).sum(axis=1)
    same = found.argmax(axis=1) == reference.argmax(axis=1)
    return Divergence(float(each.mean()), float(np.quantile(each, 0.99)), float(same.mean()), len(each))


@dataclass(frozen=True, slots=True)
class VectorError:
    """Of item vectors: length of the difference by the reference's length, mean and 99th percentile.

    ``least_cosine`` is that of the item that fared worst.
    """

    mean: float
    p99: float
    least_cosine: float


def vector_error(found: Float, reference: Float) -> VectorError:
    """Of hidden states [n_items, n_embd]."""
    lengths = np.linalg.norm(reference, axis=1)
    apart = np.linalg.norm(found - reference, axis=1) / lengths
    cosines = (found * reference).sum(axis=1) / (lengths * np.linalg.norm(found, axis=1))
    return VectorError(float(apart.mean()), float(np.quantile(apart, 0.99)), float(cosines.min()))
