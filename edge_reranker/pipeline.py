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
from edge_reranker.deadline import Deadline, Pace, Watch
from edge_reranker.engine import Engine
from edge_reranker.errors import FailedPrecondition, Overloaded, Stopping, StoreError
from edge_reranker.ranking import policy
from edge_reranker.ranking.features import FEATURES, OF_THE_ENCODER, features, with_columns
from edge_reranker.ranking.fusion import fuse, order
from edge_reranker.ranking.profile import TAKEN_BACK, profile
from edge_reranker.scoring import (
    Scorer,
    Serving,
    Tiers,
    TierScores,
    User,
)
from edge_reranker.store import Import, Store
from edge_reranker.types import (
    Context,
    DegradedReason,
    Event,
    Forgotten,
    LoggedRanking,
    Model,
    Ranking,
    Recorded,
    RerankQuery,
    Result,
    Selector,
)

Float32 = npt.NDArray[np.float32]

# No request takes longer: after it, a replaced model is closed whoever still uses it.
_RETIRE_MS = 65_000.0
# More than a profile counts: what was taken back since stands among them.
_CONTEXT_EVENTS = 200
_REMEMBERED_USERS = 64
# After the last tier come fusion, policy and the answer's records: this, and some more for each candidate.
_AFTERWARDS_MS = 1.0
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
        self._users: dict[str, User] = {}
        self._tier0_pace = Pace(_TIER0_MS_PER_CHARACTER)
        self._fusion_pace = Pace()  # per candidate, after each result of a tier
        self._afterwards_pace = Pace()  # per candidate

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
        afterwards_ms = _AFTERWARDS_MS + self._afterwards_pace.predict_ms(n)
        for answer in self._answers(tiers, namespace, query, deadline.less_ms(afterwards_ms), watch):
            before_ms = watch.spent_ms("fusion")
            last = self._ranking(tiers, ranking_id, query, answer, watch)
            self._afterwards_pace.measured(n, watch.spent_ms("fusion") - before_ms)
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
        )
        tiers.epochs.during(owner, log)
        yield final

    def record(self, namespace: str, events: Sequence[Event]) -> Recorded:
        """Stores events durably, and has their items encoded before they are needed."""
        tiers = self._current.value.tiers
        owner = tiers.epochs.owner(namespace)
        recorded = self._store.record(namespace, events)
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
        # First the epoch: from here on, no request or encoding that is under way stores anything. Memory
        # after the store, so that nothing is read back in between; also when the store failed half-way. And
        # the epoch once more: what began meanwhile may have read what was about to go.
        epochs = self._current.value.tiers.epochs
        whose = None if selector.all_namespaces else namespace
        epochs.end(whose)
        try:
            return self._store.forget(namespace, selector)
        finally:
            for each in epochs.end(whose):
                self._forget_in_memory(each)
                # Decoding what is left overwrites, in the worker too, what was decoded of the forgotten.
                self._prefill_soon(each)

    def export(self, namespace: str) -> Iterator[Sequence[Event | LoggedRanking]]:
        """Everything that cannot be made again, page by page."""
        return self._store.export(namespace)

    def importing(self, namespace: str) -> Import:
        """Begins an import, whose end has the newest items encoded before they are needed."""
        return self._store.importing(namespace, lambda: self._imported(namespace))

    def _imported(self, namespace: str) -> None:
        with self._current.use() as serving, contextlib.suppress(StoreError):  # the next request says so
            tiers = serving.tiers
            user = self._user(tiers, namespace)
            if tiers.background is not None and tiers.vectors is not None:
                items = [event.item for event in user.context.events if event.item is not None]
                tiers.background.schedule(user.owner, tiers.vectors.keyed(items)[::-1], first=True)
        self._prefill_soon(namespace)

    def _prefill_soon(self, namespace: str) -> None:
        background = self._current.value.tiers.background
        if background is None or self._current.value.tiers.hot is None:
            return

        def prefill() -> bool:
            with self._current.use() as serving:
                hot = serving.tiers.hot
                try:
                    return hot is None or hot.prefill(self._user(serving.tiers, namespace))
                except StoreError:
                    return True  # the next request says so

        background.soon(namespace, prefill)

    def _forget_in_memory(self, namespace: str) -> None:
        with self._lock:
            self._users.pop(namespace, None)
        for tiers in filter(None, (self._retiring, self._current.value.tiers)):
            parts = (tiers.background, tiers.vectors, tiers.public, tiers.tier1, tiers.tier2, tiers.hot)
            for part in parts:
                if part is not None:
                    part.forget(namespace)

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
            user = self._user(tiers, namespace)
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
        if deadline.remaining_ms() < self._tier0_pace.predict_ms(work):
            self._tier0_pace.refused()
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
        self._tier0_pace.measured(work, (time.perf_counter() - start) * 1000.0)
        above: list[tuple[int, Scorer | None]] = [(1, tiers.tier1), (2, tiers.tier2)]
        if not user.profile:
            # A search by somebody unknown: the query is all that there is to read.
            above = [(1, tiers.tier1)] if tiers.tier1 is not None and tiers.tier1.reads_queries else []
        due = [(number, scorer) for number, scorer in above if scorer is not None]
        answer = _Answer(order(scores), np.zeros(n, dtype=np.intp), 0.0 if due else 1.0, weighed=True)
        yield answer
        for number, scorer in due:
            before, reason = matrix, answer.reason
            in_time = deadline.less_ms(self._fusion_pace.predict_ms(n))
            for result in scorer.score(user, query, answer.order.tolist(), in_time):
                watch.lap(f"tier{number}")
                fused_ms = watch.spent_ms("fusion")
                columns = {scorer.column: (result.scores, result.reached), **result.more}
                matrix = with_columns(before, columns)
                answer = self._fused(tiers, matrix, answer, number, result, reason)
                if number != due[-1][0]:
                    answer = dataclasses.replace(answer, coverage=0.0)
                watch.lap("fusion")
                self._fusion_pace.measured(n, watch.spent_ms("fusion") - fused_ms)
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

    def _user(self, tiers: Tiers, namespace: str) -> User:
        """The user now; read again only when the events have changed. Raises StoreError."""
        owner = tiers.epochs.owner(namespace)
        generation = self._store.generation(namespace)
        with self._lock:
            user = self._users.get(namespace)
        if user is not None and (user.owner, user.generation) == (owner, generation):
            return user
        weights = tiers.taste.event_weights
        telling = {kind for kind, weight in weights.items() if weight > 0} | TAKEN_BACK
        # Of the telling types only: a few lists' impressions must not push out what the user likes.
        context: Context = self._store.context(namespace, _CONTEXT_EVENTS, types=telling)
        user = User(owner, generation, context, profile(context, tiers.taste))
        tiers.epochs.during(owner, lambda: self._remember(user))
        return user

    def _remember(self, user: User) -> None:
        with self._lock:
            while len(self._users) >= _REMEMBERED_USERS:
                self._users.pop(next(iter(self._users)))
            self._users[user.namespace] = user

    def _public_vectors(
        self, tiers: Tiers, user: User, query: RerankQuery, deadline: Deadline
    ) -> Mapping[str, Mapping[str, Float32]]:
        public = tiers.public
        if public is None:
            return {}
        spaces = public.remember(user.owner, query.candidates, deadline)
        return public.history(user.owner, spaces, user.profile)


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
