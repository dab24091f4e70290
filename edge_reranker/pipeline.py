"""Candidates, context and deadline in; an order out. The only place that knows all tiers."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from edge_reranker.current import Current
from edge_reranker.deadline import Deadline, Paces, Watch
from edge_reranker.engine import Engine
from edge_reranker.errors import FailedPrecondition, Overloaded, Stopping, StoreError
from edge_reranker.prompt import content_hash
from edge_reranker.ranking import policy
from edge_reranker.ranking.features import FEATURES, OF_THE_ENCODER, features, with_columns
from edge_reranker.ranking.fusion import fuse, order
from edge_reranker.scoring import (
    Scorer,
    Serving,
    Tiers,
    TierScores,
    User,
    Users,
)
from edge_reranker.scoring.epochs import Owner
from edge_reranker.store import Import, Store
from edge_reranker.sweeper import Sweeper
from edge_reranker.turns import Shares
from edge_reranker.types import (
    DegradedReason,
    Event,
    Forgotten,
    Grant,
    Item,
    LoggedRanking,
    Model,
    Namespace,
    Ranking,
    Recorded,
    RerankQuery,
    Result,
    Retention,
    RetentionStatus,
    Selector,
)

Float32 = npt.NDArray[np.float32]

# No request takes longer: after it, a replaced model is closed whoever still uses it.
_RETIRE_MS = 65_000.0
# After the last tier come fusion, policy and the answer's records: this, and some more for each candidate.
_AFTERWARDS_MS = 1.0
# Events of one app on their way to the disk: another's wait behind so many, not behind 64 calls of 1,000.
_MAX_WRITES = 2_000
# Tier 0 on a slow laptop core, until it is measured.
_TIER0_MS_PER_CHARACTER = 0.0001

Load = Callable[[str, Tiers, Deadline], Serving]
"""Starts the model of a name beside the tiers in use and tries it out; raises, and leaves nothing running."""

_OF_THE_ENCODER = [FEATURES.index(name) for name in sorted(OF_THE_ENCODER)]


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
        self._tier0_paces = Paces(_TIER0_MS_PER_CHARACTER)
        self._fusion_paces = Paces()  # per candidate, after each result of a tier
        self._afterwards_paces = Paces()  # per candidate
        self._sweeper = Sweeper(store, self._swept)

    def rerank(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Ranking:
        """The best order that time allows; always a complete permutation."""
        *_, last = self.rerank_stream(namespace, query, deadline)
        return last

    def rerank_stream(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Iterator[Ranking]:
        """A complete permutation after each step, at once; then the last one again, final and logged."""
        with self._current.use() as serving:
            tiers = serving.tiers
            background = tiers.background
            with background.paused() if background is not None else contextlib.nullcontext():
                yield from self._rankings(tiers, namespace, query, deadline)

    def _rankings(
        self, tiers: Tiers, namespace: str, query: RerankQuery, deadline: Deadline
    ) -> Iterator[Ranking]:
        watch = Watch()
        owner = tiers.epochs.owner(namespace)
        ranking_id = secrets.token_urlsafe(12)
        last: Ranking | None = None
        n = len(query.candidates)
        afterwards_pace = self._afterwards_paces.of(namespace)
        afterwards_ms = _AFTERWARDS_MS + afterwards_pace.predict_ms(n)
        for answer in self._answers(tiers, namespace, query, deadline.less_ms(afterwards_ms), watch):
            before_ms = watch.spent_ms("fusion")
            last = self._ranking(tiers, ranking_id, query, answer, watch)
            afterwards_pace.measured(n, watch.spent_ms("fusion") - before_ms)
            # More may follow, so nothing counts as missing yet.
            yield dataclasses.replace(last, degraded_reason=DegradedReason.UNSPECIFIED)
        if last is None:
            raise AssertionError("a request has at least one answer")
        final = dataclasses.replace(last, final=True)
        log = partial(
            self._store.put_ranking,
            namespace,
            final,
            surface=query.surface,
            session_id=query.session_id,
            created_at=self._clock(),
            sources=self._store.sources(namespace),
        )
        tiers.epochs.during(owner, log)
        yield final

    def record(self, namespace: str, events: Sequence[Event]) -> Recorded:
        """Stores events durably, and has their items encoded before they are needed."""
        tiers = self._current.value.tiers
        owner = tiers.epochs.owner(namespace)
        with self._writes.of(namespace, len(events)):
            recorded = self._store.record(namespace, events)
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
        elif tiers.vectors is not None:
            tiers.vectors.forget(namespace)  # those that are still needed are in the store

    def export(self, namespace: str) -> Iterator[Sequence[Event | LoggedRanking]]:
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
        background = self._current.value.tiers.background
        if background is None or self._current.value.tiers.hot is None:
            return

        def prefill() -> bool:
            with self._current.use() as serving:
                hot = serving.tiers.hot
                try:
                    return hot is None or hot.prefill(self._users.now(serving.tiers, namespace))
                except StoreError:
                    return True  # the next request says so

        background.soon(namespace, prefill)

    def _forget_in_memory(self, namespace: str, *, lent: bool = False) -> None:
        """Drops what was derived of the events; with ``lent``, only what others' are among."""
        self._users.forget(namespace)
        for tiers in filter(None, (self._retiring, self._current.value.tiers)):
            own = () if lent else (tiers.vectors, tiers.public)
            for part in (tiers.background, *own, tiers.tier1, tiers.tier2, tiers.hot):
                if part is not None:
                    part.forget(namespace)

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
        if loaded.tiers.background is not None and loaded.tiers.vectors is not None:
            loaded.tiers.background.use(loaded.tiers.vectors)
        if loaded.tiers.hot is not None:
            loaded.tiers.hot.start()
        self._current.wait_unused(before, Deadline.after_ms(_RETIRE_MS))
        self._retiring = None
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
        serving = self._current.value
        if serving.tiers.background is not None:
            serving.tiers.background.close()
        if serving.tiers.hot is not None:
            serving.tiers.hot.save()
        serving.close()

    # One request.

    def _answers(
        self, tiers: Tiers, namespace: str, query: RerankQuery, deadline: Deadline, watch: Watch
    ) -> Iterator[_Answer]:
        n = len(query.candidates)
        as_served = _Answer(np.arange(n), np.zeros(n, dtype=np.intp), 1.0)
        try:
            user = self._users.now(tiers, namespace)
        except StoreError:
            watch.lap("context")
            yield as_served.because(DegradedReason.STORE_UNAVAILABLE, 0.0)
            return
        watch.lap("context")
        if tiers.weights is None or tiers.without_model is None:
            yield as_served.because(DegradedReason.PACK_INVALID, 0.0)
            return
        if not user.profile and not query.query:
            # Nobody is known yet: so much more time to get ready for what they pick of this.
            if tiers.public is not None:
                tiers.public.remember(user.owner, query.candidates, deadline)
            if tiers.background is not None:
                tiers.background.read(user.owner, query.candidates)
            yield as_served.because(DegradedReason.NO_HISTORY, 1.0)
            return
        work = query.work
        tier0_pace, fusion_pace = self._tier0_paces.of(namespace), self._fusion_paces.of(namespace)
        if deadline.remaining_ms() < tier0_pace.predict_ms(work):
            tier0_pace.refused()
            if tiers.background is not None:
                tiers.background.read(user.owner, query.candidates)
            yield as_served.because(DegradedReason.DEADLINE, 0.0)
            return
        start = time.perf_counter()
        matrix = features(
            user.profile,
            query,
            now_s=self._clock(),
            taste=tiers.taste,
            named=tiers.named,
            history_vectors=self._public_vectors(tiers, user, query, deadline),
        )
        scores = fuse(matrix, FEATURES + tiers.named, tiers.without_model)
        watch.lap("tier0")
        tier0_pace.measured(work, (time.perf_counter() - start) * 1000.0)
        above: list[tuple[int, Scorer | None]] = [(1, tiers.tier1), (2, tiers.tier2)]
        if not user.profile:
            # A search by somebody unknown: the query is all that there is to read.
            above = [(1, tiers.tier1)] if tiers.tier1 is not None and tiers.tier1.reads_queries else []
        due = [(number, scorer) for number, scorer in above if scorer is not None]
        answer = _Answer(order(scores), np.zeros(n, dtype=np.intp), 0.0 if due else 1.0, weighed=True)
        yield answer
        for number, scorer in due:
            before, reason = matrix, answer.reason
            in_time = deadline.less_ms(fusion_pace.predict_ms(n))
            for result in scorer.score(user, query, answer.order.tolist(), in_time):
                watch.lap(f"tier{number}")
                fused_ms = watch.spent_ms("fusion")
                columns = {scorer.column: (result.scores, result.reached), **result.more}
                matrix = with_columns(before, columns)
                answer = self._fused(tiers, matrix, answer, number, result, reason)
                if number != due[-1][0]:
                    answer = dataclasses.replace(answer, coverage=0.0)
                watch.lap("fusion")
                fusion_pace.measured(n, watch.spent_ms("fusion") - fused_ms)
                yield answer

    def _fused(
        self,
        tiers: Tiers,
        matrix: npt.NDArray[np.float64],
        before: _Answer,
        tier: int,
        result: TierScores,
        reason: DegradedReason,
    ) -> _Answer:
        # The weights of the other features differ with and without the model: it takes over part of what
        # they say.
        weights = tiers.weights if matrix[:, _OF_THE_ENCODER].any() else tiers.without_model
        assert weights is not None  # noqa: S101 - _answers has returned without them
        return _Answer(
            order=order(fuse(matrix, FEATURES + tiers.named, weights)),
            tier=np.where(result.reached, tier, before.tier),
            coverage=result.coverage,
            reason=result.reason or reason,
            weighed=True,
        )

    def _ranking(
        self, tiers: Tiers, ranking_id: str, query: RerankQuery, answer: _Answer, watch: Watch
    ) -> Ranking:
        places = policy.apply(answer.order.tolist(), query)
        watch.lap("fusion")
        candidates = query.candidates
        return Ranking(
            ranking_id=ranking_id,
            results=tuple(Result(candidates[i].id, int(answer.tier[i])) for i in places),
            coverage=answer.coverage,
            degraded_reason=answer.reason,
            timings=watch.timings(),
            model=tiers.model if answer.tier.any() else "",
            pack=tiers.pack_id if answer.weighed else "",
            final=False,
        )

    def _public_vectors(
        self, tiers: Tiers, user: User, query: RerankQuery, deadline: Deadline
    ) -> Mapping[str, Mapping[str, Float32]]:
        public = tiers.public
        if public is None:
            return {}
        spaces = public.remember(user.owner, query.candidates, deadline)

        def keeper(item: Item) -> Owner:
            return user.keeper(item.id, content_hash(item)) if user.lent else user.owner

        return public.history(user.owner, spaces, user.profile, keeper)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An order [n] of candidate indices, the tier [n] of each candidate, and how good it is.

    ``weighed`` says that the order is by the pack's weights, not the server's.
    """

    order: npt.NDArray[np.intp]
    tier: npt.NDArray[np.intp]
    coverage: float
    reason: DegradedReason = DegradedReason.UNSPECIFIED
    weighed: bool = False

    def because(self, reason: DegradedReason, coverage: float) -> _Answer:
        return _Answer(self.order, self.tier, coverage, reason)
