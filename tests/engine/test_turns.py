"""Foreground first."""

from __future__ import annotations

import threading
import time

from edge_reranker.engine.turns import Turns


def test_a_taken_turn_makes_others_wait_until_their_time_is_over() -> None:
    turns = Turns()
    assert turns.take(0, background=False)
    start = time.monotonic()
    assert not turns.take(0.05, background=False)
    assert time.monotonic() - start >= 0.05
    turns.give_back()
    assert turns.take(0, background=False)


def test_foreground_goes_before_background_that_waited_longer() -> None:
    turns = Turns()
    order: list[str] = []
    assert turns.take(None, background=False)

    def work(name: str, background: bool) -> None:
        assert turns.take(5, background=background)
        order.append(name)
        turns.give_back()

    threads = []
    for name, background in (("background", True), ("foreground", False)):
        thread = threading.Thread(target=work, args=(name, background))
        thread.start()
        threads.append(thread)
        time.sleep(0.05)  # the background caller is in line first
    turns.give_back()
    for thread in threads:
        thread.join(5)
    assert order == ["foreground", "background"]
