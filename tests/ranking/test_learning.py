"""Learning from choices: what was shown, what was chosen, and the fold over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.ranking import fusion
from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.learned import Learned, replay
from edge_reranker.ranking.learning.shown import Shown, examination
from edge_reranker.types import EventType
from tests.ranking.made_up import NAMES, PACK, PRIOR, a_list, clicked

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


def test_a_look_a_stay_and_a_like_of_one_item_of_one_list_count_as_the_most_of_them() -> None:
    shown = a_list(np.random.default_rng(6))
    of = {type_: choice_of(shown, "i5", type_) for type_ in (EventType.VIEW, EventType.CLICK, EventType.LIKE)}
    made = [choice for choice in of.values() if choice is not None]
    together, liked = replay(START, made), replay(START, made[-1:])
    modes = [each.of_model.in_one_batch().mean for each in (together, liked)]
    assert modes[0] == pytest.approx(modes[1])
    again = replay(together, made * 3)
    assert (again.with_model.mean == together.with_model.mean).all()
    assert (together.n_choices, again.n_choices) == (3, 12)


def test_what_was_passed_over_again_and_again_is_no_news_again_and_again() -> None:
    """Ten lists of the same items teach less than ten lists of new ones."""
    rng = np.random.default_rng(9)
    lists = [a_list(rng) for _ in range(10)]
    of_new = [replace(each, ids=tuple(f"{at}-{i}" for i in each.ids)) for at, each in enumerate(lists)]
    shifted = []
    for each in (lists, of_new):
        made = [choice_of(shown, shown.ids[shown.order[12]], EventType.CLICK) for shown in each]
        learned = replay(START, [choice for choice in made if choice])
        shifted.append(np.trace(learned.with_model.covariance))
    assert shifted[0] > shifted[1]


def test_the_weights_that_made_the_order_are_those_that_learn() -> None:
    shown = a_list(np.random.default_rng(7), with_model=False)
    choice = choice_of(shown, "i2", EventType.LIKE)
    assert choice is not None
    after = START.after(choice)
    assert (after.with_model.mean == START.with_model.mean).all()
    assert (after.without_model.mean != START.without_model.mean).any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(EventType)), max_size=30), st.floats(0, 3e38))
def test_whatever_is_fed_back_the_weights_stay_finite_and_their_covariance_positive(
    events: list[tuple[int, EventType]], scale: float
) -> None:
    rng = np.random.default_rng(8)
    made = []
    for row, type_ in events:
        matrix = np.array(rng.choice([-scale, 0.0, scale, 1.0], size=(5, len(NAMES))), np.float32)
        shown = a_list(rng, n=5)
        shown = Shown(
            shown.ids, NAMES, shown.weights, matrix.astype(float), shown.order, shown.ours, True, PACK
        )
        choice = choice_of(shown, f"i{row}", type_, dwell_s=10.0)
        made += [] if choice is None else [choice]
    learned = replay(START, made)
    assert np.isfinite(learned.with_model.mean).all()
    assert (np.linalg.eigvalsh(learned.with_model.covariance) > 0).all()
    assert 0 <= learned.gate.capital < np.inf
