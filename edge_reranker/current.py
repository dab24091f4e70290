"""One value that many use and one replaces. Standard library only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from edge_reranker.deadline import Deadline

T = TypeVar("T")


class Current(Generic[T]):
    """Whoever began with a value ends with it, whatever replaces it meanwhile. Thread-safe.

    Values are told apart by identity, and none comes back once it was replaced.
    """

    def __init__(self, value: T) -> None:
        self._changed = threading.Condition()
        self._value = value
        self._users: dict[int, int] = {}  # by id of the value, which its users keep alive

    @property
    def value(self) -> T:
        """The value now; it may be replaced at any moment."""
        return self._value

    @contextlib.contextmanager
    def use(self) -> Iterator[T]:
        """The value now, counted as used until the block ends."""
        with self._changed:
            value = self._value
            self._users[id(value)] = self._users.get(id(value), 0) + 1
        try:
            yield value
        finally:
            with self._changed:
                self._users[id(value)] -= 1
                if not self._users[id(value)]:
                    del self._users[id(value)]
                    self._changed.notify_all()

    def replace(self, value: T) -> None:
        """Makes ``value`` the current one; the one before may still be in use."""
        with self._changed:
            self._value = value

    def wait_unused(self, value: T, deadline: Deadline) -> bool:
        """Waits until nobody uses ``value`` any more, at most until the deadline; whether nobody does."""
        with self._changed:
            return self._changed.wait_for(
                lambda: id(value) not in self._users, timeout=deadline.remaining_s()
            )
