"""One at a time: foreground first, then who is due first."""

from __future__ import annotations

import math
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.turns import Turn, Turns


def wait_until_in_line(turns: Turns, n: int) -> None:
    until = time.monotonic() + 5
    while len(turns._line) < n:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_taken_turn_makes_others_wait_until_their_time_is_over() -> None:
    turns = Turns()
    assert turns.take(0)
    start = time.monotonic()
    assert not turns.take(start + 0.05)
    assert time.monotonic() - start >= 0.05
    turns.give_back()
    assert turns.take(0)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([50.0, 60.0, 70.0, math.inf])), max_size=8))
@settings(max_examples=30, deadline=None)
def test_foreground_goes_first_then_who_is_due_first_then_who_came_first(
    waiters: list[tuple[bool, float]],
) -> None:
    turns = Turns()
    assert turns.take(math.inf)
    now = time.monotonic()
    went: list[tuple[bool, float, int]] = []

    def work(background: bool, due_s: float, number: int) -> None:
        assert turns.take(now + due_s, background=background)
        went.append((background, due_s, number))
        turns.give_back()

    threads = []
    for number, (background, due_s) in enumerate(waiters):
        threads.append(threading.Thread(target=work, args=(background, due_s, number)))
        threads[-1].start()
        wait_until_in_line(turns, number + 1)
    turns.give_back()
    for thread in threads:
        thread.join(5)
    assert went == sorted(went)
    assert len(went) == len(waiters)
    assert turns.take(0), "the last one has given it back"


def test_who_gave_up_is_passed_over() -> None:
    turns = Turns()
    assert turns.take(math.inf)
    assert not turns.take(time.monotonic() + 0.01)
    turns.give_back()
    assert turns.take(0)


def test_never_two_at_once_and_none_is_lost_when_many_give_up() -> None:
    turns = Turns()
    inside, most, done, without = [0], [0], [0], [0]
    lock = threading.Lock()

    def work(number: int) -> None:
        for _ in range(100):
            if turns.take(time.monotonic() + 0.0001 * (number + 1), background=number % 2 == 0):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    done[0] += 1
                time.sleep(0.0001)
                with lock:
                    inside[0] -= 1
                turns.give_back()
            else:
                with lock:
                    without[0] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1]
    assert done[0] + without[0] == 800
    assert done[0]
    assert without[0]
    assert turns.take(0)
    assert not turns._line


def test_a_lent_turn_is_anothers_meanwhile_and_comes_back() -> None:
    turns = Turns()
    with Turn(turns, math.inf) as mine:
        assert not turns.take(0)
        with mine.lent():
            assert turns.take(0)
            turns.give_back()
        assert not turns.take(0)
    assert turns.take(0)


def test_a_request_whose_turn_does_not_come_goes_on_and_takes_nobodys() -> None:
    turns = Turns()
    assert turns.take(math.inf)
    with Turn(turns, time.monotonic() + 0.02) as mine:
        assert mine.waited_ms >= 20
        with mine.lent():
            assert not turns.take(0)
    assert not turns.take(0), "it is still with the first"
