"""Encoding ahead of need: items that a request had no time for, and items of new events."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from edge_reranker.deadline import Deadline
from edge_reranker.scoring.epochs import Owner
from edge_reranker.scoring.vectors import Keyed, VectorCache
from edge_reranker.types import DegradedReason

_MAX_WAITING = 5_000
_ONE_ITEM_MS = 5_000.0
_RETRY_S = 0.5


class BackgroundEncoder:
    """One thread that encodes one item at a time and lets every request go first."""

    def __init__(self, vectors: VectorCache) -> None:
        self._vectors = vectors
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Owner, Keyed]] = deque()
        self._queued: set[tuple[Owner, str]] = set()
        self._closed = False
        self._working = False
        self._thread: threading.Thread | None = None
        if not vectors.without_encoder:
            self._thread = threading.Thread(target=self._run, name="background-encoder", daemon=True)
            self._thread.start()

    def schedule(self, owner: Owner, items: Sequence[Keyed], *, first: bool = False) -> None:
        """Queues items; ``first`` puts them before all others. The last in line go when too many wait."""
        if self._thread is None:
            return
        with self._changed:
            for item in reversed(items) if first else items:
                if (owner, item.hash) in self._queued:
                    continue
                self._queued.add((owner, item.hash))
                if first:
                    self._waiting.appendleft((owner, item))
                else:
                    self._waiting.append((owner, item))
            while len(self._waiting) > _MAX_WAITING:
                dropped_owner, dropped = self._waiting.pop()
                self._queued.discard((dropped_owner, dropped.hash))
            self._changed.notify_all()

    def forget(self, namespace: str) -> None:
        """Drops what waits for a namespace."""
        with self._changed:
            self._waiting = deque(entry for entry in self._waiting if entry[0].namespace != namespace)
            self._queued = {key for key in self._queued if key[0].namespace != namespace}

    def wait_idle(self, deadline: Deadline) -> bool:
        """Waits until nothing is left to do; whether that came in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closed or (not self._waiting and not self._working),
                timeout=deadline.remaining_s(),
            )

    def close(self) -> None:
        """Stops after the item at hand. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return
                owner, item = self._waiting.popleft()
                self._queued.discard((owner, item.hash))
                self._working = True
            if self._vectors.known(owner.namespace, [item]):
                continue
            _, reason = self._vectors.encode(owner, [item], Deadline.after_ms(_ONE_ITEM_MS), background=True)
            if reason in (DegradedReason.MODEL_UNAVAILABLE, DegradedReason.MODEL_BUSY):
                self.schedule(owner, [item])
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, timeout=_RETRY_S)
