"""Metrics against values worked out by hand."""

import math
import subprocess
import sys

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


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 20))
def test_the_library_agrees_with_the_formulas(places: list[int], depth: int) -> None:
    found = np.array(places, np.int64)
    within = [0 < place <= depth for place in places]
    gains = [1 / math.log2(1 + place) if near else 0.0 for place, near in zip(places, within, strict=True)]
    assert metrics.ndcg(found, depth) == pytest.approx(gains, abs=1e-12)
    assert metrics.hits(found, depth).tolist() == within
    assert metrics.reciprocal(found) == pytest.approx([1 / at if at else 0.0 for at in places], abs=1e-12)


def test_without_the_library_measuring_names_the_extra_to_install() -> None:
    code = (
        "import sys; sys.modules['ir_measures'] = None\n"
        "from edge_reranker.errors import Missing\n"
        "from edge_reranker.evaluation import metrics\n"
        "try: metrics.require_library()\n"
        "except Missing as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'edge-reranker[eval]'" in found.stdout


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


def test_a_weight_counts_like_that_many_cases() -> None:
    values, users = np.array([0.1, 0.5, 0.9, 0.3]), list("aabc")
    weights = np.array([1.0, 3.0, 2.0, 1.0])
    repeated = metrics.bootstrap(
        np.repeat(values, weights.astype(int)),
        [u for u, w in zip(users, weights, strict=True) for _ in range(int(w))],
    )
    weighted = metrics.bootstrap(values, users, weights)
    assert (weighted.mean, weighted.low, weighted.high) == pytest.approx(
        (repeated.mean, repeated.low, repeated.high)
    )


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_the_mean_lies_between_the_smallest_and_largest_and_so_does_the_interval(values: list[float]) -> None:
    found = metrics.bootstrap(np.array(values), [str(at % 7) for at in range(len(values))])
    low, high = min(values) - 1e-9, max(values) + 1e-9
    assert low <= found.low <= found.high <= high
    assert low <= found.mean <= high


def test_measuring_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no cases"):
        metrics.bootstrap(np.zeros(0), [])
