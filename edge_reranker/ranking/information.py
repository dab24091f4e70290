"""How much one thing tells of another, in bits, and whether that is more than chance.

Mutual information of counts, I = sum_vt p(v,t) log2(p(v,t) / (p(v) p(t))), is too large on few observations.
What it comes to when the labels are dealt out anew says by how much (the shuffling of Panzeri, Senatore,
Montemurro and Petersen, "Correcting for the Sampling Bias Problem in Spike Train Information Measures", J.
Neurophysiol. 98, 2007), and how often that reaches what was found is the p-value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Of one test: batches of deals, so that most of what is nothing ends after the first.
_BATCHES = (39, 160, 300)
_ENOUGH = 5
_SEED = 20_262
_SAME = 1e-12
# Of a deal's tables at a time, in numbers, so that a long history takes no more memory than a short one.
_MAX_CELLS = 2_000_000


@dataclass(frozen=True, slots=True)
class Dependence:
    """``bits`` above what chance gives (0 if not above), and the p-value of what was found."""

    bits: float
    p: float


NONE = Dependence(0.0, 1.0)


def mutual_information(tables: Float64) -> Float64:
    """Bits that the row of a table tells of the column: [...], of counts [..., n_values, n_topics].

    Not corrected; 0 for a table of nothing. Counts may be fractions, and are not negative.
    """
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    total = rows.sum(axis=-1)
    found = _surprise(tables.reshape(*tables.shape[:-2], -1)) + _surprise(total[..., None])
    found = (found - _surprise(rows) - _surprise(columns)) / np.where(total > 0, total, 1.0)
    return np.asarray(np.maximum(found, 0.0), np.float64)


def _surprise(counts: Float64) -> Float64:
    """Sum of x log2 x over the last axis."""
    logs = np.log2(counts, out=np.zeros_like(counts), where=counts > 0)
    return np.asarray((counts * logs).sum(axis=-1), np.float64)


def divergence(tables: Float64) -> Float64:
    """KL(p_1 || p_0) in bits, [...], of the two rows (0, then 1) of counts [..., 2, n_topics].

    Both rows get half an event spread over all topics in proportion to both together, so that a topic that
    one lacks costs no infinity. Kullback and Leibler, "On Information and Sufficiency", 1951.
    """
    both = tables.sum(axis=-2, keepdims=True)
    total = both.sum(axis=-1, keepdims=True)
    smooth = tables + 0.5 * both / np.where(total > 0, total, 1.0)
    size = smooth.sum(axis=-1, keepdims=True)
    shares = smooth / np.where(size > 0, size, 1.0)
    before, now = shares[..., 0, :], shares[..., 1, :]
    ratio = np.divide(now, before, out=np.ones_like(now), where=(now > 0) & (before > 0))
    return np.asarray(np.maximum((now * np.log2(ratio)).sum(axis=-1), 0.0), np.float64)


def entropy(counts: Float64) -> float:
    """Bits of the distribution of ``counts`` [n_topics], fractions or not, that sum to a number of events.

    With the correction of Miller, "Note on the Bias of Information Estimates", 1955: (topics seen - 1) / (2 n
    ln 2) more; never above the logarithm of the number of topics seen.
    """
    total = float(counts.sum())
    if total <= 0:
        return 0.0
    shares = counts[counts > 0] / total
    plain = float(-(shares * np.log2(shares)).sum())
    return min(plain + (len(shares) - 1) / (2 * total * math.log(2.0)), math.log2(len(shares)))


def dependence(
    labels: NDArray[np.intp],
    counts: Float64,
    n_labels: int,
    statistic: Callable[[Float64], Float64] = mutual_information,
) -> Dependence:
    """Whether the label [n] of a group of events tells anything of its ``counts`` [n, n_topics].

    Deals the labels out anew among the groups: what belongs together, such as a visit in which one thing led
    to the next, must be one group. p = (1 + deals that reach what was found) / (1 + deals) (Phipson and
    Smyth, "Permutation P-values Should Never Be Zero", 2010); once 5 have, it is 5 / deals until then (Besag
    and Clifford, "Sequential Monte Carlo p-values", 1991), so that it costs little. Deterministic.
    """
    n = len(labels)
    if n < 2 or n_labels < 2 or not counts.any():
        return NONE
    rng = np.random.default_rng(_SEED)
    found = float(statistic(_tables(labels[None], counts, n_labels))[0])
    dealt: list[float] = []
    per_part = max(1, _MAX_CELLS // (n * n_labels))
    for batch in _BATCHES:
        for start in range(0, batch, per_part):
            n_deals = min(per_part, batch - start)
            deals = rng.permuted(np.broadcast_to(labels, (n_deals, n)), axis=1)
            dealt += statistic(_tables(deals, counts, n_labels)).tolist()
        reached = np.flatnonzero(np.array(dealt) >= found - _SAME)
        if len(reached) >= _ENOUGH:
            return Dependence(
                max(0.0, found - float(np.mean(dealt))), _ENOUGH / float(reached[_ENOUGH - 1] + 1)
            )
    return Dependence(max(0.0, found - float(np.mean(dealt))), (1 + len(reached)) / (1 + len(dealt)))


def _tables(labels: NDArray[np.intp], counts: Float64, n_labels: int) -> Float64:
    """Counts by label, [n_deals, n_labels, n_topics], of labels [n_deals, n]."""
    # The last label has what the others leave. One product for all deals, not one for each.
    is_label = (labels[:, None, :] == np.arange(n_labels - 1)[None, :, None]).astype(np.float64)
    tables = np.empty((len(labels), n_labels, counts.shape[1]))
    tables[:, :-1] = (is_label.reshape(-1, counts.shape[0]) @ counts).reshape(len(labels), n_labels - 1, -1)
    tables[:, -1] = np.maximum(counts.sum(axis=0) - tables[:, :-1].sum(axis=1), 0.0)
    return tables


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values as they count when that many were looked at: where nothing is there, the chance that any
    is 5 % or less is that. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted
