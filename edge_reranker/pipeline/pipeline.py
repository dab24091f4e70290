"""Candidates, context and deadline in; an order out. The only place that knows all tiers."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from edge_reranker.current import Current
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine
from edge_reranker.errors import FailedPrecondition, Overloaded, Stopping, StoreError
from edge_reranker.explained import Explained, UserProfile
from edge_reranker.pipeline.answers import Answers
from edge_reranker.pipeline.explaining import Explaining
from edge_reranker.pipeline.lists import Lists
from edge_reranker.scoring import Learning, Serving, Tiers, Users
from edge_reranker.store import Import, Store
from edge_reranker.sweeper import Sweeper
from edge_reranker.turns import Shares
from edge_reranker.types import (
    Event,
    Forgotten,
    Grant,
    Model,
    Namespace,
    Ranking,
    Record,
    Recorded,
    RerankQuery,
    Retention,
    RetentionStatus,
    Selector,
)

# No request takes longer: after it, a replaced model is closed whoever still uses it.
_RETIRE_MS = 65_000.0
# So long does a record wait until what was chosen is learned: the next request is the one that needs it.
_LEARN_MS = 250.0
# Events of one app on their way to the disk: another's wait behind so many, not behind 64 calls of 1,000.
_MAX_WRITES = 2_000

Load = Callable[[str, Tiers, Deadline], Serving]
"""Starts the model of a name beside the tiers in use and tries it out; raises, and leaves nothing running."""


class Pipeline:
    """The service behind any front: in-process, or gRPC. Thread-safe."""

    def __init__(
        self,
        store: Store,
        tiers: Tiers,
        *,
        models: Sequence[tuple[Model, Engine | None]] = (),
        load: Load | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``models`` as in Serving; ``load`` is what ``load_model`` needs. The engines are closed with it."""
        self._store = store
        self._current = Current(Serving(tiers, tuple(models)))
        self._load = load
        self._loading = threading.Lock()
        self._retiring: Tiers | None = None  # what answers calls that began before a swap
        self._closed = False
        self._clock = clock
        self._lock = threading.Lock()
        self._users = Users(store)
        self._writes = Shares(_MAX_WRITES)
        self._learning = Learning(store)
        self._explaining = Explaining(store, self._users, clock)
        self._lists = Lists(store, Answers(self._users, self._learning, clock), self._explaining, clock)
        self._sweeper = Sweeper(store, self._swept)

    def rerank(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Ranking:
        """The best order that time allows; always a complete permutation."""
        *_, last = self._stream(namespace, query, deadline, every=False)
        return last

    def rerank_stream(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Iterator[Ranking]:
        """A complete permutation after each step, at once; then the last one again, final and logged."""
        return self._stream(namespace, query, deadline, every=True)

    def _stream(
        self, namespace: str, query: RerankQuery, deadline: Deadline, *, every: bool
    ) -> Iterator[Ranking]:
        with self._current.use() as serving:
            tiers = serving.tiers
            background = tiers.background
            with background.paused() if background is not None else contextlib.nullcontext():
                yield from self._lists.of(tiers, namespace, query, deadline, every=every)

    def record(self, namespace: str, events: Sequence[Event]) -> Recorded:
        """Stores events durably, learns from what they chose, and has their items encoded early."""
        tiers = self._current.value.tiers
        owner = tiers.epochs.owner(namespace)
        chosen = self._learning.choices(namespace, events, partial(self._explaining.shown, namespace))
        with self._writes.of(namespace, len(events)):
            recorded = self._store.record(namespace, events, chosen)
        if chosen:
            with contextlib.suppress(StoreError, TimeoutError):  # the next request says so
                self._learning.now(tiers, namespace, Deadline.after_ms(_LEARN_MS))
        self._sweeper.recorded(namespace, recorded.recorded)
        if tiers.public is not None:
            tiers.public.picked(owner, events)
        if tiers.background is not None and tiers.vectors is not None:
            items = [event.item for event in events if event.item is not None]
            tiers.background.schedule(owner, tiers.vectors.keyed(items)[::-1], first=True)
        self._prefill_soon(namespace)
        return recorded

    def events(self, namespace: str, limit: int, page_token: str) -> tuple[list[Event], str]:
        """A page of events, newest first, and where the next one starts."""
        return self._store.events(namespace, limit, page_token)

    def forget(self, namespace: str, selector: Selector, *, dry_run: bool = False) -> Forgotten:
        """Removes events and what was derived from them, here and in the store; the receipt.

        With ``dry_run`` nothing is removed, and it is the receipt that there would be.
        """
        if dry_run:
            return self._store.forget(namespace, selector, dry_run=True)
        whose = None if selector.all_namespaces else [namespace]
        with self._forgetting(whose, () if whose is None else self._store.readers(namespace)):
            return self._store.forget(namespace, selector)

    @contextlib.contextmanager
    def _forgetting(self, whose: Sequence[str] | None, readers: Sequence[str]) -> Iterator[None]:
        """While the store forgets in namespaces, None: in all: memory does too.

        Of ``readers``, only what they derived by a grant goes.
        """
        # First the epoch: from here on, no request or encoding that is under way stores anything. Memory
        # after the store, so that nothing is read back in between; also when the store failed half-way. And
        # the epoch once more: what began meanwhile may have read what was about to go.
        epochs = self._current.value.tiers.epochs

        def end() -> Sequence[str]:
            for each in (*(whose or ()), *readers):
                epochs.end(each)
            return epochs.end(None) if whose is None else whose

        end()
        try:
            yield
        finally:
            ended = end()
            for each in ended:
                self._forget_in_memory(each)
            for reader in readers:
                self._forget_in_memory(reader, lent=True)
            for each in (*ended, *readers):
                # Decoding what is left overwrites, in the worker too, what was decoded of the forgotten.
                self._prefill_soon(each)

    def retention(self, namespace: str) -> RetentionStatus:
        """How long the namespace's events are kept, and whether some are being removed."""
        return self._sweeper.status(namespace)

    def set_retention(self, namespace: str, rule: Retention) -> None:
        """Changes that, durably, and begins to remove what the rule does not keep."""
        self._sweeper.set(namespace, rule)

    def _swept(self, namespace: str, touched: bool) -> None:
        """Events went by the rule: what was made of them goes from memory too."""
        tiers = self._current.value.tiers
        if touched:
            with self._forgetting([namespace], self._store.readers(namespace)):
                pass  # the store has forgotten already
            return
        self._learning.forget(namespace)  # a choice may have gone with an event that no ranking goes by
        if tiers.vectors is not None:
            tiers.vectors.forget(namespace)  # those that are still needed are in the store

    def export(self, namespace: str) -> Iterator[Sequence[Record]]:
        """Everything that cannot be made again, page by page."""
        return self._store.export(namespace)

    def importing(self, namespace: str) -> Import:
        """Begins an import, whose end has the newest items encoded before they are needed."""
        return self._store.importing(namespace, lambda: self._imported(namespace))

    def _imported(self, namespace: str) -> None:
        self._sweeper.imported(namespace)
        with self._current.use() as serving, contextlib.suppress(StoreError):  # the next request says so
            tiers = serving.tiers
            user = self._users.now(tiers, namespace)
            if tiers.background is not None and tiers.vectors is not None:
                items = [event.item for event in user.context.events if event.item is not None]
                keyed = tiers.vectors.keyed(items)[::-1]
                own = [each for each in keyed if user.keeper(each.item.id, each.hash) == user.owner]
                tiers.background.schedule(user.owner, own, first=True)
        self._prefill_soon(namespace)

    def _prefill_soon(self, namespace: str) -> None:
        """What is known of the user too: the next request finds it ready."""
        background = self._current.value.tiers.background
        if background is None:
            return

        def prefill() -> bool:
            with self._current.use() as serving:
                hot = serving.tiers.hot
                try:
                    user = self._users.now(serving.tiers, namespace)
                    return hot is None or hot.prefill(user)
                except StoreError:
                    return True  # the next request says so

        background.soon(namespace, prefill)

    def _forget_in_memory(self, namespace: str, *, lent: bool = False) -> None:
        """Drops what was derived of the events; with ``lent``, only what others' are among."""
        self._users.forget(namespace)
        self._learning.forget(namespace)
        self._explaining.recent.forget(namespace)
        for tiers in filter(None, (self._retiring, self._current.value.tiers)):
            own = () if lent else (tiers.vectors, tiers.public)
            for part in (tiers.background, *own, tiers.tier1, tiers.tier2, tiers.hot):
                if part is not None:
                    part.forget(namespace)

    def explain(self, namespace: str, ranking_id: str, ids: Sequence[str], deadline: Deadline) -> Explained:
        """Why a past ranking placed the candidates ``ids`` (none: all) where it did."""
        with self._current.use() as serving:
            return self._explaining.explain(serving.tiers, namespace, ranking_id, ids, deadline)

    def profile(self, namespace: str) -> UserProfile:
        """What is believed about a namespace's user."""
        with self._current.use() as serving:
            return self._explaining.profile(serving.tiers, namespace)

    def mute(self, namespace: str, topic: str) -> tuple[str, ...]:
        """Keeps a topic out of the next rankings; all that are muted then."""
        self._store.mute(namespace, topic)
        return self._store.muted(namespace)

    def unmute(self, namespace: str, topic: str) -> tuple[str, ...]:
        """Lets a topic back in; all that are muted then."""
        self._store.unmute(namespace, topic)
        return self._store.muted(namespace)

    def namespaces(self) -> list[Namespace]:
        """The namespaces there are, by name."""
        return self._store.namespaces()

    def namespace_names(self) -> list[str]:
        """The same without a look at what is in them."""
        return self._store.namespace_names()

    def require_namespace(self, name: str) -> None:
        """Raises NotFound unless there is such a namespace."""
        self._store.require_namespace(name)

    def create_namespace(self, name: str) -> None:
        """Makes a namespace, or leaves it as it is."""
        self._store.create_namespace(name)
        self._current.value.tiers.epochs.open(name)

    def begin_deletion(self, name: str) -> None:
        """From here on the namespace counts as gone, also after a crash."""
        self._store.begin_deletion(name)

    def delete_namespace(self, name: str) -> Forgotten:
        """Forgets everything in a namespace, and the namespace; what is under way in it keeps nothing."""
        self._current.value.tiers.epochs.close(name)
        with self._forgetting([name], self._store.readers(name)):
            return self._store.delete_namespace(name)

    def grant(self, source: str, reader: str) -> Grant:
        """Lets the reader's rankings go by the source's events."""
        made = self._store.grant(source, reader, self._clock())
        self._prefill_soon(reader)
        return made

    def revoke(self, source: str, reader: str) -> None:
        """Ends a grant, and forgets what was derived by it, here and in the store."""
        with self._forgetting([], [reader]):
            self._store.revoke(source, reader)

    def models(self) -> Sequence[Model]:
        """The models on this device, and what each is doing."""
        return [
            model if engine is None else dataclasses.replace(model, state=engine.state)
            for model, engine in self._current.value.models
        ]

    @property
    def pack_id(self) -> str:
        """The pack in use; empty when none can be used."""
        return self._current.value.tiers.pack_id

    def load_model(self, name: str, deadline: Deadline) -> Model:
        """Swaps the model behind a self-test; returns it once the one before is closed.

        Calls that began before the swap end on the model they began with. Raises what the loading raises, and
        Overloaded while another is loaded; then the model in use stays in use.
        """
        if self._load is None:
            raise FailedPrecondition("this service was put together without a way to load models")
        if not self._loading.acquire(blocking=False):
            raise Overloaded("another model is being loaded; wait until that is done")
        try:
            self._swap(self._load(name, self._current.value.tiers, deadline))
        finally:
            self._loading.release()
        return next(model for model in self.models() if model.name == name)

    def _swap(self, loaded: Serving) -> None:
        with self._lock:
            before = self._current.value
            if self._closed:
                loaded.close()
                raise Stopping("the service is shutting down; the model was not swapped")
            self._retiring = before.tiers
            self._current.replace(loaded)
            self._explaining.recent.forget()  # or what is kept would hold on to the tiers before
        if loaded.tiers.background is not None and loaded.tiers.vectors is not None:
            loaded.tiers.background.use(loaded.tiers.vectors)
        if loaded.tiers.hot is not None:
            loaded.tiers.hot.start()
        self._current.wait_unused(before, Deadline.after_ms(_RETIRE_MS))
        self._retiring = None
        self._explaining.recent.forget()  # requests that began before have kept some since
        before.close()

    def warmup(self, deadline: Deadline) -> bool:
        """Waits until every engine answers and nothing is left to encode; whether that came in time."""
        serving = self._current.value
        ready = bool(serving.engines) and all(engine.wait_ready(deadline) for engine in serving.engines)
        background = serving.tiers.background
        return ready and (background is None or background.wait_idle(deadline))

    def close(self) -> None:
        """Stops background work and engines, and keeps what the model has read of the user. Idempotent."""
        with self._lock:
            self._closed = True
        self._sweeper.close()
        self._learning.close()
        serving = self._current.value
        if serving.tiers.background is not None:
            serving.tiers.background.close()
        if serving.tiers.hot is not None:
            serving.tiers.hot.save()
        serving.close()
