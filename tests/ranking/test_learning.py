"""Learning from choices: what was shown, what was chosen, and the fold over it."""

from __future__ import annotations

import numpy as np
import pytest

from edge_reranker.ranking import fusion
from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.learned import Learned, replay
from edge_reranker.ranking.learning.shown import Shown, examination
from edge_reranker.types import EventType
from tests.ranking.made_up import PACK, PRIOR, a_list, clicked

TRUTH = np.array([-0.2, 0.0, 1.5, 0.5, 1.0, 0.5])
START = Learned.start(PRIOR, PRIOR, PACK)


def choices(seed: int, n: int, type_: EventType = EventType.CLICK) -> list[Choice]:
    rng = np.random.default_rng(seed)
    lists = [a_list(rng) for _ in range(n)]
    found = [choice_of(shown, clicked(rng, shown, TRUTH), type_) for shown in lists]
    return [choice for choice in found if choice is not None]


def bits(learned: Learned) -> tuple[object, ...]:
    both = (learned.with_model, learned.without_model)
    numbers = [array.tobytes() for weights in both for array in (weights.mean, weights.covariance)]
    return (*numbers, learned.gate, learned.n_choices)


def test_replaying_the_choices_gives_the_same_bits_as_taking_them_one_by_one() -> None:
    made = choices(0, 60)
    one_by_one = START
    for choice in made:
        one_by_one = one_by_one.after(choice)
    stored = [Choice.decode(choice.encode()) for choice in made]
    assert bits(replay(START, stored)) == bits(one_by_one)
    assert bits(replay(replay(START, stored[:23]), stored[23:])) == bits(one_by_one)
    assert one_by_one.n_choices == 60


def test_a_choice_of_another_pack_changes_nothing() -> None:
    other = Learned.start(PRIOR, PRIOR, "another")
    assert bits(replay(other, choices(0, 5))) == bits(other)


@pytest.mark.parametrize("type_", [EventType.DISLIKE, EventType.HIDE, EventType.SKIP])
def test_what_is_disliked_falls(type_: EventType) -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        shown = a_list(rng)
        item = shown.ids[shown.order[int(rng.integers(10))]]
        choice = choice_of(shown, item, type_)
        assert choice is not None
        assert _score(shown, item, START.after(choice)) < _score(shown, item, START)


def _score(shown: Shown, item: str, learned: Learned) -> float:
    """The item's fused score above the list's mean."""
    scores = fusion.fuse(shown.matrix, shown.names, learned.with_model)
    return float(scores[shown.ids.index(item)] - scores.mean())


@pytest.mark.parametrize("type_", [EventType.LIKE, EventType.PURCHASE, EventType.CLICK, EventType.SHARE])
def test_what_is_liked_is_likelier_afterwards(type_: EventType) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        shown = a_list(rng)
        item = shown.ids[int(rng.integers(20))]
        choice = choice_of(shown, item, type_)
        assert choice is not None
        assert _chance(shown, item, START.after(choice)) > _chance(shown, item, START)


def _chance(shown: Shown, item: str, learned: Learned) -> float:
    """Of being chosen where it was served."""
    scores = fusion.fuse(shown.matrix, shown.names, learned.with_model)[shown.order]
    chances = np.exp(scores) * examination(np.arange(1, len(scores) + 1))
    return float((chances / chances.sum())[shown.order.tolist().index(shown.ids.index(item))])


def test_what_was_shown_survives_encoding() -> None:
    shown = a_list(np.random.default_rng(1), exposure=np.linspace(1, 0.1, 20), by_server=True)
    again = Shown.decode(shown.encode())
    assert again.encode() == shown.encode()
    assert (again.matrix == shown.matrix).all()
    assert (again.ids, again.names, again.pack, again.by_server) == (
        shown.ids,
        shown.names,
        shown.pack,
        shown.by_server,
    )
