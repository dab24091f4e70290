"""One value, many users, one replacement: whoever began with a value ends with it."""

from __future__ import annotations

import threading

from edge_reranker.current import Current
from edge_reranker.deadline import Deadline


def test_a_user_keeps_the_value_it_began_with_and_the_next_gets_the_new_one() -> None:
    current = Current("old")
    with current.use() as mine:
        current.replace("new")
        with current.use() as theirs:
            assert (mine, theirs, current.value) == ("old", "new", "new")


def test_a_value_is_unused_only_when_its_last_user_is_done() -> None:
    old, new = object(), object()
    current = Current(old)
    first, second = current.use(), current.use()
    assert first.__enter__() is second.__enter__() is old
    current.replace(new)
    with current.use():
        first.__exit__(None, None, None)
        assert not current.wait_unused(old, Deadline.after_ms(20))
        threading.Timer(0.05, second.__exit__, (None, None, None)).start()
        assert current.wait_unused(old, Deadline.after_ms(5_000))
        assert not current.wait_unused(new, Deadline.after_ms(20))


def test_a_user_that_fails_is_done_too() -> None:
    old = object()
    current = Current(old)
    try:
        with current.use():
            raise KeyError
    except KeyError:
        pass
    assert current.wait_unused(old, Deadline.after_ms(20))


def test_equal_values_are_told_apart() -> None:
    old, new = [1], [1]
    current = Current(old)
    with current.use():
        current.replace(new)
        assert not current.wait_unused(old, Deadline.after_ms(20))
        assert current.wait_unused(new, Deadline.after_ms(20))
