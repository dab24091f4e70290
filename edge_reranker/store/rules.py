"""How long events are kept: rules in, and sweeps that keep to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from edge_reranker.store import faults, retention
from edge_reranker.store.clock import Clock
from edge_reranker.store.readers import Read
from edge_reranker.store.sweep import Sweep, Swept
from edge_reranker.store.writer import Writer
from edge_reranker.types import Retention


class Rules:
    """Keeps the rules of all namespaces. Thread-safe. ``removed`` is as a ``Sweep`` wants it."""

    def __init__(
        self,
        path: Path,
        writer: Writer,
        read: Read,
        clock: Clock,
        removed: Callable[[str, dict[int, float]], bool],
    ) -> None:
        self._path = path
        self._writer = writer
        self._read = read
        self._clock = clock
        self._removed = removed

    def get(self, namespace: str) -> Retention:
        """See ``Store.retention``."""
        return self._read(lambda db: retention.get(db, namespace))

    def all(self) -> dict[str, Retention]:
        """See ``Store.retentions``."""
        return self._read(retention.rules)

    def put(self, namespace: str, rule: Retention) -> None:
        """See ``Store.set_retention``."""
        self._writer.submit(lambda db: retention.put(db, namespace, rule))

    def sweep(self, namespace: str) -> Iterator[Swept]:
        """See ``Store.sweep``."""
        sweep = Sweep(namespace, self._writer, self._read, self._clock, self._removed)
        with faults.translated(self._path):
            yield from sweep.run()
