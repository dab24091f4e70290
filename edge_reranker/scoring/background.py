"""Work ahead of need: items that a request had no time for, items of new events, the user's context."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from edge_reranker.deadline import Deadline
from edge_reranker.scoring.epochs import Owner
from edge_reranker.scoring.public import PublicVectors
from edge_reranker.scoring.vectors import Keyed, VectorCache
from edge_reranker.types import Candidate, DegradedReason

# Of each namespace.
_MAX_WAITING = 5_000
_MAX_LISTS = 8
_ONE_ITEM_MS = 5_000.0
_RETRY_S = 0.5
# The answer is at its caller by then; on its way, the model would take the processors from it.
_AFTER_REQUEST_S = 0.01
# Requests without a gap must not keep it from working for ever.
_MOST_PAUSE_S = 0.25


@dataclass(slots=True)
class _Line:
    """What waits for one namespace."""

    lists: deque[tuple[Owner, Sequence[Candidate]]] = field(default_factory=lambda: deque(maxlen=_MAX_LISTS))
    job: Callable[[], bool] | None = None
    items: deque[tuple[Owner, Keyed]] = field(default_factory=deque)
    queued: set[tuple[Owner, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.lists or self.job or self.items)


class BackgroundEncoder:
    """One thread that reads lists and encodes one item at a time, and lets every request go first.

    Namespaces take turns, a step each: however much waits for one, another waits for a step of it at most.
    """

    def __init__(self, vectors: VectorCache, public: PublicVectors) -> None:
        self._vectors = vectors
        self._public = public
        self._changed = threading.Condition()
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # whose turn is next comes first
        self._closed = False
        self._working = False
        self._requests = 0
        self._not_before_s = 0.0
        self._thread = threading.Thread(target=self._run, name="background-encoder", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While a request is worked on, and until its answer is at its caller, no new item is begun."""
        with self._changed:
            self._requests += 1
        try:
            yield
        finally:
            with self._changed:
                self._requests -= 1
                self._not_before_s = time.monotonic() + _AFTER_REQUEST_S
                if self._due():  # else the thread would wake for nothing, request by request
                    self._changed.notify_all()

    def use(self, vectors: VectorCache) -> None:
        """Takes another model's vectors from the next item on; what waits goes on waiting."""
        with self._changed:
            self._vectors = vectors

    def read(self, owner: Owner, candidates: Sequence[Candidate]) -> None:
        """Queues a list whose texts nobody had time to look at; its new items are encoded in their order.

        The oldest list goes when too many wait.
        """
        with self._changed:
            self._line(owner.namespace).lists.append((owner, candidates))
            self._changed.notify_all()

    def schedule(self, owner: Owner, items: Sequence[Keyed], *, first: bool = False) -> None:
        """Queues items; ``first`` puts them before all others. The last in line go when too many wait."""
        if self._vectors.without_encoder or not items:
            return
        with self._changed:
            line = self._line(owner.namespace)
            for item in reversed(items) if first else items:
                if (owner, item.hash) in line.queued:
                    continue
                line.queued.add((owner, item.hash))
                if first:
                    line.items.appendleft((owner, item))
                else:
                    line.items.append((owner, item))
            while len(line.items) > _MAX_WAITING:
                dropped_owner, dropped = line.items.pop()
                line.queued.discard((dropped_owner, dropped.hash))
            self._changed.notify_all()

    def soon(self, namespace: str, job: Callable[[], bool]) -> None:
        """Calls ``job`` until it returns true, each time for a moment at most, in place of the last one."""
        with self._changed:
            self._line(namespace).job = job
            self._changed.notify_all()

    def forget(self, namespace: str) -> None:
        """Drops what waits for a namespace."""
        with self._changed:
            self._lines.pop(namespace, None)

    def wait_idle(self, deadline: Deadline) -> bool:
        """Waits until nothing is left to do; whether that came in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closed or not (self._due() or self._working),
                timeout=deadline.remaining_s(),
            )

    def close(self) -> None:
        """Stops after the item at hand. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._due())
                self._pause()
                if self._closed:
                    return
                self._working = True
                step = self._next()
            step()

    def _line(self, namespace: str) -> _Line:
        return self._lines.setdefault(namespace, _Line())

    def _due(self) -> bool:
        return bool(self._lines)

    def _next(self) -> Callable[[], None]:
        """What to do next: a step of the namespace whose turn it is, of its work the shortest first."""
        if not self._lines:
            return lambda: None
        namespace, line = self._lines.popitem(last=False)
        step = self._step(namespace, line)
        if line:
            self._lines[namespace] = line
        return step

    def _step(self, namespace: str, line: _Line) -> Callable[[], None]:
        if line.lists:
            return partial(self._read, *line.lists.popleft())
        if line.job is not None:
            job, line.job = line.job, None
            return partial(self._do, namespace, job)
        owner, item = line.items.popleft()
        line.queued.discard((owner, item.hash))
        return partial(self._encode, owner, item)

    def _do(self, namespace: str, job: Callable[[], bool]) -> None:
        if not job():
            with self._changed:
                line = self._line(namespace)
                line.job = line.job or job

    def _pause(self) -> None:
        until_s = time.monotonic() + _MOST_PAUSE_S
        while not self._closed:
            now_s = time.monotonic()
            left_s = until_s - now_s if self._requests else min(until_s, self._not_before_s) - now_s
            if left_s <= 0:
                return
            self._changed.wait(left_s)

    def _read(self, owner: Owner, candidates: Sequence[Candidate]) -> None:
        self._public.remember(owner, candidates, Deadline())
        keyed = self._vectors.keyed([candidate.item for candidate in candidates])
        self._vectors.take_shipped(owner, candidates, keyed)
        known = self._vectors.known(owner, keyed)
        self.schedule(owner, [item for item in keyed if item.hash not in known])

    def _encode(self, owner: Owner, item: Keyed) -> None:
        if self._vectors.known(owner, [item]):
            return
        _, reason = self._vectors.encode(owner, [item], Deadline.after_ms(_ONE_ITEM_MS), background=True)
        if reason in (DegradedReason.MODEL_UNAVAILABLE, DegradedReason.MODEL_BUSY):
            self.schedule(owner, [item])
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=_RETRY_S)
