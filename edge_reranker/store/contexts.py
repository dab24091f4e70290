"""What rankings go by, and who has to read it again: a number that changes with the events behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable

from edge_reranker.store import events
from edge_reranker.store.reach import Reach
from edge_reranker.store.readers import Read
from edge_reranker.types import Context, EventType


class Contexts:
    """Reads contexts, and takes in what changes them. Thread-safe.

    ``sources`` are the namespaces that a reader goes by besides its own, ``readers`` those that go by one.
    """

    def __init__(
        self,
        read: Read,
        sources: Callable[[str], tuple[str, ...]],
        readers: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._read = read
        self._sources = sources
        self._readers = readers
        self._reach = Reach()
        self._generations: dict[str, int] = {}
        self._of_all = 0  # the part of every namespace's generation that changes with all of them
        self._lock = threading.Lock()

    def get(self, namespace: str, limit: int, types: Collection[EventType] | None) -> Context:
        """See ``Store.context``."""
        if limit <= 0:
            return Context()
        whose = (namespace, *self._sources(namespace))
        before = [self._reach.reading(each) for each in whose]
        if len(whose) == 1:
            found = self._read(lambda db: events.newest(db, namespace, limit, types))
            context = Context(tuple(reversed(found)))
        else:
            mixed = self._read(lambda db: events.newest_of(db, whose, limit, types))
            newest = tuple(event for _, event in reversed(mixed))
            context = Context(newest, whose[1:], tuple(name for name, _ in reversed(mixed)))
        changed = [
            self._reach.read(each, seen, context, types) for each, seen in zip(whose, before, strict=True)
        ]
        self.changed(namespace, sum(changed))
        return context

    def generation(self, namespace: str) -> int:
        """See ``Store.generation``."""
        return self._of_all + self._generations.get(namespace, 0)

    def changed(self, namespace: str | None, n_events: int) -> None:
        """Events of a namespace, or of all for None, have come or gone."""
        if n_events and namespace is None:
            self.all_changed()
        elif n_events and namespace is not None:
            self.renew((namespace, *self._readers(namespace)))

    def removed(self, namespace: str, latest: dict[int, float]) -> bool:
        """A sweep removed events, per type the latest at; whether a context may have had one of them."""
        touched = self._reach.removed(namespace, latest)
        self.changed(namespace, int(touched))
        return touched

    def renew(self, whose: Iterable[str]) -> None:
        """What these go by has changed."""
        with self._lock:
            for namespace in whose:
                self._generations[namespace] = self._generations.get(namespace, 0) + 1

    def all_changed(self) -> None:
        """Whatever anybody remembers of any events, it may be of others now."""
        with self._lock:
            self._of_all += 1
