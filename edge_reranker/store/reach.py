"""Which events somebody was given, so that it is known whose removal changes anything for them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from edge_reranker.types import Context, EventType


@dataclass(slots=True)
class _Given:
    # Per type (None: any) the earliest moment of an event that was given.
    earliest: dict[int | None, float] = field(default_factory=dict)
    removals: int = 0


class Reach:
    """The contexts that were read of each namespace. Thread-safe.

    A sweep takes the oldest events, and a context has the newest: most removals change no context, and then
    nobody has to read it again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: dict[str, _Given] = {}

    def reading(self, namespace: str) -> int:
        """Call it before a context is read; ``read`` wants its result."""
        with self._lock:
            return self._given.setdefault(namespace, _Given()).removals

    def read(
        self, namespace: str, before: int, context: Context, types: Collection[EventType] | None
    ) -> bool:
        """Takes in what was read; whether something was removed meanwhile, so that it may be out of date."""
        if not context:
            return False
        earliest = min(event.occurred_at for event in context.events)
        with self._lock:
            given = self._given.setdefault(namespace, _Given())
            for kind in (None,) if types is None else map(int, types):
                given.earliest[kind] = min(earliest, given.earliest.get(kind, earliest))
            return given.removals != before

    def removed(self, namespace: str, latest: Mapping[int, float]) -> bool:
        """Takes in what went: per type the latest moment; whether it may have been in a context."""
        with self._lock:
            given = self._given.setdefault(namespace, _Given())
            given.removals += 1
            touched = any(
                at >= given.earliest[kind]
                for each, at in latest.items()
                for kind in (None, each)
                if kind in given.earliest
            )
            if touched:
                # All of them are read again.
                given.earliest.clear()
            return touched
