"""What keeps forgotten things forgotten: work that began before a forget may store nothing after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple


class Owner(NamedTuple):
    """Whose work it is: a namespace, and which of its epochs the work began in."""

    namespace: str
    epoch: int


class Epochs:
    """One number per namespace, raised by every forget. Thread-safe.

    Work takes its ``owner`` when it begins and stores through ``during``. The store writes in the order it
    is asked, so what got through before the forget goes with it, and what comes later does not get through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._closed: set[str] = set()

    def owner(self, namespace: str) -> Owner:
        """What work that begins now carries with it."""
        with self._lock:
            return Owner(namespace, self._numbers.setdefault(namespace, 0))

    def end(self, namespace: str | None) -> list[str]:
        """Begins a new epoch, for None of every namespace that has one: whatever is under way stores nothing.

        Returns the namespaces that it was begun of.
        """
        with self._lock:
            ended = list(self._numbers) if namespace is None else [namespace]
            for each in ended:
                self._numbers[each] = self._numbers.get(each, 0) + 1
        return ended

    def close(self, namespace: str) -> None:
        """Nothing is stored for the namespace any more, also by work that begins later."""
        with self._lock:
            self._closed.add(namespace)

    def open(self, namespace: str) -> None:
        """Work that begins now may store again."""
        with self._lock:
            self._closed.discard(namespace)

    def during(self, owner: Owner, store: Callable[[], None]) -> None:
        """Runs ``store`` unless the owner's epoch is over; no forget comes in between.

        ``store`` must be short, and must not call back.
        """
        with self._lock:
            if self._numbers.get(owner.namespace, 0) == owner.epoch and owner.namespace not in self._closed:
                store()
