"""What feedback has taught: each namespace's choices, folded into weights and a gate."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

from edge_reranker.deadline import Deadline
from edge_reranker.errors import Stopping, StoreError
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.learned import Learned, begin, replay
from edge_reranker.ranking.learning.shown import Shown
from edge_reranker.scoring.epochs import Owner
from edge_reranker.scoring.tiers import Tiers
from edge_reranker.store import Store
from edge_reranker.types import Event

_REMEMBERED = 64
# Of more choices nobody learns in the time of their own request: 4,500 take two seconds.
_AT_ONCE = 32
_NO_LIMIT = Deadline()
_STOPPING = "the service is shutting down; ask it again once it is back"

_Start = tuple[Weights, Weights, str]


@dataclass(frozen=True, slots=True)
class _Folded:
    """What was learned of the choices that ``state`` numbers: how many, the first, the last.

    ``generation`` is the store's, from before they were read.
    """

    owner: Owner
    generation: int
    start: _Start
    state: tuple[int, int, int]
    learned: Learned


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """What is being learned apart from requests, begun after so many ``forgets``."""

    owner: Owner
    start: _Start
    forgets: int
    result: Future[Learned]

    def goes_for(self, owner: Owner, start: _Start, forgets: int) -> bool:
        """Whether it is what would be begun now."""
        return (self.owner, self.forgets) == (owner, forgets) and not any(map(_differ, self.start, start))


class Learning:
    """Learns from feedback, per namespace, as a function of the stored choices alone. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._folded: OrderedDict[str, _Folded] = OrderedDict()
        self._forgets: Counter[str] = Counter()
        self._closed = False
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="learning")
        self._under_way: dict[str, _UnderWay] = {}

    def now(self, tiers: Tiers, namespace: str, deadline: Deadline = _NO_LIMIT) -> Learned | None:
        """What is known by now; None for a pack without weights.

        Choices that came since are folded in; after anything was removed, all of them anew. Many are folded
        in by a thread of its own, which goes on when the deadline comes first: TimeoutError then. Raises
        StoreError, and Stopping after ``close``.
        """
        if tiers.weights is None or tiers.without_model is None:
            return None
        start = (tiers.weights, tiers.without_model, tiers.pack_id)
        found = self._learned(tiers, namespace, start, _AT_ONCE)
        if found is not None:
            return found
        learning = self._begun(tiers, namespace, start)
        with deadline.while_waiting():
            try:
                result = learning.result(deadline.remaining_s())
            except CancelledError:
                raise Stopping(_STOPPING) from None
        # What came meanwhile is few.
        found = self._learned(tiers, namespace, start, _AT_ONCE)
        return result if found is None else found

    def close(self) -> None:
        """Waits for what is being learned, and learns nothing more apart from requests. Idempotent."""
        with self._lock:
            self._closed = True
        self._apart.shutdown(cancel_futures=True)

    def _begun(self, tiers: Tiers, namespace: str, start: _Start) -> Future[Learned]:
        """What is being learned of all that there is; what was begun before a forget is something else."""
        owner = tiers.epochs.owner(namespace)
        with self._lock:
            known, forgets = self._under_way.get(namespace), self._forgets[namespace]
            if known is not None and known.goes_for(owner, start, forgets):
                return known.result
            if self._closed:
                raise Stopping(_STOPPING)
            result = self._apart.submit(self._all, tiers, namespace, start)
            self._under_way[namespace] = _UnderWay(owner, start, forgets, result)
        result.add_done_callback(lambda done: self._ended(namespace, done))
        return result

    def _ended(self, namespace: str, result: Future[Learned]) -> None:
        with self._lock:
            known = self._under_way.get(namespace)
            if known is not None and known.result is result:
                del self._under_way[namespace]

    def _all(self, tiers: Tiers, namespace: str, start: _Start) -> Learned:
        found = self._learned(tiers, namespace, start, None)
        if found is None:
            raise AssertionError("without a limit there is always a result")
        return found

    def _learned(self, tiers: Tiers, namespace: str, start: _Start, most: int | None) -> Learned | None:
        """What is known by now; None when more than ``most`` choices would have to be folded in for it."""
        owner = tiers.epochs.owner(namespace)
        generation = self._store.generation(namespace)
        with self._lock:
            before, forgets = self._folded.get(namespace), self._forgets[namespace]
        # The very objects: a pack that was swapped has others, and arrays do not compare to one truth.
        if before is not None and (before.owner != owner or any(map(_differ, before.start, start))):
            before = None
        if before is not None and before.generation == generation:
            return before.learned
        state = self._store.choices_state(namespace)
        if before is not None and before.state == state:
            return self._keep(tiers, dataclasses.replace(before, generation=generation), forgets)
        # Numbers only grow and rows are never changed: what was counted is still there if, beside it, there
        # are as many more as come after it.
        n_new = -1
        if before is not None and before.state[0] and before.state[1] == state[1]:
            n_new = state[0] - before.state[0]
        if before is not None and n_new >= 0 and (most is None or n_new <= most):
            learned, rows = before.learned, self._store.choices(namespace, before.state[2])
            if len(rows) == n_new:
                learned = replay(learned, _decoded(rows))
                return self._keep(tiers, _Folded(owner, generation, start, state, learned), forgets)
        if most is not None and state[0] > most:
            return None
        rows = self._store.choices(namespace)
        learned = replay(begin(*start), _decoded(rows))
        seen = (len(rows), rows[0][0], rows[-1][0]) if rows else (0, 0, 0)
        return self._keep(tiers, _Folded(owner, generation, start, seen, learned), forgets)

    def choices(
        self, namespace: str, events: Sequence[Event], recent: Callable[[str], Shown | None]
    ) -> dict[str, bytes]:
        """What the events say of lists that were shown, by event id; an event that says nothing is left out.

        ``recent`` knows lists by their ranking's id that need not be in the store yet. A list that nobody
        knows any more teaches nothing; nor does one that the store cannot read just now.
        """
        found: dict[str, bytes] = {}
        # Each list once: a batch may have all that was seen of one.
        lists: dict[str, Shown | None] = {}
        for event in events:
            name = event.ranking_id
            if not name or event.item is None:
                continue
            if name not in lists:
                lists[name] = recent(name) or self._stored(namespace, name)
            shown = lists[name]
            if shown is None:
                continue
            choice = choice_of(shown, event.item.id, event.type, event.dwell_s, event.position)
            if choice is not None:
                found[event.event_id] = choice.encode()
        return found

    def forget(self, namespace: str) -> None:
        """Drops what is remembered: it is learned again from what the store has left."""
        with self._lock:
            self._forgets[namespace] += 1
            self._folded.pop(namespace, None)

    def _stored(self, namespace: str, ranking_id: str) -> Shown | None:
        with contextlib.suppress(StoreError, ValueError):
            detail = self._store.detail(namespace, ranking_id)
            return None if not detail else Shown.decode(detail)
        return None

    def _keep(self, tiers: Tiers, folded: _Folded, forgets: int) -> Learned:
        """Remembers it unless something was forgotten since: a sweep need not end an epoch."""

        def remember() -> None:
            with self._lock:
                if self._forgets[folded.owner.namespace] != forgets:
                    return
                self._folded.pop(folded.owner.namespace, None)
                while len(self._folded) >= _REMEMBERED:
                    self._folded.popitem(last=False)
                self._folded[folded.owner.namespace] = folded

        tiers.epochs.during(folded.owner, remember)
        return folded.learned


def _differ(one: object, other: object) -> bool:
    return one is not other and not (isinstance(one, str) and one == other)


def _decoded(rows: Sequence[tuple[int, bytes]]) -> list[Choice]:
    """The choices in rows; one of another version of this service teaches nothing."""
    found = []
    for _, body in rows:
        with contextlib.suppress(ValueError):
            found.append(Choice.decode(body))
    return found
