"""What accuracy does not show: lists that fit the user's mix, that vary, and chances that can be believed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, metrics
from edge_reranker.evaluation.metrics import Interval
from edge_reranker.ranking import fusion
from edge_reranker.types import Item

DEPTH = 10
N_BINS = 10
N_SIMULATED = 200
# Steck's smoothing: a tag that the list lacks costs much, but not without bound.
ALPHA = 0.01
MAX_DIVERGENCE = -math.log(ALPHA)
_SEED = 20231

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Candidates of similar predicted chance: what was predicted, and what came, means over them."""

    predicted: float
    observed: Interval


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far the predicted chances can be believed.

    ``ece`` is the expected calibration error; ``ece_by_chance`` is the one that 95 % of perfectly
    calibrated models would stay below on as many choices. Only an ``ece`` above it is evidence of an error.
    An interval would mislead: an absolute value grows with every resampling. ``n_choices`` were made.
    """

    ece: float
    ece_by_chance: float
    n_choices: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Beyond:
    """One order's figures beyond accuracy; None where nothing could be measured.

    ``divergence`` (``divergence``) and ``distance`` (``intra_list_distance`` of tags) are means over the
    first ten of every list, ``reliability`` is of the chances behind the order.
    """

    divergence: Interval | None
    distance: Interval | None
    reliability: Reliability | None


@dataclass(frozen=True, slots=True)
class Predicted:
    """One user's list: every candidate's chance to be chosen, [n], and how often it was, [n]."""

    user_id: str
    chances: Float64
    counts: Float64


def measure(
    listed: Sequence[lists.Listed], items: Mapping[str, Item], weights: fusion.Weights | None = None
) -> Beyond:
    """The figures of the order and the chances that fusion with ``weights`` gives; None is the server's own.

    A list whose user has liked nothing with a tag yet, or with too few tags to compare, is left out of the
    mean.
    """
    weights = weights or fusion.Weights((), np.zeros(0), np.zeros((0, 0)))  # its prior over the places
    divergences, distances, users, predicted = [], [], [], []
    for each in listed:
        if not len(each.matrix):
            continue  # the user has met all that the server knows
        scores = fusion.fuse(each.matrix, lists.NAMES, weights)
        first = [each.items[at] for at in fusion.order(scores)[:DEPTH]]
        liked = [items[met.item_id] for met in each.cut.history if met.liked]
        divergences.append(divergence(liked, first))
        distances.append(intra_list_distance(tag_vectors(first)))
        users.append(each.cut.user_id)
        counts = np.bincount([at for at in each.targets if at is not None], minlength=len(scores))
        predicted.append(Predicted(each.cut.user_id, chances(scores), counts.astype(np.float64)))
    return Beyond(mean(divergences, users), mean(distances, users), reliability(predicted))


def divergence(history: Iterable[Item], listed: Sequence[Item], alpha: float = ALPHA) -> float:
    """How far the tags of ``listed`` are from those of ``history``, in nats: 0 to -log(alpha).

    KL(p || (1 - alpha) q + alpha p), p and q the shares of tags in both; 0 exactly when they are equal.
    NaN when the history has no tags; a list without any is as far as can be. Steck, "Calibrated
    recommendations", RecSys 2018.
    """
    return shares_divergence(tag_shares(history), tag_shares(listed), alpha)


def shares_divergence(p: Mapping[str, float], q: Mapping[str, float], alpha: float = ALPHA) -> float:
    """``divergence`` of shares of tags."""
    if not p:
        return math.nan
    total = sum(
        share * math.log(share / ((1 - alpha) * q.get(tag, 0.0) + alpha * share)) for tag, share in p.items()
    )
    return min(max(total, 0.0), -math.log(alpha))  # rounding only


def tag_shares(items: Iterable[Item]) -> dict[str, float]:
    """Each tag's share, summing to 1: an item with tags counts once, spread evenly over them."""
    weight_of: dict[str, float] = defaultdict(float)
    n_tagged = 0
    for item in items:
        tags = dict.fromkeys(map(str.casefold, item.tags))  # in order, so that every process sums alike
        n_tagged += bool(tags)
        for tag in tags:
            weight_of[tag] += 1.0 / len(tags)
    return {tag: weight / n_tagged for tag, weight in weight_of.items()}


def tag_vectors(items: Sequence[Item]) -> Float64:
    """1 where an item has a tag: [n_items, n_tags]."""
    sets = [{tag.casefold() for tag in item.tags} for item in items]
    names = sorted(set().union(*sets))
    vectors = np.zeros((len(items), len(names)))
    for row, tags in enumerate(sets):
        vectors[row] = [name in tags for name in names]
    return vectors


def intra_list_distance(vectors: NDArray[np.floating]) -> float:
    """1 less the mean cosine of all pairs of ``vectors`` [n, n_dims]: 0 when all point the same way.

    Vectors of zeros say nothing and are left out; NaN when fewer than two are left. At most 1 where no
    value is negative, else 2. Ziegler et al., "Improving recommendation lists through topic
    diversification", WWW 2005.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors[lengths > 0] / lengths[lengths > 0, None]
    n = len(unit)
    if n < 2:
        return math.nan
    cosines = unit @ unit.T
    above = cosines[np.triu_indices(n, 1)]
    return float(np.clip(1.0 - above.mean(), 0.0, 2.0))  # rounding only


def chances(scores: Float64) -> Float64:
    """What the choice model makes of fused scores [n]: softmax over the list."""
    exp = np.exp(scores - scores.max())
    return np.asarray(exp / exp.sum(), np.float64)


def reliability(predicted: Sequence[Predicted], n_bins: int = N_BINS) -> Reliability | None:
    """Predicted chances against choices, in bins of equally many predictions; None without any choice.

    ece = sum over bins of (share of predictions) * |mean chance - share chosen|. Every choice is one
    prediction for every candidate of its list; equal chances share a bin, so bins can be fewer. Guo et
    al., "On calibration of modern neural networks", ICML 2017; bins of equal mass: Nixon et al.,
    "Measuring calibration in deep learning", CVPR workshops 2019. ``ece_by_chance`` draws choices from the
    predicted chances themselves; Bröcker and Smith, "Increasing the reliability of reliability diagrams",
    2007.
    """
    chosen_from = [each for each in predicted if each.counts.sum() > 0]
    if not chosen_from:
        return None
    chance = np.concatenate([each.chances for each in chosen_from])
    times = np.concatenate([np.full(len(each.counts), each.counts.sum()) for each in chosen_from])
    counts = np.concatenate([each.counts for each in chosen_from])
    users = np.repeat([each.user_id for each in chosen_from], [len(each.counts) for each in chosen_from])
    bin_of = _bins(chance, times, n_bins)
    n_bins = int(bin_of.max()) + 1
    sizes = np.bincount(bin_of, weights=times, minlength=n_bins)
    expected = np.bincount(bin_of, weights=times * chance, minlength=n_bins)
    came = np.bincount(bin_of, weights=counts, minlength=n_bins)
    simulated = _simulated(chosen_from, bin_of, n_bins)
    by_chance = np.abs(simulated - expected).sum(axis=1) / sizes.sum()
    bins = []
    for at in range(n_bins):
        of_bin = bin_of == at
        observed = metrics.bootstrap(counts[of_bin] / times[of_bin], users[of_bin].tolist(), times[of_bin])
        bins.append(Bin(float(expected[at] / sizes[at]), observed))
    return Reliability(
        ece=float(np.abs(came - expected).sum() / sizes.sum()),
        ece_by_chance=float(np.quantile(by_chance, 0.95)),
        n_choices=round(float(counts.sum())),
        bins=tuple(bins),
    )


def _bins(chance: Float64, times: Float64, n_bins: int) -> NDArray[np.intp]:
    """Each prediction's bin, smallest chances first; none is empty."""
    order = np.argsort(chance, kind="stable")
    mass = np.cumsum(times[order])
    wanted = mass[-1] * np.arange(1, n_bins) / n_bins
    edges = np.unique(chance[order][np.searchsorted(mass, wanted)])
    return np.unique(np.searchsorted(edges, chance), return_inverse=True)[1]


def _simulated(predicted: Sequence[Predicted], bin_of: NDArray[np.intp], n_bins: int) -> Float64:
    """How many choices fall into each bin when the chances are true: [N_SIMULATED, n_bins]."""
    rng = np.random.default_rng(_SEED)
    total = np.zeros((N_SIMULATED, n_bins))
    start = 0
    for each in predicted:
        bins = bin_of[start : start + len(each.counts)]
        start += len(each.counts)
        in_bin = np.bincount(bins, weights=each.chances, minlength=n_bins)
        # Only the bin of a choice matters, so bins are drawn, not candidates.
        total += rng.multinomial(int(each.counts.sum()), in_bin / in_bin.sum(), size=N_SIMULATED)
    return total


def mean(values: Sequence[float], users: Sequence[str]) -> Interval | None:
    """Of the values that are known (not NaN), by the user of each; None without any."""
    known = [(value, user) for value, user in zip(values, users, strict=True) if not math.isnan(value)]
    if not known:
        return None
    return metrics.bootstrap(np.array([value for value, _ in known]), [user for _, user in known])
