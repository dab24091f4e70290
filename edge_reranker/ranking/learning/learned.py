"""What a namespace has learned: a pure fold over its choices, so that replaying them gives the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking.context import PRIORS
from edge_reranker.ranking.fusion import Weights, with_priors
from edge_reranker.ranking.learning.feedback import Choice
from edge_reranker.ranking.learning.gate import Gate
from edge_reranker.ranking.learning.posterior import Posterior
from edge_reranker.ranking.partly import EXPECTED

# A look, a stay and a like of one item in one list are one choice; that many are remembered to tell.
_REMEMBERED = 64
# How alike items with the same columns are: the shape of the Gamma distribution of what they leave unsaid.
_ALIKE = 0.3
# Items of which it is known how often they were passed over; the longest unseen are dropped.
_MOST_MET = 4_000
# Mean and deviation: what the model is expected to say of what it has not read is in units of the score.
_AS_EXPECTED = (1.0, 0.25)

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """What an item of a list has counted, and what was fresh then."""

    list_id: bytes
    place: int
    against: bool
    count: float
    fresh: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The weights after this user's choices, and whether to trust them; make one with ``start``."""

    pack: str
    of_model: Posterior
    of_none: Posterior
    gate: Gate = field(default_factory=Gate)
    n_choices: int = 0
    recent: tuple[_Counted, ...] = ()
    met: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def start(cls, with_model: Weights, without_model: Weights, pack: str) -> Learned:
        """Before any choice: the priors of the pack with this id."""
        return cls(pack, Posterior.start(with_model), Posterior.start(without_model))

    @property
    def with_model(self) -> Weights:
        """The belief about the weights when vectors take part."""
        return self.of_model.weights

    @property
    def without_model(self) -> Weights:
        """The belief about the weights of tier 0 alone."""
        return self.of_none.weights

    def after(self, choice: Choice) -> Learned:
        """What is known after one more choice; a choice made under another pack changes nothing."""
        return replay(self, (choice,))


def begin(with_model: Weights, without_model: Weights, pack: str) -> Learned:
    """What a service with the pack of this id and these priors knows before any choice.

    Columns that only the device can fill are among its weights.
    """
    wider = with_priors(with_model, {**PRIORS, EXPECTED: _AS_EXPECTED})
    return Learned.start(wider, with_priors(without_model, PRIORS), pack)


def replay(start: Learned, choices: Iterable[Choice]) -> Learned:
    """What is known after these choices, oldest first: bit for bit what ``after`` gives one by one."""
    taken: dict[bool, list[tuple[Choice, float, Float64]]] = {True: [], False: []}
    gate, n, recent, met = start.gate, start.n_choices, start.recent, dict(start.met)
    for choice in choices:
        if choice.pack != start.pack:
            continue
        n += 1
        before = [each for each in recent if _same(each, choice)]
        count = choice.count - sum(each.count for each in before)
        if count <= 0:
            continue
        if not before and not choice.against:
            gate = gate.after(choice)
        fresh = before[0].fresh if before else _fresh(choice, met)
        counted = _Counted(choice.list_id, choice.server_place, choice.against, count, fresh)
        recent = (*recent[-_REMEMBERED + 1 :], counted)
        taken[choice.with_model].append((choice, count, fresh))
    return Learned(
        start.pack, start.of_model.after(taken[True]), start.of_none.after(taken[False]), gate, n, recent, met
    )


def _fresh(choice: Choice, met: dict[int, tuple[float, float]]) -> Float64:
    """How much of its appeal each row has left, [m], by what came of it in earlier choices; keeps ``met``.

    What the columns do not say of an item is a factor of its own on its appeal, Gamma(``_ALIKE``,
    ``_ALIKE``) over items. Expected to be chosen E times and chosen C times, its mean is (``_ALIKE`` + C) /
    (``_ALIKE`` + E): a frailty, Clayton, "A model for association in bivariate life tables", 1978. Without it
    one item that is passed over in ten lists would count as ten items.
    """
    if choice.against:
        return np.ones(len(choice.items))
    items = choice.items.tolist()
    known = np.array([met.get(item, (0.0, 0.0)) for item in items])
    expected = choice.expected * choice.count
    for row, item in enumerate(items):
        met.pop(item, None)  # so that the longest unseen are first
        met[item] = (
            known[row, 0] + expected[row],
            known[row, 1] + (choice.count if row == choice.chosen else 0.0),
        )
    for item in list(met)[: max(0, len(met) - _MOST_MET)]:
        del met[item]
    return np.asarray((_ALIKE + known[:, 1]) / (_ALIKE + known[:, 0]), np.float64)


def _same(counted: _Counted, choice: Choice) -> bool:
    return (counted.list_id, counted.place, counted.against) == (
        choice.list_id,
        choice.server_place,
        choice.against,
    )
