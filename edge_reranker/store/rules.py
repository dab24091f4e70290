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
    """Its methods are the store's. Thread-safe. ``removed`` is as a ``Sweep`` wants it."""

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

    def retention(self, namespace: str) -> Retention:
        """How long the namespace's events are kept; everything, until a rule is set."""
        return self._read(lambda db: retention.get(db, namespace))

    def retentions(self) -> dict[str, Retention]:
        """The rule of each namespace that has one."""
        return self._read(retention.rules)

    def set_retention(self, namespace: str, rule: Retention) -> None:
        """Change that; on return it is durable. ``sweep`` removes what the rule does not keep."""
        self._writer.submit(lambda db: retention.put(db, namespace, rule))

    def sweep(self, namespace: str) -> Iterator[Swept]:
        """Remove what the namespace's rule does not keep, a few milliseconds of the writer's time a step.

        At the end exactly those events are gone that were over the rule when it began, with what only they
        needed. It may stop after any step, and be begun again. Raises StoreError.
        """
        sweep = Sweep(namespace, self._writer, self._read, self._clock, self._removed)
        with faults.translated(self._path):
            yield from sweep.run()
