"""Threads for a decode, from made-up measurements."""

from __future__ import annotations

from edge_reranker.engine.threads import Threads


def decode(threads: Threads, wall_ms: dict[int, float], *, held: bool) -> int:
    """One decode on a device where n threads take ``wall_ms[n]``; others hold processors if ``held``."""
    n = threads.choose()
    threads.measured(n, 10, wall_ms[n], wall_ms[n] * (1 if held else n))
    return n


def test_a_quiet_device_gets_all_threads() -> None:
    threads = Threads(2)
    assert [decode(threads, {2: 14, 1: 27}, held=False) for _ in range(50)] == [2] * 50


def test_a_busy_device_gets_the_number_that_is_faster() -> None:
    fewer = Threads(2)
    used = [decode(fewer, {2: 57, 1: 27}, held=True) for _ in range(160)]
    assert used[0] == 2
    assert used.count(1) >= 135
    all_of_them = Threads(4)
    used = [decode(all_of_them, {4: 30, 2: 39}, held=True) for _ in range(160)]
    assert used.count(4) >= 135


def test_a_device_that_was_busy_gets_all_threads_again_soon() -> None:
    threads = Threads(2)
    for _ in range(40):
        decode(threads, {2: 57, 1: 27}, held=True)
    used = [decode(threads, {2: 14, 1: 27}, held=False) for _ in range(60)]
    assert used[20:] == [2] * 40


def test_what_was_fast_in_another_hour_is_measured_again() -> None:
    threads = Threads(2)
    for _ in range(40):
        decode(threads, {2: 50, 1: 100}, held=True)
    for _ in range(5):
        decode(threads, {2: 14, 1: 27}, held=False)
    used = [decode(threads, {2: 57, 1: 27}, held=True) for _ in range(40)]
    assert used.count(1) >= 33


def test_one_thread_stays_one() -> None:
    threads = Threads(1)
    assert {decode(threads, {1: 27}, held=held) for held in (True, False) for _ in range(20)} == {1}
