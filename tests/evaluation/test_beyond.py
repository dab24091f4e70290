"""Figures beyond accuracy against values worked out by hand, and the laws they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.evaluation import beyond
from edge_reranker.evaluation.beyond import Predicted
from edge_reranker.types import Item

TAGGED = st.lists(
    st.lists(st.sampled_from("abcde"), max_size=3, unique=True).map(lambda tags: Item("i", tags=tuple(tags))),
    max_size=8,
)
CRIME, LOVE, BOTH, PLAIN = (
    Item("1", tags=("Crime",)),
    Item("2", tags=("Romance",)),
    Item("3", tags=("crime", "Romance")),
    Item("4"),
)


def drawn(n_users: int, true: list[float], told: list[float] | None = None, each: int = 5) -> list[Predicted]:
    """Lists whose choices come with the chances ``true``, of which ``told`` was predicted."""
    rng = np.random.default_rng(0)
    return [
        Predicted(f"u{at}", np.array(told or true), rng.multinomial(each, true).astype(float))
        for at in range(n_users)
    ]


def test_an_item_counts_once_however_many_tags_it_has() -> None:
    assert beyond.tag_shares([BOTH, CRIME, PLAIN]) == {"crime": 0.75, "romance": 0.25}


def test_divergence_of_a_list_that_lacks_half_of_what_is_liked() -> None:
    # p = (1/2, 1/2), q = (1, 0): smoothed (.995, .005)
    expected = 0.5 * math.log(0.5 / 0.995) + 0.5 * math.log(0.5 / 0.005)
    assert beyond.divergence([CRIME, LOVE], [CRIME]) == pytest.approx(expected)


def test_divergence_is_zero_for_equal_shares_and_as_far_as_can_be_without_a_common_tag() -> None:
    assert beyond.divergence([CRIME, LOVE], [BOTH, BOTH, PLAIN]) == pytest.approx(0.0, abs=1e-12)
    assert beyond.divergence([CRIME], [LOVE]) == pytest.approx(beyond.MAX_DIVERGENCE)
    assert beyond.divergence([CRIME], [PLAIN]) == pytest.approx(beyond.MAX_DIVERGENCE)


def test_divergence_from_a_history_without_tags_is_not_known() -> None:
    assert math.isnan(beyond.divergence([PLAIN], [CRIME]))


@given(TAGGED, TAGGED)
def test_divergence_is_bounded_and_zero_to_itself(history: list[Item], listed: list[Item]) -> None:
    found = beyond.divergence(history, listed)
    if any(item.tags for item in history):
        assert 0.0 <= found <= beyond.MAX_DIVERGENCE
        assert beyond.divergence(history, history) == pytest.approx(0.0, abs=1e-12)
        equal = beyond.tag_shares(history) == pytest.approx(beyond.tag_shares(listed))
        assert (found < 1e-9) == equal
    else:
        assert math.isnan(found)


def test_distance_is_one_less_the_mean_cosine_of_all_pairs() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert beyond.intra_list_distance(vectors) == pytest.approx(1 - (0 + 2 / math.sqrt(2)) / 3)
    assert beyond.intra_list_distance(beyond.tag_vectors([CRIME, LOVE, BOTH])) == pytest.approx(
        1 - (0 + 2 / math.sqrt(2)) / 3
    )


def test_what_says_nothing_is_left_out_of_the_distance() -> None:
    assert beyond.intra_list_distance(beyond.tag_vectors([CRIME, PLAIN, LOVE])) == 1.0
    assert math.isnan(beyond.intra_list_distance(beyond.tag_vectors([CRIME, PLAIN])))
    assert math.isnan(beyond.intra_list_distance(beyond.tag_vectors([])))


@given(TAGGED)
def test_distance_is_bounded_blind_to_order_and_zero_for_copies(items: list[Item]) -> None:
    found = beyond.intra_list_distance(beyond.tag_vectors(items))
    if sum(bool(item.tags) for item in items) < 2:
        assert math.isnan(found)
        return
    assert 0.0 <= found <= 1.0
    assert beyond.intra_list_distance(beyond.tag_vectors(items[::-1])) == pytest.approx(found)
    tagged = next(item for item in items if item.tags)
    assert beyond.intra_list_distance(beyond.tag_vectors([tagged] * 3)) == pytest.approx(0.0, abs=1e-12)


def test_chances_sum_to_one_whatever_the_scores() -> None:
    assert beyond.chances(np.array([0.0, math.log(3)])).tolist() == pytest.approx([0.25, 0.75])
    assert beyond.chances(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]


def test_the_calibration_error_by_hand() -> None:
    # 4 choices among two candidates of .25 and .75: 2 and 2 came. Both bins are off by .25.
    found = beyond.reliability([Predicted("u", np.array([0.25, 0.75]), np.array([2.0, 2.0]))], n_bins=2)
    assert found is not None
    assert found.ece == pytest.approx(0.25)
    assert [each.predicted for each in found.bins] == pytest.approx([0.25, 0.75])
    assert [each.observed.mean for each in found.bins] == pytest.approx([0.5, 0.5])
    assert found.n_choices == 4


def test_chances_that_come_true_have_no_error() -> None:
    chances = np.array([0.1, 0.2, 0.3, 0.4])
    found = beyond.reliability([Predicted("u", chances, 10 * chances)], n_bins=4)
    assert found is not None
    assert found.ece == pytest.approx(0.0, abs=1e-12)


def test_a_true_model_stays_below_its_error_by_chance_and_an_overconfident_one_does_not() -> None:
    true = [0.1, 0.2, 0.3, 0.4]
    honest = beyond.reliability(drawn(300, true))
    boasting = beyond.reliability(drawn(300, true, [0.02, 0.08, 0.2, 0.7]))
    assert honest is not None
    assert boasting is not None
    assert 0 < honest.ece <= honest.ece_by_chance < 0.03
    assert boasting.ece > 3 * boasting.ece_by_chance
    top = boasting.bins[-1]
    assert top.observed.high < top.predicted


def test_the_error_by_chance_shrinks_with_the_root_of_the_choices() -> None:
    few, many = (beyond.reliability(drawn(n, [0.1, 0.2, 0.3, 0.4])) for n in (50, 800))
    assert few is not None
    assert many is not None
    assert few.ece_by_chance / many.ece_by_chance == pytest.approx(4.0, rel=0.25)


def test_where_in_its_list_a_candidate_stands_changes_no_error() -> None:
    plain = drawn(200, [0.1, 0.2, 0.3, 0.4])
    turned = [
        Predicted(each.user_id, each.chances[::-1], each.counts[::-1]) if at % 2 else each
        for at, each in enumerate(plain)
    ]
    before, after = beyond.reliability(plain), beyond.reliability(turned)
    assert before is not None
    assert after is not None
    assert after.ece == pytest.approx(before.ece)
    assert after.ece_by_chance == pytest.approx(before.ece_by_chance)


def test_equal_chances_share_a_bin_and_the_rest_are_parted_evenly() -> None:
    even = beyond.reliability(drawn(5, [0.25] * 4))
    assert even is not None
    assert len(even.bins) == 1
    rng = np.random.default_rng(1)
    lists = [Predicted(f"u{at}", rng.dirichlet(np.ones(20)), np.eye(20)[at]) for at in range(20)]
    parted = beyond._bins(np.concatenate([each.chances for each in lists]), np.ones(400), 10)
    assert np.bincount(parted).tolist() == [40] * 10


def test_lists_of_other_lengths_and_without_a_choice_are_no_obstacle() -> None:
    none = Predicted("a", np.array([0.5, 0.5]), np.zeros(2))
    found = beyond.reliability([none, Predicted("b", np.array([0.2, 0.3, 0.5]), np.array([0.0, 0.0, 1.0]))])
    assert found is not None
    assert found.n_choices == 1
    assert beyond.reliability([none]) is None


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=5), min_size=1, max_size=6))
def test_the_error_is_between_zero_and_one(counts: list[list[int]]) -> None:
    rng = np.random.default_rng(sum(map(sum, counts)))
    lists = [
        Predicted(f"u{at % 3}", rng.dirichlet(np.ones(len(each))), np.array(each, float))
        for at, each in enumerate(counts)
    ]
    found = beyond.reliability(lists)
    if found is None:
        assert not any(map(sum, counts))
    else:
        assert 0.0 <= found.ece <= 1.0
        assert all(each.observed.low <= each.observed.mean <= each.observed.high for each in found.bins)
