"""How like two rankings, distributions or sets of vectors are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker_quantize.agreement import (
    Rankings,
    divergence,
    likeness,
    log_softmax,
    place,
    tau,
    vector_error,
)

SCORES = st.lists(st.integers(-50, 50), min_size=2, max_size=12, unique=True).map(
    lambda values: np.array(values, np.float32)
)


@given(SCORES)
def test_a_ranking_agrees_with_itself_and_not_with_its_reverse(scores: np.ndarray) -> None:
    assert tau(scores, scores * 2 + 1) == pytest.approx(1)
    assert tau(scores, -scores) == pytest.approx(-1)


def test_one_exchange_of_neighbours_costs_two_pairs() -> None:
    assert tau(np.array([4.0, 3, 2, 1]), np.array([3.0, 4, 2, 1])) == pytest.approx(1 - 2 / 6)


def test_a_ranking_that_ties_everything_says_nothing() -> None:
    flat = np.zeros(4)
    assert tau(flat, np.arange(4.0)) == 0
    assert tau(flat, flat) == 1


def test_of_equals_the_first_given_comes_first() -> None:
    scores = np.array([1.0, 2.0, 2.0, 0.0])
    assert [place(scores, at) for at in range(4)] == [3, 1, 2, 4]


def rankings(scores: list[np.ndarray], targets: list[int]) -> Rankings:
    users = [f"u{at}" for at in range(len(scores))]
    return Rankings(users, scores, [[place(each, at)] for each, at in zip(scores, targets, strict=True)])


def test_likeness_tells_what_changed_for_the_better_and_the_worse() -> None:
    before = [np.arange(8.0)[::-1], np.arange(8.0)[::-1]]
    reference = rankings(before, [0, 1])
    same = likeness(reference, reference)
    assert (same.tau.mean, same.top5, same.change.mean) == (pytest.approx(1), 1.0, 0.0)
    worse = likeness(rankings([-before[0], before[1]], [0, 1]), reference)
    assert worse.tau.mean == pytest.approx(0)
    assert worse.change.mean == pytest.approx((1 / np.log2(9) - 1) / 2)
    assert worse.top5 == pytest.approx((2 / 5 + 1) / 2)


def test_no_divergence_from_oneself_and_the_known_one_from_another() -> None:
    reference = log_softmax(np.log(np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]])))
    same = divergence(reference, reference)
    assert (same.mean, same.top1, same.n_positions) == (0.0, 1.0, 2)
    other = log_softmax(np.log(np.array([[0.25, 0.5, 0.25], [0.9, 0.05, 0.05]])))
    found = divergence(other, reference)
    assert found.mean == pytest.approx(0.25 * np.log(2) / 2)
    assert found.top1 == 0.5


def test_log_probabilities_of_large_logits_are_finite_and_sum_to_one() -> None:
    found = log_softmax(np.array([[1e4, 1e4 - 1, -1e4]], np.float32))
    assert np.isfinite(found).all()
    assert np.exp(found).sum() == pytest.approx(1)


def test_the_error_of_vectors_is_relative_to_their_length() -> None:
    reference = np.array([[3.0, 4.0], [0.0, 10.0]])
    found = vector_error(np.array([[3.0, 4.0], [1.0, 10.0]]), reference)
    assert found.mean == pytest.approx(0.05)
    assert found.least_cosine == pytest.approx(10 / np.sqrt(101))
