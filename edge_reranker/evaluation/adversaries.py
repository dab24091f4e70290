"""Made-up people whose feedback has nothing to do with what the model's columns say, or contradicts it.

Each is one of the log's users as far as the device knows, with other likes than it has reason to expect: a
chance for every candidate of every list, by which it is clicked, and by which the likes that measure are
drawn. There is always more to click on, so the feedback never dries up. All of it is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation.lists import NAMES, Listed
from edge_reranker.evaluation.rounds import Person
from edge_reranker.ranking import fusion

Float64 = NDArray[np.float64]

NO_TASTE = "anything"
SERVERS_TASTE = "what the server has on top"
CONTRARY = "what ours has last"
STRANGER = "a stranger's history"

# What is surest to please is clicked with this chance once it is examined.
_SUREST = 0.9


def by_chance(listed: Listed, user_id: str, start: fusion.Weights) -> Float64:
    """A chance of its own for every candidate, the square of a uniform one, drawn anew with every event.

    If it stayed, what our order showed first would be what is left over, and the server's the better for it.
    """
    rng = np.random.default_rng([*user_id.encode(), len(listed.known)])
    return np.asarray(rng.random(len(listed.ids)) ** 2, np.float64)


def by_server(listed: Listed, user_id: str, start: fusion.Weights) -> Float64:
    """1 / the server's place: no order is better than the server's."""
    return np.asarray(1.0 / np.arange(1, len(listed.ids) + 1), np.float64)


def contrary(listed: Listed, user_id: str, start: fusion.Weights) -> Float64:
    """1 / the place from the end of the order by the weights ``start``."""
    from_the_end = fusion.order(fusion.fuse(listed.matrix, NAMES, start))[::-1]
    chances = np.empty(len(from_the_end))
    chances[from_the_end] = 1.0 / np.arange(1, len(from_the_end) + 1)
    return chances


TASTES: Mapping[str, Callable[[Listed, str, fusion.Weights], Float64]] = MappingProxyType(
    {NO_TASTE: by_chance, SERVERS_TASTE: by_server, CONTRARY: contrary}
)
"""Chances of being liked, [n], for a list in the server's order, a user and the weights of the start."""


def made_up(who: Sequence[Person], start: fusion.Weights, taste: str) -> list[Person]:
    """The same people with likes of one of ``TASTES``."""
    return [
        replace(
            person,
            cut=replace(person.cut, targets=()),
            liked=frozenset(),
            ratings={},
            appeal=partial(_appeal, TASTES[taste], person.cut.user_id, start),
        )
        for person in who
    ]


def _appeal(
    taste: Callable[[Listed, str, fusion.Weights], Float64],
    user_id: str,
    start: fusion.Weights,
    listed: Listed,
) -> Float64:
    return _SUREST * taste(listed, user_id, start)


def strangers(who: Sequence[Person]) -> list[Person]:
    """The same people, each known by the history of the next one: their real likes, and columns of another.

    Of that history, what the person likes later is left out.
    """
    others = [*who[1:], *who[:1]]
    return [
        replace(
            person,
            known=tuple(
                each
                for each in other.known
                if each.item_id not in person.liked and each.item_id not in person.cut.targets
            ),
        )
        for person, other in zip(who, others, strict=True)
    ]
