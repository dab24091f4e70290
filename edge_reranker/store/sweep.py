"""A sweep: what a rule does not keep goes, in steps so short that nobody waits for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlite_utils import Database

from edge_reranker.store import clock, retention
from edge_reranker.store.clock import Clock
from edge_reranker.store.retention import Key, Limits
from edge_reranker.store.writer import Writer, checkpoint
from edge_reranker.types import EventType, Forgotten

# What a record waits for at most, besides its own commit.
_STEP_MS = 4.0
_FIRST_ROWS, _MAX_ROWS = 32, 512
# Looked through at once, by a reader.
_PAGE_ROWS = 2_048


@dataclass(frozen=True, slots=True)
class Swept:
    """What a step removed, how long the writer was busy with it, and whether a context may have changed."""

    forgotten: Forgotten
    took_s: float = 0.0
    touched: bool = False


class Sweep:
    """One sweep of one namespace.

    ``removed`` hears after each commit of what types events went, and of each the latest moment; it says
    whether a context that somebody holds may have had one of them.
    """

    def __init__(
        self,
        namespace: str,
        writer: Writer,
        read: Callable[[Callable[[Database], Any]], Any],
        clock: Clock,
        removed: Callable[[str, dict[int, float]], bool],
    ) -> None:
        self._namespace = namespace
        self._writer = writer
        self._read = read
        self._clock = clock
        self._removed = removed
        self._n_rows = _FIRST_ROWS

    def run(self) -> Iterator[Swept]:
        """The steps. Raises StoreError."""
        name = self._namespace
        now = self._clock.now()
        self._writer.submit(lambda db: clock.put(db, now), lambda _: self._clock.kept(now))
        yield from self._put_right(now)
        rule = self._read(lambda db: retention.get(db, name))
        if not rule:
            return
        limits: Limits = self._read(lambda db: retention.limits(db, name, rule, now.store_s))
        after: Key | None = (float("-inf"), 0)
        n_removed = 0
        while after is not None:
            page = after
            seqs, after = self._read(partial(self._overdue, limits, page))
            while seqs:
                # As long as the last step was: the time that the disk took is not in it, nor that of others.
                step, seqs = seqs[: self._n_rows], seqs[self._n_rows :]
                swept = self._step(limits, step)
                n_removed += swept.forgotten.events
                yield swept
        rankings = self._writer.submit(lambda db: retention.remove_rankings(db, name, limits))
        if n_removed or rankings:
            # As after a forget, nothing of it stays in the log.
            self._writer.alone(checkpoint)
            yield Swept(Forgotten(rankings=rankings))

    def _overdue(self, limits: Limits, after: Key, db: Database) -> tuple[list[int], Key | None]:
        return retention.overdue(db, self._namespace, limits, after, _PAGE_ROWS)

    def _step(self, limits: Limits, seqs: list[int]) -> Swept:
        took_s = 0.0
        touched = False

        def remove(db: Database) -> retention.Removed:
            nonlocal took_s
            start = time.perf_counter()
            found = retention.remove(db, self._namespace, limits, seqs)
            took_s = time.perf_counter() - start
            return found

        def after(found: retention.Removed) -> None:
            nonlocal touched
            touched = self._told(found.latest)

        found = self._writer.submit(remove, after)
        wanted = self._n_rows * _STEP_MS / max(took_s * 1000.0, 0.1)
        self._n_rows = int(min(max(wanted, self._n_rows / 2, 1), self._n_rows * 2, _MAX_ROWS))
        return Swept(found.forgotten, took_s, touched)

    def _put_right(self, now: clock.Noted) -> Iterator[Swept]:
        """Dates what was recorded by a clock that was ahead, now that it has come back."""
        after_s = clock.after(now)
        if after_s is None:
            return
        touched = False

        def run(db: Database) -> int:
            return retention.put_right(db, self._namespace, now.store_s, after_s)

        def after(n_events: int) -> None:
            nonlocal touched
            touched = bool(n_events) and self._told(dict.fromkeys(map(int, EventType), float("inf")))

        self._writer.submit(run, after)
        if touched:
            yield Swept(Forgotten(), touched=True)

    def _told(self, latest: Mapping[int, float]) -> bool:
        return self._removed(self._namespace, dict(latest)) if latest else False
