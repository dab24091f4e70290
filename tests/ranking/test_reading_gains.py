"""What reading one more candidate is worth, and what stands in for those that were not read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_reranker.ranking import effort, fusion
from edge_reranker.ranking.features import FEATURES
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.partly import EXPECTED, weighed

Float64 = NDArray[np.float64]
TOWERS = FEATURES.index("towers")

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int) -> tuple[Float64, Float64]:
    """Scores of ``n`` candidates, and how far reading moves each; some were read."""
    random = np.random.default_rng(seed)
    return random.standard_normal(n), np.abs(random.standard_normal(n)) * (random.random(n) < 0.8)


def worth(scores: Float64, order: Float64, depth: int) -> float:
    chances = np.exp(scores) / np.exp(scores).sum()
    return float(sum(chances[at] / np.log2(2 + place) for place, at in enumerate(order[:depth])))


@settings(deadline=None)
@given(seed=seeds, n=st.integers(1, 14), depth=st.integers(1, 12))
def test_a_gain_is_what_sorting_anew_gains_in_the_mean(seed: int, n: int, depth: int) -> None:
    """Against the definition, taken literally: read, sort all again, and look what the list is worth."""
    scores, deviations = drawn(seed, n)
    before = np.argsort(-scores, kind="stable")
    expected = np.zeros(n)
    for at in range(n):
        for node, weight in zip(effort._NODES, effort._WEIGHTS, strict=True):
            moved = scores.copy()
            moved[at] += node * deviations[at]
            after = np.argsort(-moved, kind="stable")
            expected[at] += weight * (worth(moved, after, depth) - worth(moved, before, depth))
    assert effort.gains(scores, deviations, depth) == pytest.approx(expected, abs=1e-12)


@given(seed=seeds, n=st.integers(1, 200), depth=st.integers(1, 20))
def test_nothing_is_gained_by_reading_what_was_read_or_cannot_come_among_the_first(
    seed: int, n: int, depth: int
) -> None:
    scores, deviations = drawn(seed, n)
    gains = effort.gains(scores, deviations, depth)
    first = np.sort(scores)[::-1][min(n, depth) - 1]
    hopeless = scores + 7 * deviations < first
    assert (gains >= 0).all()
    assert (gains[(deviations == 0) | hopeless] == 0).all()


@given(seed=seeds, depth=st.integers(1, 10))
def test_two_that_may_change_places_at_the_top_are_worth_reading(seed: int, depth: int) -> None:
    """However settled the rest of the list is."""
    scores, deviations = drawn(seed, 50)
    scores[:2] = scores.max() + 3.0
    deviations[:2] = 0.5
    assert (effort.gains(scores, deviations, depth)[:2] > effort.PRICE).all()


@given(seed=seeds, n=st.integers(1, 100))
def test_gains_follow_the_candidates_whatever_their_order(seed: int, n: int) -> None:
    scores, deviations = drawn(seed, n)
    shuffled = np.random.default_rng(seed).permutation(n)
    gains = effort.gains(scores, deviations)
    assert effort.gains(scores[shuffled], deviations[shuffled]) == pytest.approx(gains[shuffled], abs=1e-12)
    assert effort.gains(scores + 500.0, deviations) == pytest.approx(gains, abs=1e-9)


def test_the_choice_of_equals_has_most_entropy_and_a_certain_one_none() -> None:
    assert effort.entropy(np.zeros(8)) == pytest.approx(3.0)
    assert effort.entropy(np.array([1_000.0, 0.0, 0.0])) == 0.0
    assert effort.entropy(np.array([0.0])) == 0.0


@given(seed=seeds, m=st.integers(0, 60), usual=st.floats(0.01, 3.0), shift=st.floats(-5.0, 5.0))
def test_how_far_reading_moves_scores_is_between_the_usual_and_what_was_seen(
    seed: int, m: int, usual: float, shift: float
) -> None:
    surprises = np.random.default_rng(seed).standard_normal(m)
    found = effort.deviation(surprises, usual)
    seen = float(surprises.std(ddof=1)) if m > 1 else usual
    assert min(usual, seen) - 1e-9 <= found <= max(usual, seen) + 1e-9
    assert effort.deviation(surprises + shift, usual) == pytest.approx(found)


def test_many_that_were_read_outweigh_the_usual() -> None:
    assert effort.deviation(np.tile([-2.0, 2.0], 5_000), 0.1) == pytest.approx(2.0, rel=0.01)


def part_read(seed: int, n: int) -> tuple[Float64, NDArray[np.bool_], Weights, Weights]:
    """A matrix whose towers are filled where read, and weights with and without the model."""
    random = np.random.default_rng(seed)
    read = random.random(n) < 0.5
    matrix = np.zeros((n, len(FEATURES)))
    matrix[:, 0] = -np.log(np.arange(1, n + 1))
    for name in ("tags", "item_to_item"):
        matrix[:, FEATURES.index(name)] = random.standard_normal(n)
    matrix[read, TOWERS] = random.standard_normal(int(read.sum()))
    ours = Weights(("tags", "item_to_item", "towers"), np.array([0.5, 1.0, 2.0]), np.eye(3))
    return matrix, read, ours, Weights(("tags", "item_to_item"), np.array([1.0, 2.0]), np.eye(2))


@given(seed=seeds, n=st.integers(1, 40))
def test_one_that_was_not_read_stands_to_others_as_it_stood_without_the_model(seed: int, n: int) -> None:
    matrix, read, ours, without = part_read(seed, n)
    found = weighed(matrix, FEATURES, read, ours, without)
    foretold = fusion.fuse(matrix, FEATURES, without)
    left = found.scores[~read] - foretold[~read]
    assert left == pytest.approx(np.full(len(left), left[0] if len(left) else 0.0))
    if read.any():
        with_model = fusion.fuse(matrix, FEATURES, ours)
        assert found.scores[read] == pytest.approx(with_model[read])
        shift = with_model[read].mean() - foretold[read].mean()
        assert left == pytest.approx(np.full(len(left), shift)), (
            "being read is neither good nor bad by itself"
        )


@given(seed=seeds, n=st.integers(1, 40))
def test_scores_of_a_list_read_in_part_are_the_sum_of_their_contributions(seed: int, n: int) -> None:
    found = weighed(*_given(seed, n))
    parts = fusion.contributions(found.matrix, found.names, found.weights)
    assert sum(parts.values()) == pytest.approx(found.scores)
    assert np.array_equal(fusion.fuse(found.matrix, found.names, found.weights), found.scores)


def _given(seed: int, n: int) -> tuple[Float64, tuple[str, ...], NDArray[np.bool_], Weights, Weights]:
    matrix, read, ours, without = part_read(seed, n)
    return matrix, FEATURES, read, ours, without


def test_a_list_read_whole_or_not_at_all_is_weighed_as_it_is() -> None:
    matrix, _, ours, without = part_read(3, 10)
    matrix[:, TOWERS] = np.arange(10.0) - 4.5
    whole = weighed(matrix, FEATURES, np.ones(10, np.bool_), ours, without)
    assert (whole.names, whole.weights) == (FEATURES, ours)
    assert np.array_equal(whole.scores, fusion.fuse(matrix, FEATURES, ours))
    matrix[:, TOWERS] = 0.0
    none = weighed(matrix, FEATURES, np.zeros(10, np.bool_), ours, without)
    assert (none.names, none.weights) == (FEATURES, without)
    assert EXPECTED not in FEATURES, "a column of this name would be filled twice"
