"""The window of events that a prompt shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.prompt import Window

lengths = st.lists(st.integers(1, 20), max_size=120)
budgets = st.integers(20, 100)


def shown(window: Window, tokens: list[int]) -> list[tuple[int, int]]:
    """(line, length) of the lines shown."""
    start = window.start([str(line) for line in range(len(tokens))], tokens)
    return list(enumerate(tokens))[start:]


@given(lengths, budgets)
def test_an_event_costs_at_most_twice_its_own_tokens_in_the_long_run(tokens: list[int], budget: int) -> None:
    window = Window(budget)
    before: list[tuple[int, int]] = []
    decoded = 0
    for n in range(1, len(tokens) + 1):
        now = shown(window, tokens[:n])
        same = next((at for at, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), len(before))
        decoded += sum(length for _, length in now[min(same, len(now)) :])
        before = now
        # Each start anew decodes at most half a budget (or one line), after more than half a budget came.
        assert decoded <= 2 * sum(tokens[:n])


@given(lengths.filter(bool), budgets)
def test_the_newest_events_are_shown_within_the_budget(tokens: list[int], budget: int) -> None:
    window = Window(budget)
    for n in range(1, len(tokens) + 1):
        now = shown(window, tokens[:n])
        assert now[-1] == (n - 1, tokens[n - 1])
        assert sum(length for _, length in now) <= budget


@given(lengths, budgets)
def test_a_window_that_was_kept_goes_on_where_it_was(tokens: list[int], budget: int) -> None:
    window = Window(budget)
    for n in range(1, len(tokens) + 1):
        shown(window, tokens[:n])
    names = [str(line) for line in range(len(tokens))]
    assert Window(budget, window.first).start(names, tokens) == window.start(names, tokens)


def test_a_line_longer_than_the_budget_is_shown_alone() -> None:
    assert shown(Window(10), [4, 4, 30]) == [(2, 30)]


def test_without_events_nothing_is_shown() -> None:
    assert shown(Window(10), []) == []


def test_a_forgotten_first_event_starts_the_window_anew() -> None:
    window = Window(10)
    assert window.start(["a", "b", "c"], [4, 4, 4]) == 2
    assert window.start(["b", "d"], [4, 4]) == 0
