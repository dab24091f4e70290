"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.evaluation import metrics

PLACES = np.array([1, 3, 0, 10, 11])


def test_ndcg_of_one_relevant_item_is_one_over_log_two_of_its_place_plus_one() -> None:
    assert metrics.ndcg(PLACES) == pytest.approx([1.0, 0.5, 0.0, 1 / math.log2(11), 0.0])


def test_reciprocal_rank_counts_the_whole_list() -> None:
    assert metrics.reciprocal(PLACES) == pytest.approx([1.0, 1 / 3, 0.0, 0.1, 1 / 11])


def test_hits_count_targets_up_to_the_depth() -> None:
    assert metrics.hits(PLACES, 1).tolist() == [1, 0, 0, 0, 0]
    assert metrics.hits(PLACES, 10).tolist() == [1, 1, 0, 1, 0]


def test_quality_means_over_all_cases_and_hits_only_where_the_list_has_the_target() -> None:
    found = metrics.quality(PLACES, ["a", "a", "b", "b", "c"])
    total = 1.0 + 0.5 + 1 / math.log2(11)
    assert found.ndcg10.mean == pytest.approx(total / 5)
    assert found.ndcg10_hits_only == pytest.approx(total / 4)
    assert (found.hr1, found.hr5, found.hr10) == pytest.approx((0.2, 0.4, 0.6))


def test_lists_that_never_have_the_target_score_zero() -> None:
    found = metrics.quality(np.zeros(3, np.int64), ["a", "b", "c"])
    assert found.ndcg10 == metrics.Interval(0.0, 0.0, 0.0)
    assert found.ndcg10_hits_only == found.mrr == found.hr10 == 0.0


def test_comparing_counts_users_not_cases() -> None:
    after = np.array([1, 1, 2, 0, 3])
    before = np.array([2, 2, 1, 0, 3])
    found = metrics.compare(after, before, ["a", "a", "b", "c", "c"])
    assert (found.users_better, found.users_same, found.users_worse) == (1, 1, 1)
    assert found.ndcg10.mean == pytest.approx((1 - 1 / math.log2(3)) / 5)


def test_an_order_compared_with_itself_changes_nothing() -> None:
    found = metrics.compare(PLACES, PLACES, list("aabbc"))
    assert found.ndcg10 == metrics.Interval(0.0, 0.0, 0.0)
    assert found.users_same == 3


def test_the_interval_resamples_users_so_repeating_each_users_cases_does_not_narrow_it() -> None:
    rng = np.random.default_rng(0)
    values, users = rng.normal(size=50), [str(at) for at in range(50)]
    once = metrics.bootstrap(values, users)
    often = metrics.bootstrap(np.repeat(values, 20), [user for user in users for _ in range(20)])
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_the_interval_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(1).normal(size=400)
    found = metrics.bootstrap(values, [str(at) for at in range(400)])
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_the_mean_lies_between_the_smallest_and_largest_and_so_does_the_interval(values: list[float]) -> None:
    found = metrics.bootstrap(np.array(values), [str(at % 7) for at in range(len(values))])
    low, high = min(values) - 1e-9, max(values) + 1e-9
    assert low <= found.low <= found.high <= high
    assert low <= found.mean <= high


def test_measuring_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no cases"):
        metrics.bootstrap(np.zeros(0), [])
