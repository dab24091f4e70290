"""The Bayesian step: from the pack's belief about the weights to what this user's choices leave of it.

P(choice = i | list) = softmax_i(log server prior_i + w . phi_i + log fresh_i - e log place_i)
w ~ N(pack mean, ``CAUTION`` x pack covariance), e ~ N(1, ``SPREAD``^2)

McFadden's conditional logit (1974), as in ``ranking.fusion``, under the position-based model of clicks
(Craswell et al. 2008; Joachims, Swaminathan and Schnabel 2017): a click needs a look, and looks fall with the
place. How fast differs from app to app, so the exponent e is one more weight, learned with the others and
left out of the answer. ``fresh`` is what an item that was passed over before has left (``learned``). An item
that is pushed away is a worst choice, the softmax of -(log server prior_i + w . phi_i) - e log place_i:
Marley and Louviere, "Some probabilistic models of best, worst, and best-worst choices", 2005. Both are
concave in (w, e).

The posterior is Laplace's: its mode, found by Newton's method, and the inverse of the curvature there
(Bishop, "Pattern Recognition and Machine Learning", 2006, chapters 4.4 and 4.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import fusion
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.feedback import Choice

Float64 = NDArray[np.float64]

# The column beside the pack's: how much less a place is looked at.
_EXAMINATION = "-log place"
# Of the pack's covariance of the weights, what is believed: users differ less (docs/decisions/0026).
CAUTION = 0.3
# Deviation of the exponent of the examination curve; the mean is 1.
SPREAD = 1.0

# Choices that a batch looks at, the newest: memory and time stay bounded, and old habits fade.
MOST_KEPT = 2_000
# The chance of a row that is only there to fill up.
_NEVER = -1e9


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A choice as the posterior reads it: ``matrix`` [m, k + 1] and ``offset`` [m], row ``chosen`` picked."""

    matrix: Float64
    offset: Float64
    chosen: int
    count: float


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """A belief about the weights and what it rests on; make one with ``start``.

    Every choice is one step: the mode of (Laplace's Gaussian so far) x (the new choice's likelihood). Steps
    drift from the mode over all choices at once, because a Gaussian stands for the older ones. So whenever a
    quarter more choices have come, all are taken again, from the pack's prior; at first that is every time.
    The times depend on the number of choices only, so the same choices give the same bits, one by one or
    all at once.
    """

    prior: Weights
    now: Weights
    kept: tuple[Evidence, ...] = ()
    due: int = 1

    @classmethod
    def start(cls, prior: Weights) -> Posterior:
        """Before any choice; ``prior`` is what the pack says, [k]."""
        k = len(prior.names)
        covariance = np.zeros((k + 1, k + 1))
        covariance[:k, :k] = CAUTION * prior.covariance
        covariance[k, k] = SPREAD**2
        wider = Weights((*prior.names, _EXAMINATION), np.append(prior.mean, 1.0), covariance)
        return cls(wider, wider)

    @property
    def weights(self) -> Weights:
        """The belief about the pack's weights, [k]; the examination's exponent is integrated out."""
        k = len(self.prior.names) - 1
        return Weights(self.now.names[:k], self.now.mean[:k], self.now.covariance[:k, :k])

    def after(self, choices: Sequence[tuple[Choice, float, Float64]]) -> Posterior:
        """The belief after these choices, oldest first, each with what it counts and its rows' ``fresh``."""
        kept, due, now = list(self.kept), self.due, self.now
        batch: list[Evidence] = []
        since: list[Evidence] = []
        for choice, count, fresh in choices:
            since.append(_evidence(choice, count, fresh, self.prior.names))
            kept.append(since[-1])
            if len(kept) >= due:
                kept = kept[-MOST_KEPT:]
                due = len(kept) + max(1, len(kept) // 4)
                batch, since = list(kept), []
        if batch:  # whatever steps came before it left nothing behind
            now = fusion.fit(_stacked(batch), self.prior)
        for one in since:
            now = fusion.fit(_stacked([one]), now)
        return Posterior(self.prior, now, tuple(kept), due)

    def in_one_batch(self) -> Weights:
        """The mode and curvature over all kept choices at once, run to convergence, [k + 1]."""
        return fusion.fit(_stacked(self.kept), self.prior)


def _evidence(choice: Choice, count: float, fresh: Float64, names: Sequence[str]) -> Evidence:
    """The choice over the columns ``names``: 0 for what it lacks, without what only it has."""
    at_of = {name: at for at, name in enumerate(names)}
    known = [at for at, name in enumerate(choice.names) if name in at_of]
    columns = np.clip(choice.matrix, -fusion.CLIP, fusion.CLIP)
    offset = columns[:, choice.names.index("server_rank")]
    matrix = np.zeros((len(offset), len(names)))
    matrix[:, [at_of[choice.names[at]] for at in known]] = columns[:, known]
    if choice.against:
        matrix, offset = -matrix, -offset
    matrix[:, -1] = -np.log(choice.served)
    return Evidence(matrix, offset + np.log(choice.stands_for * fresh), choice.chosen, count)


def _stacked(evidence: Sequence[Evidence]) -> list[fusion.Choices]:
    """All as lists of one length."""
    if not evidence:
        return []
    n, m, k = len(evidence), max(len(one.offset) for one in evidence), evidence[0].matrix.shape[1]
    matrix, counts, offset = np.zeros((n, m, k)), np.zeros((n, m)), np.full((n, m), _NEVER)
    for at, one in enumerate(evidence):
        matrix[at, : len(one.offset)] = one.matrix
        offset[at, : len(one.offset)] = one.offset
        counts[at, one.chosen] = one.count
    return [fusion.Choices(matrix, counts, offset)]


def log_chance(choice: Choice, belief: Weights) -> float:
    """The log of the chance of the choice by a belief's mean; ``belief`` [k + 1] is a ``Posterior.now``.

    As if none of the list's items had been passed over before.
    """
    evidence = _evidence(choice, 1.0, np.ones(len(choice.served)), belief.names)
    logits = evidence.offset + evidence.matrix @ belief.mean
    logits = logits - logits.max()
    # Whoever is one of many alike has a share of their chance only.
    own = logits[evidence.chosen] - np.log(choice.stands_for[evidence.chosen])
    return float(own - np.log(np.exp(logits).sum()))
