"""What a namespace has learned: a pure fold over its choices, so that replaying them gives the same bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.feedback import Choice
from edge_reranker.ranking.learning.gate import Gate
from edge_reranker.ranking.learning.posterior import Posterior

# A look, a stay and a like of one item in one list are one choice; that many are remembered to tell.
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class _Counted:
    """What an item of a list has counted so far."""

    list_id: bytes
    place: int
    against: bool
    count: float


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The weights after this user's choices, and whether to trust them; make one with ``start``."""

    pack: str
    of_model: Posterior
    of_none: Posterior
    gate: Gate = field(default_factory=Gate)
    n_choices: int = 0
    recent: tuple[_Counted, ...] = ()

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


def replay(start: Learned, choices: Iterable[Choice]) -> Learned:
    """What is known after these choices, oldest first: bit for bit what ``after`` gives one by one."""
    taken: dict[bool, list[tuple[Choice, float]]] = {True: [], False: []}
    gate, n, recent = start.gate, start.n_choices, start.recent
    for choice in choices:
        if choice.pack != start.pack:
            continue
        n += 1
        before = sum(each.count for each in recent if _same(each, choice))
        count = choice.count - before
        if count <= 0:
            continue
        if not before and not choice.against:
            gate = gate.after(choice)
        recent = (
            *recent[-_REMEMBERED + 1 :],
            _Counted(choice.list_id, choice.server_place, choice.against, count),
        )
        taken[choice.with_model].append((choice, count))
    return Learned(
        start.pack, start.of_model.after(taken[True]), start.of_none.after(taken[False]), gate, n, recent
    )


def _same(counted: _Counted, choice: Choice) -> bool:
    return (counted.list_id, counted.place, counted.against) == (
        choice.list_id,
        choice.server_place,
        choice.against,
    )
