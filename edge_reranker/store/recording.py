"""What the user does and what was shown, on its way into the tables."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sqlite_utils import Database

from edge_reranker.store import choices, clock, events, rankings
from edge_reranker.store.choices import Inserted
from edge_reranker.store.clock import Clock
from edge_reranker.store.writer import Writer
from edge_reranker.types import Event, LoggedRanking, Recorded


class Recording:
    """Records events with what was chosen by them, and logs rankings. Thread-safe.

    ``allowed`` is asked in between writes, and raises when the namespace takes nothing any more; ``recorded``
    hears after each commit of what is new in a namespace.
    """

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        allowed: Callable[[str], None],
        recorded: Callable[[str, Inserted], None],
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._allowed = allowed
        self._recorded = recorded
        self._logged: Counter[str] = Counter()
        self._chosen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def record(self, namespace: str, batch: Sequence[Event], bodies: Mapping[str, bytes]) -> Recorded:
        """See ``Store.record``."""
        now = self._clock.now()
        rows = events.encode(
            [
                event if at == event.occurred_at else dataclasses.replace(event, occurred_at=at)
                for event in batch
                for at in (clock.dated(event.occurred_at, now),)
            ]
        )
        if not rows:
            return Recorded(0, 0)
        note = self._clock.due(now)
        due = bool(bodies) and self._due(self._chosen, namespace, len(bodies), choices.PRUNE_EVERY)

        def insert(db: Database) -> Inserted:
            self._allowed(namespace)
            if note:
                clock.put(db, now)
            return choices.insert(db, namespace, rows, bodies, due=due)

        def after(result: Inserted) -> None:
            if note:
                self._clock.kept(now)
            self._recorded(namespace, result)

        return self._writer.submit(insert, after).recorded

    def log(self, namespace: str, logged: LoggedRanking, sources: Sequence[str], detail: bytes) -> None:
        """See ``Store.put_ranking``."""
        at = clock.dated(logged.created_at, self._clock.now())
        prune = self._due(self._logged, namespace, 1, rankings.PRUNE_EVERY)

        def run(db: Database) -> None:
            rankings.put(
                db,
                namespace,
                logged.ranking.ranking_id,
                rankings.encode(logged.ranking),
                surface=logged.surface,
                session_id=logged.session_id,
                created_at=at,
                sources=sources,
                detail=detail,
                prune=prune,
            )

        self._writer.post(run)

    def _due(self, counts: Counter[str], namespace: str, n: int, every: int) -> bool:
        """Whether the first of another ``every`` is among the next ``n``; the first of all is."""
        with self._lock:
            before = counts[namespace]
            counts[namespace] += n
        return -(-before // every) != -(-(before + n) // every)
