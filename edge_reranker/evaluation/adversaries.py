"""Made-up people whose feedback has nothing to do with what the model's columns say, or contradicts it.

Each is one of the log's users as far as the device knows, with other likes than it has reason to expect. What
they like is drawn once; half of it is what they click on, half is held out, as in ``rounds``. The clicks and
the likes are simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import rounds
from edge_reranker.evaluation.lists import NAMES, Lister
from edge_reranker.evaluation.rounds import Person
from edge_reranker.ranking import fusion

Float64 = NDArray[np.float64]

# So many likes of one person, half of them clicked on; of a pool twice as long as a list.
N_LIKED = 50
NO_TASTE = "anything"
SERVERS_TASTE = "what the server has on top"
CONTRARY = "what ours has last"
STRANGER = "a stranger's history"

_SEED = 7


def by_chance(scores: Float64) -> Float64:
    """Everything is liked alike: no order is better than another."""
    return np.ones(len(scores))


def by_server(scores: Float64) -> Float64:
    """What is liked falls with the server's place, 1 / place: no order is better than the server's."""
    return np.asarray(1.0 / np.arange(1, len(scores) + 1), np.float64)


def contrary(scores: Float64) -> Float64:
    """What is liked falls with the place from the end of our order."""
    place_of = np.empty(len(scores))
    place_of[fusion.order(scores)[::-1]] = np.arange(1, len(scores) + 1)
    return np.asarray(1.0 / place_of, np.float64)


TASTES: Mapping[str, Callable[[Float64], Float64]] = MappingProxyType(
    {NO_TASTE: by_chance, SERVERS_TASTE: by_server, CONTRARY: contrary}
)
"""The chances of being liked, by the fused scores of a list in the server's order; both [n]."""


def made_up(
    who: Sequence[Person], lister: Lister, weights: fusion.Weights, taste: str, *, seed: int = _SEED
) -> list[Person]:
    """The same people with likes of one of ``TASTES``, drawn without replacement; ``weights`` make our order.

    They are drawn from the server's first candidates, twice as many as a list has.
    """
    found = []
    for person in who:
        cut = person.cut
        met = {each.item_id for each in cut.history}
        pool = lister.server.candidates(cut.history, met, 2 * lister.n)
        listed = lister.among(cut, pool, known=person.known)
        chances = TASTES[taste](fusion.fuse(listed.matrix, NAMES, weights))
        rng = np.random.default_rng([seed, *cut.user_id.encode(), person.fold])
        # Gumbel's trick: the largest of log chance + noise are a draw without replacement.
        keys = np.log(chances) + rng.gumbel(size=len(chances))
        drawn = [listed.ids[at] for at in np.argsort(-keys, kind="stable")[:N_LIKED]]
        rng.shuffle(drawn)
        held, liked = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
        found.append(
            replace(person, cut=replace(cut, targets=tuple(held)), liked=frozenset(liked), ratings={})
        )
    return found


def strangers(who: Sequence[Person]) -> list[Person]:
    """The same people, each known by the history of the next one: their real likes, and columns of another.

    Of that history, what the person likes later is left out.
    """
    others = [*who[len(rounds.FOLDS) :], *who[: len(rounds.FOLDS)]]
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
