"""What is kept in memory for each namespace, so that one has no say in what stays of another's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The newest ``most`` values, the last used being the newest. Not thread-safe.

    All namespaces share the room, and who has most of it gives way: a value of another's is dropped only
    where that is beyond its equal share. With ``each``, every namespace has the room to itself: for what
    cannot be had again, so that dropping it would change an order.
    """

    def __init__(self, most: int, *, each: bool = False) -> None:
        self._most = most
        self._each = each
        self._total = 0
        self._kept: dict[str, OrderedDict[K, V]] = {}

    def __len__(self) -> int:
        return self._total

    def get(self, namespace: str, key: K) -> V | None:
        """The value, which is the newest then; None if there is none."""
        mine = self._kept.get(namespace)
        if mine is None or key not in mine:
            return None
        mine.move_to_end(key)
        return mine[key]

    def put(self, namespace: str, key: K, value: V) -> None:
        """Keeps a value as the newest."""
        mine = self._kept.setdefault(namespace, OrderedDict())
        self._total += key not in mine
        mine[key] = value
        mine.move_to_end(key)
        if self._each:
            if len(mine) > self._most:
                mine.popitem(last=False)
                self._total -= 1
            return
        while self._total > self._most:
            max(self._kept.values(), key=len).popitem(last=False)
            self._total -= 1

    def items(self, namespace: str) -> list[tuple[K, V]]:
        """All that is kept of a namespace, oldest first."""
        return list(self._kept.get(namespace, {}).items())

    def forget(self, namespace: str) -> None:
        """Drops what is kept of a namespace."""
        self._total -= len(self._kept.pop(namespace, ()))
