"""The planner's laws, for both ways of laying candidates out."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.engine.planner import (
    MIN_TOKENS,
    Batch,
    Limits,
    cost,
    plan,
    plan_unified,
    total_cost,
)

Plan = Callable[[Sequence[Sequence[int]], Limits, float], list[Batch]]
both = pytest.mark.parametrize("planner", [plan, plan_unified])

# Two token ids, so that many suffixes share their beginnings, and some are equal.
suffix_lists = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=60)
limits = st.builds(Limits, st.integers(1, 20), st.integers(12, 128))
affordable = st.one_of(st.just(math.inf), st.floats(0, 300))


def naive(suffixes: Sequence[Sequence[int]]) -> int:
    """One suffix at a time, nothing shared."""
    return sum(cost(max(MIN_TOKENS, len(suffix))) for suffix in suffixes)


@both
@given(suffix_lists, limits, affordable)
def test_every_suffix_is_in_exactly_one_batch(
    planner: Plan, suffixes: list[list[int]], limits: Limits, affordable: float
) -> None:
    batches = planner(suffixes, limits, affordable)
    assert sorted(index for batch in batches for index in batch.indices) == list(range(len(suffixes)))


@both
@given(suffix_lists, limits, affordable)
def test_no_batch_passes_its_limits(
    planner: Plan, suffixes: list[list[int]], limits: Limits, affordable: float
) -> None:
    for batch in planner(suffixes, limits, affordable):
        assert 1 <= len(batch.indices) <= limits.max_sequences
        assert batch.n_tokens <= limits.max_tokens


@both
@pytest.mark.parametrize("length", [3, 4, 8, 32])
@pytest.mark.parametrize("n", [5, 100, 1_000])
def test_many_suffixes_of_one_length_are_planned_in_no_time(planner: Plan, length: int, n: int) -> None:
    source = random.Random(length)
    suffixes = [[source.randrange(4) for _ in range(length)] for _ in range(n)]
    begun = time.perf_counter()
    batches = planner(suffixes, Limits(20, 512), math.inf)
    assert sorted(index for batch in batches for index in batch.indices) == list(range(n))
    assert time.perf_counter() - begun < 2.0, "seconds for what takes milliseconds"


def test_a_short_suffix_does_not_keep_the_others_from_sharing() -> None:
    suffixes = [[7] * 12 + [index, 1] for index in range(12)] + [[7, 7, 7]]
    assert {batch.shared for batch in plan(suffixes, Limits(20, 512), math.inf)} >= {12}


@both
@given(suffix_lists, limits)
def test_a_plan_never_costs_more_than_one_suffix_at_a_time(
    planner: Plan, suffixes: list[list[int]], limits: Limits
) -> None:
    assert total_cost(planner(suffixes, limits, math.inf)) <= naive(suffixes)


@given(suffix_lists, limits, affordable)
def test_the_suffixes_of_a_batch_share_what_it_says_and_fit_its_length(
    suffixes: list[list[int]], limits: Limits, affordable: float
) -> None:
    for batch in plan(suffixes, limits, affordable):
        assert len({tuple(suffixes[index][: batch.shared]) for index in batch.indices}) == 1
        own = [len(suffixes[index]) - batch.shared for index in batch.indices]
        assert batch.length == max(MIN_TOKENS, *own)
        assert batch.n_tokens == batch.length * len(own)
        assert min(own) >= min(MIN_TOKENS, *(len(suffixes[index]) for index in batch.indices))


@given(suffix_lists, limits)
def test_a_plan_costs_what_its_decodes_and_copies_cost(suffixes: list[list[int]], limits: Limits) -> None:
    decoded: tuple[int, ...] = ()
    paid = 0.0
    for batch in plan(suffixes, limits, math.inf):
        shared = tuple(suffixes[batch.indices[0]][: batch.shared])
        known = own_prefix(decoded, shared)
        if shared[known:]:
            paid += cost(max(MIN_TOKENS, len(shared) - known))
        paid += cost(batch.n_tokens)
        decoded = shared
    # The plan counts the copies too, and never less than what is decoded.
    assert paid <= total_cost(plan(suffixes, limits, math.inf)) + 1e-9


def own_prefix(before: tuple[int, ...], now: tuple[int, ...]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), min(len(before), len(now))
    )


@given(suffix_lists, limits)
def test_a_unified_batch_decodes_each_node_of_its_trie_once(
    suffixes: list[list[int]], limits: Limits
) -> None:
    for batch in plan_unified(suffixes, limits, math.inf):
        inside = {tuple(suffixes[i][:at]) for i in batch.indices for at in range(1, len(suffixes[i]))}
        # The last token of each is a node of its own, because it is read.
        assert batch.n_tokens == len(inside) + len(batch.indices)


@both
@given(suffix_lists, limits, st.randoms(use_true_random=False))
def test_a_permuted_request_gives_batches_of_the_same_content(
    planner: Plan, suffixes: list[list[int]], limits: Limits, source: random.Random
) -> None:
    shuffled = source.sample(suffixes, len(suffixes))

    def contents(given: list[list[int]]) -> list[list[list[int]]]:
        return sorted([given[index] for index in batch.indices] for batch in planner(given, limits, math.inf))

    assert contents(shuffled) == contents(suffixes)


@both
@given(suffix_lists, limits, st.floats(1, 300))
def test_what_there_is_time_for_comes_first_and_is_the_head_of_the_request(
    planner: Plan, suffixes: list[list[int]], limits: Limits, affordable: float
) -> None:
    batches = planner(suffixes, limits, affordable)
    head: set[int] = set()
    spent = 0.0
    for batch in batches:
        spent += batch.cost
        if spent > affordable:
            break
        head |= set(batch.indices)
    assert head == set(range(len(head)))
    assert head or total_cost(planner(suffixes[:1], limits, math.inf)) > affordable


@both
def test_what_comes_first_is_reached_in_an_earlier_wave_when_there_is_no_time(planner: Plan) -> None:
    suffixes = [[index, 1, 2] for index in range(50)]
    tops = [batch.indices for batch in planner(suffixes, Limits(10, 100), 0.0)]
    assert all(max(earlier) < min(later) for earlier, later in itertools.pairwise(tops))


def test_a_long_common_beginning_is_decoded_once_for_those_who_have_it() -> None:
    series = [[7, 7, 7, 7, 7, 7, index, 1] for index in range(10)]
    others = [[100 + index, 2, 3, 4] for index in range(10)]
    batches = plan(series + others, Limits(20, 512), math.inf)
    assert sorted((batch.shared, sorted(batch.indices)) for batch in batches) == [
        (0, list(range(10, 20))),
        (6, list(range(10))),
    ]


@both
@pytest.mark.parametrize("bad", [[], [1] * 257])
def test_a_length_that_cannot_be_decoded_is_refused(planner: Plan, bad: list[int]) -> None:
    with pytest.raises(ValueError, match="allowed are 1 to 256"):
        planner([[1, 2, 3], bad], Limits(4, 256), math.inf)


@both
def test_nothing_needs_no_plan(planner: Plan) -> None:
    assert planner([], Limits(4, 256), math.inf) == []
