"""The planner's laws."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.engine.planner import MIN_TOKENS, cost, plan, shared_length

lengths = st.lists(st.integers(1, 64), max_size=120)
sequences = st.integers(1, 20)


@given(lengths, sequences)
def test_every_suffix_is_in_exactly_one_batch(lengths: list[int], max_sequences: int) -> None:
    waves = plan(lengths, max_sequences=max_sequences, max_tokens=256)
    assert sorted(i for wave in waves for batch in wave for i in batch.indices) == list(range(len(lengths)))


@given(lengths, sequences)
def test_no_batch_passes_its_limits_and_all_fit_their_batch(lengths: list[int], max_sequences: int) -> None:
    for wave in plan(lengths, max_sequences=max_sequences, max_tokens=256):
        for batch in wave:
            assert len(batch.indices) <= max_sequences
            assert batch.length * len(batch.indices) <= 256
            assert batch.length == max(MIN_TOKENS, *(lengths[i] for i in batch.indices))


@given(lengths, sequences)
def test_a_plan_never_costs_more_than_one_suffix_at_a_time(lengths: list[int], max_sequences: int) -> None:
    waves = plan(lengths, max_sequences=max_sequences, max_tokens=256)
    planned = sum(cost(batch.n_tokens) for wave in waves for batch in wave)
    assert planned <= sum(cost(max(MIN_TOKENS, length)) for length in lengths)


@given(lengths, sequences)
def test_what_comes_first_is_reached_in_an_earlier_wave(lengths: list[int], max_sequences: int) -> None:
    waves = plan(lengths, max_sequences=max_sequences, max_tokens=256)
    tops = [[i for batch in wave for i in batch.indices] for wave in waves]
    assert all(max(earlier) < min(later) for earlier, later in itertools.pairwise(tops))


@pytest.mark.parametrize("bad", [0, -1, 257])
def test_a_length_that_cannot_be_decoded_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match="allowed are 1 to 256"):
        plan([3, bad], max_sequences=4, max_tokens=256)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12))
def test_what_all_suffixes_begin_with_is_shared_and_two_tokens_are_left(suffixes: list[list[int]]) -> None:
    shared = shared_length(suffixes)
    left = min(map(len, suffixes)) - shared
    assert all(suffix[:shared] == suffixes[0][:shared] for suffix in suffixes)
    assert left >= MIN_TOKENS or shared == 0
    if left > MIN_TOKENS:
        assert len({suffix[shared] for suffix in suffixes}) > 1, "one more token could be shared"


def test_nothing_is_shared_without_suffixes_or_with_an_empty_one() -> None:
    assert shared_length([]) == shared_length([[], [1, 2]]) == 0
