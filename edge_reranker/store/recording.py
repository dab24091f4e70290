"""What the user does and what was shown, on its way into the tables."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sqlite_utils import Database

from edge_reranker.store import choices, clock, events, rankings
from edge_reranker.store.clock import Clock
from edge_reranker.store.writer import Writer
from edge_reranker.types import Event, Ranking, Recorded


class Recording:
    """Records events with what was chosen by them, and logs rankings. Thread-safe.

    ``allowed`` is asked in between writes, and raises when the namespace takes nothing any more; ``recorded``
    hears after each commit of how many events a namespace has more.
    """

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        allowed: Callable[[str], None],
        recorded: Callable[[str, int], None],
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._allowed = allowed
        self._recorded = recorded
        self._logged: Counter[str] = Counter()
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

        def insert(db: Database) -> Recorded:
            self._allowed(namespace)
            if note:
                clock.put(db, now)
            return choices.insert(db, namespace, rows, bodies)

        def after(result: Recorded) -> None:
            if note:
                self._clock.kept(now)
            self._recorded(namespace, result.recorded)

        return self._writer.submit(insert, after)

    def log(
        self,
        namespace: str,
        ranking: Ranking,
        *,
        surface: str,
        session_id: str,
        created_at: float,
        sources: Sequence[str],
        detail: bytes,
    ) -> None:
        """See ``Store.put_ranking``."""
        at = clock.dated(created_at, self._clock.now())
        with self._lock:
            prune = self._logged[namespace] % rankings.PRUNE_EVERY == 0
            self._logged[namespace] += 1

        def run(db: Database) -> None:
            rankings.put(
                db,
                namespace,
                ranking.ranking_id,
                rankings.encode(ranking),
                surface=surface,
                session_id=session_id,
                created_at=at,
                sources=sources,
                detail=detail,
                prune=prune,
            )

        self._writer.post(run)
