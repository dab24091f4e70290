"""One at a time: foreground first, then who is due first."""

from __future__ import annotations

import math
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.turns import Shares, Turn, Turns


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


def test_an_app_that_floods_takes_turns_with_the_rest() -> None:
    """Whatever it says of when its work is due."""
    turns = Turns()
    assert turns.take(math.inf, app="flood")
    went: list[str] = []

    def work(app: str, due_s: float) -> None:
        assert turns.take(due_s, app=app)
        time.sleep(0.01)
        went.append(app)
        turns.give_back()

    now = time.monotonic()
    waiting = [("flood", now + 50)] * 6 + [("other", now + 60)] * 2
    threads = [threading.Thread(target=work, args=each) for each in waiting]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until_in_line(turns, number + 1)
    time.sleep(0.01)
    turns.give_back()
    for thread in threads:
        thread.join(5)
    assert went[0] == "other"
    assert went.index("other", 1) <= 3
    assert turns.take(0)
    assert not turns._app_of


def test_time_that_an_app_did_not_use_is_not_saved_up() -> None:
    turns = Turns()
    assert turns.take(math.inf, app="busy")
    turns._spent_s["busy"] = 100.0
    late = threading.Thread(target=lambda: turns.take(math.inf, app="late"))
    late.start()
    wait_until_in_line(turns, 1)
    assert turns._spent_s["late"] == 100.0
    turns.give_back()
    late.join(5)
    turns.give_back()
    assert not turns._spent_s


def test_more_than_a_share_waits_for_its_own_app_only() -> None:
    shares = Shares(10)
    entered: list[str] = []

    def enter(app: str, n: int) -> None:
        with shares.of(app, n):
            entered.append(app)

    with shares.of("a", 8):
        waiting = threading.Thread(target=enter, args=("a", 3))
        waiting.start()
        enter("a", 2)
        enter("b", 1_000)
        assert entered == ["a", "b"]
    waiting.join(5)
    assert entered == ["a", "b", "a"]
    assert not shares._used
