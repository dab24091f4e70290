"""The service's side of a worker: one call at a time, its replies, and what they mean."""

from __future__ import annotations

import contextlib
import itertools
import queue
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import frames
from edge_reranker.engine.supervisor import Supervisor
from edge_reranker.engine.types import (
    MAX_ENCODE_TOKENS,
    MAX_RANK_TOKENS,
    Adapter,
    Encoded,
    EngineInfo,
    EngineSpec,
    FloatArray,
    Prefilled,
    Ranked,
    SavedPrefix,
    Scored,
    Stop,
)
from edge_reranker.errors import EngineBusy, EngineDied, EngineError, InvalidArgument, ModelInvalid
from edge_reranker.turns import Turns
from edge_reranker.types import ModelState, Piece

_Reply = frames.Response | None
T = TypeVar("T")


class WorkerEngine:
    """An Engine in a process of its own. Thread-safe; calls take turns, foreground first."""

    def __init__(self, spec: EngineSpec) -> None:
        """Starts the worker in the background; ``wait_ready`` waits for it."""
        self._spec = spec
        self._turns = Turns()
        self._ids = itertools.count(1)
        self._replies: dict[int, queue.SimpleQueue[_Reply]] = {}
        self._supervisor = Supervisor(spec, self._take_in, self._fail_all)

    @property
    def state(self) -> ModelState:
        """What the model is doing."""
        return self._supervisor.state

    @property
    def info(self) -> EngineInfo | None:
        """What the model is; None until it has been loaded once."""
        return self._supervisor.info

    @property
    def problem(self) -> str:
        """Why the worker could not load its model; empty when it did."""
        return self._supervisor.problem

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return self._supervisor.pid

    @property
    def restarts(self) -> int:
        """How often the worker was started again."""
        return self._supervisor.restarts

    def wait_ready(self, deadline: Deadline) -> bool:
        """Waits until the model answers, at most until the deadline; whether it does."""
        return self._supervisor.wait_ready(deadline)

    def wait_settled(self, deadline: Deadline) -> bool:
        """Waits until the worker has loaded its model or failed to; whether it answers."""
        return self._supervisor.wait_settled(deadline)

    def close(self) -> None:
        """Stops the worker. Idempotent."""
        self._supervisor.close()

    def tokenize(self, texts: Sequence[Sequence[Piece]], deadline: Deadline) -> list[list[int]]:
        """See Engine."""
        if not texts:
            return []
        with self._turn(deadline, background=False):
            request_id = self._ask(
                lambda id_: frames.Tokenize(
                    id_, [[(piece.text, piece.structure) for piece in text] for text in texts]
                ),
                deadline,
            )
            for reply in self._listen(request_id, deadline):
                if isinstance(reply, frames.Tokens):
                    return reply.ids
        raise EngineBusy("the model did not tokenize in time; allow the request more time")

    def load_adapter(self, path: Path, deadline: Deadline) -> None:
        """See Engine."""
        with self._turn(deadline, background=False):
            request_id = self._ask(lambda id_: frames.LoadAdapter(id_, str(path)), deadline)
            if self._last(request_id, frames.Done, deadline) is not None:
                return
        raise EngineBusy("the model did not load its adapter in time; allow more time")

    def encode(
        self,
        sequences: Sequence[Sequence[int]],
        deadline: Deadline,
        *,
        background: bool = False,
        adapter: Adapter | None = None,
    ) -> Encoded:
        """See Engine."""
        wanted = _wire(adapter)
        room = self.info.n_ctx_sequence if self.info else MAX_ENCODE_TOKENS
        for index, ids in enumerate(sequences):
            if not 1 <= len(ids) <= room:
                raise InvalidArgument(f"sequences[{index}]", f"{len(ids)} tokens; 1 to {room} are allowed")
        rows: list[FloatArray] = []
        stop = Stop.DEADLINE
        try:
            with self._turn(deadline, background=background):
                request_id = self._ask(
                    lambda id_: frames.Encode(
                        id_, [list(ids) for ids in sequences], _budget_ms(deadline), background, wanted
                    ),
                    deadline,
                )
                for reply in self._listen(request_id, deadline):
                    if isinstance(reply, frames.Rows):
                        rows.append(np.frombuffer(reply.data, dtype="<f4"))
                    elif isinstance(reply, frames.Done):
                        stop = Stop(reply.stop)
        except EngineBusy:
            stop = Stop.BUSY
        except (EngineDied, ModelInvalid):
            stop = Stop.DIED
        width = self.info.n_embd if self.info else 0
        return Encoded(np.array(rows, dtype=np.float32).reshape(len(rows), width), stop)

    def score(
        self,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        targets: Sequence[int],
        deadline: Deadline,
        *,
        adapter: Adapter | None = None,
    ) -> Scored:
        """See Engine."""
        wanted = _wire(adapter)
        room = self._spec.n_ctx_sequence - len(prefix)
        for index, suffix in enumerate(suffixes):
            if not 1 <= len(suffix) <= room:
                raise InvalidArgument(
                    f"suffixes[{index}]",
                    f"{len(suffix)} tokens; after a prefix of {len(prefix)} there is room for 1 to {room}",
                )
        logits = np.zeros((len(suffixes), len(targets)), dtype=np.float32)
        reached = np.zeros(len(suffixes), dtype=np.bool_)
        stop, prefix_tokens = Stop.DEADLINE, 0
        try:
            with self._turn(deadline, background=False):
                request_id = self._ask(
                    lambda id_: frames.Score(
                        id_,
                        list(prefix),
                        [list(ids) for ids in suffixes],
                        list(targets),
                        _budget_ms(deadline),
                        wanted,
                    ),
                    deadline,
                )
                for reply in self._listen(request_id, deadline):
                    if isinstance(reply, frames.Rows):
                        rows = np.frombuffer(reply.data, dtype="<f4").reshape(
                            len(reply.indices), len(targets)
                        )
                        logits[reply.indices] = rows
                        reached[reply.indices] = True
                    elif isinstance(reply, frames.Done):
                        stop, prefix_tokens = Stop(reply.stop), reply.prefix_tokens
        except EngineBusy:
            stop = Stop.BUSY
        except (EngineDied, ModelInvalid):
            stop = Stop.DIED
        return Scored(logits, reached, stop, prefix_tokens)

    def prefill(
        self, prefix: Sequence[int], deadline: Deadline, *, adapter: Adapter | None = None
    ) -> Prefilled:
        """See Engine."""
        most = self._spec.n_ctx_sequence
        if not len(prefix) < most:
            raise InvalidArgument("prefix", f"{len(prefix)} tokens; less than {most} are allowed")
        try:
            with self._turn(deadline, background=True):
                request_id = self._ask(
                    lambda id_: frames.Prefill(id_, list(prefix), _wire(adapter)), deadline
                )
                done = self._last(request_id, frames.Done, deadline)
        except EngineBusy:
            return Prefilled(0, Stop.BUSY)
        except (EngineDied, ModelInvalid):
            return Prefilled(0, Stop.DIED)
        return Prefilled(0, Stop.BUSY) if done is None else Prefilled(done.prefix_tokens, Stop(done.stop))

    def save_prefix(self, deadline: Deadline) -> SavedPrefix | None:
        """See Engine."""
        with contextlib.suppress(EngineError), self._turn(deadline, background=True):
            request_id = self._ask(frames.Save, deadline)
            answer = self._last(request_id, frames.State, deadline)
            if answer is not None and answer.prefix:
                return SavedPrefix(tuple(answer.prefix), answer.state)
        return None

    def restore_prefix(
        self, saved: SavedPrefix, deadline: Deadline, *, adapter: Adapter | None = None
    ) -> bool:
        """See Engine."""
        with contextlib.suppress(EngineError, ModelInvalid), self._turn(deadline, background=True):
            request_id = self._ask(
                lambda id_: frames.Restore(id_, list(saved.ids), saved.state, _wire(adapter)), deadline
            )
            done = self._last(request_id, frames.Done, deadline)
            return done is not None and done.prefix_tokens == len(saved.ids) > 0
        return False

    def _last(self, request_id: int, kind: type[T], deadline: Deadline) -> T | None:
        """The one reply to a request; None when it did not come in time."""
        for reply in self._listen(request_id, deadline):
            if isinstance(reply, kind):
                return reply
        return None

    def rank(self, query: Sequence[int], documents: Sequence[Sequence[int]], deadline: Deadline) -> Ranked:
        """See Engine."""
        room = (self.info.n_ctx_sequence if self.info else MAX_RANK_TOKENS) - len(query)
        for index, ids in enumerate(documents):
            if len(ids) > room:
                raise InvalidArgument(
                    f"documents[{index}]",
                    f"{len(ids)} tokens; beside a query of {len(query)} there is room for {max(0, room)}",
                )
        scores: list[FloatArray] = []
        stop = Stop.DEADLINE
        try:
            with self._turn(deadline, background=False):
                request_id = self._ask(
                    lambda id_: frames.Rank(
                        id_, list(query), [list(ids) for ids in documents], _budget_ms(deadline)
                    ),
                    deadline,
                )
                for reply in self._listen(request_id, deadline):
                    if isinstance(reply, frames.Rows):
                        scores.append(np.frombuffer(reply.data, dtype="<f4"))
                    elif isinstance(reply, frames.Done):
                        stop = Stop(reply.stop)
        except EngineBusy:
            stop = Stop.BUSY
        except (EngineDied, ModelInvalid):
            stop = Stop.DIED
        return Ranked(np.concatenate([np.zeros(0, np.float32), *scores]), stop)

    # One call at a time: a turn, one request, its replies.

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline, *, background: bool) -> Iterator[None]:
        with deadline.while_waiting():
            app = "" if deadline.turn is None else deadline.turn.app
            if not self._turns.take(deadline.due_s, background=background, app=app):
                raise EngineBusy("the model is busy with other requests; allow the request more time")
            try:
                # A worker that is starting will answer in a moment; one that failed will not.
                self.wait_settled(deadline)
                yield
            finally:
                self._turns.give_back()

    def _ask(self, make: Callable[[int], frames.Question], deadline: Deadline) -> int:
        """Sends one request; its replies go to a queue of its own, so none is taken for another's."""
        request_id = next(self._ids)
        self._replies[request_id] = queue.SimpleQueue()
        sent = False
        try:
            sent = self._supervisor.ask(make(request_id), deadline)
        finally:
            if not sent:
                del self._replies[request_id]
        if not sent:
            raise EngineBusy("the model's worker does not take requests; allow the request more time")
        return request_id

    def _listen(self, request_id: int, deadline: Deadline) -> Iterator[frames.Response]:
        """Replies to one request, until it is over, time is up, or the worker died (EngineDied)."""
        over = False
        replies = self._replies[request_id]
        try:
            while not over:
                try:
                    reply = replies.get(timeout=deadline.remaining_s())
                except queue.Empty:
                    return
                if reply is None:
                    raise EngineDied("the model's worker died; it is being restarted")
                over = not isinstance(reply, frames.Rows)
                if isinstance(reply, frames.Refused):
                    raise ModelInvalid(reply.message)
                if isinstance(reply, frames.Failed):
                    raise EngineDied(f"the model's worker could not do it: {reply.message}")
                yield reply
        finally:
            if not over:
                self._supervisor.abandon(request_id)
            del self._replies[request_id]

    def _take_in(self, message: frames.Response) -> None:
        if not isinstance(message, frames.Opened):
            replies = self._replies.get(message.id)
            if replies is not None:
                replies.put(message)

    def _fail_all(self) -> None:
        for replies in list(self._replies.values()):
            replies.put(None)


def _wire(adapter: Adapter | None) -> tuple[str, float] | None:
    return None if adapter is None else (str(adapter.path), adapter.scale)


def _budget_ms(deadline: Deadline) -> float:
    remaining = deadline.remaining_ms()
    return -1.0 if remaining == float("inf") else max(0.0, remaining)
