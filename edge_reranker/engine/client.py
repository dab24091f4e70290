"""The service's side of a worker: starts it, talks to it, and brings it back when it dies."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import frames
from edge_reranker.engine.process import spawn
from edge_reranker.engine.turns import Turns
from edge_reranker.engine.types import (
    MAX_ENCODE_TOKENS,
    Adapter,
    Encoded,
    EngineInfo,
    EngineSpec,
    FloatArray,
    Scored,
    Stop,
)
from edge_reranker.errors import EngineBusy, EngineDied, InvalidArgument, ModelInvalid
from edge_reranker.types import ModelState, Piece

_BACKOFF_FIRST_S = 0.1
_BACKOFF_LAST_S = 5.0
_BACKOFF_UNLOADABLE_S = 60.0
_HEALTHY_S = 30.0
# A worker that has not answered this long after it was cancelled is stuck in native code.
_STUCK_S = 5.0
_LOOK_AFTER_S = 1.0


_Reply = frames.Tokens | frames.Rows | frames.Done | frames.Failed | frames.Refused | None


class WorkerEngine:
    """An Engine in a process of its own. Thread-safe; calls take turns, foreground first."""

    def __init__(self, spec: EngineSpec) -> None:
        """Starts the worker in the background; ``wait_ready`` waits for it."""
        self._spec = spec
        self._turns = Turns()
        self._process: subprocess.Popen[bytes] | None = None
        self._state = ModelState.LOADING
        self._info: EngineInfo | None = None
        self._problem = ""
        self._changed = threading.Condition()
        self._closed = False
        self._last_id = 0
        self._replies: dict[int, queue.SimpleQueue[_Reply]] = {}
        self._outstanding: set[int] = set()  # sent to this worker, not over
        self._abandoned: dict[int, float] = {}  # of those, what nobody waits for any more, and since when
        self._write_lock = threading.Lock()
        self.restarts = 0
        self._supervisor = threading.Thread(target=self._supervise, name="engine-supervisor", daemon=True)
        self._supervisor.start()

    @property
    def state(self) -> ModelState:
        """What the model is doing."""
        return self._state

    @property
    def info(self) -> EngineInfo | None:
        """What the model is; None until it has been loaded once."""
        return self._info

    @property
    def problem(self) -> str:
        """Why the worker could not load its model; empty when it did."""
        return self._problem

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        process = self._process
        return process.pid if process else None

    def wait_ready(self, deadline: Deadline) -> bool:
        """Waits until the model answers, at most until the deadline; whether it does."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._state == ModelState.READY, timeout=deadline.remaining_s()
            )
            return self._state == ModelState.READY

    def wait_settled(self, deadline: Deadline) -> bool:
        """Waits until the worker has loaded its model or failed to; whether it answers."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._state != ModelState.LOADING, timeout=deadline.remaining_s()
            )
            return self._state == ModelState.READY

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
            for _ in self._listen(request_id, deadline):
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
        for index, ids in enumerate(sequences):
            if not 1 <= len(ids) <= MAX_ENCODE_TOKENS:
                raise InvalidArgument(
                    f"sequences[{index}]", f"{len(ids)} tokens; 1 to {MAX_ENCODE_TOKENS} are allowed"
                )
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
        width = self._info.n_embd if self._info else 0
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
        stop = Stop.DEADLINE
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
                        stop = Stop(reply.stop)
        except EngineBusy:
            stop = Stop.BUSY
        except (EngineDied, ModelInvalid):
            stop = Stop.DIED
        return Scored(logits, reached, stop)

    def close(self) -> None:
        """Stops the worker. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._kill()
        self._supervisor.join(timeout=10)

    # One call at a time: a turn, one request, its replies.

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline, *, background: bool) -> Iterator[None]:
        if not self._turns.take(deadline.remaining_s(), background=background):
            raise EngineBusy("the model is busy with other requests; allow the request more time")
        try:
            # A worker that is starting will answer in a moment; one that failed will not.
            self.wait_settled(deadline)
            yield
        finally:
            self._turns.give_back()

    def _ask(self, make: Callable[[int], frames.Request], deadline: Deadline) -> int:
        """Sends one request; its replies go to a queue of its own, so none is taken for another's."""
        with self._changed:
            if self._state != ModelState.READY:
                raise EngineDied("the model's worker is not running; it is being restarted")
            self._last_id += 1
            request_id = self._last_id
            self._replies[request_id] = queue.SimpleQueue()
            self._outstanding.add(request_id)
        try:
            if self._send(make(request_id), deadline):
                return request_id
        except (OSError, ValueError) as error:
            self._kill()  # a message cut off in the middle, or a pipe without an end
            self._drop(request_id)
            raise EngineDied("the model's worker has gone; it is being restarted") from error
        self._drop(request_id)
        raise EngineBusy("the model's worker does not take requests; allow the request more time")

    def _send(self, message: frames.Request, deadline: Deadline) -> bool:
        with self._write_lock:
            process = self._process
            if process is None or process.stdin is None:
                raise OSError("no worker")
            limit = Deadline.after_ms(_STUCK_S * 1000.0)
            return frames.write_by(process.stdin.fileno(), message, deadline.sooner(limit))

    def _drop(self, request_id: int) -> None:
        with self._changed:
            self._replies.pop(request_id, None)
            self._outstanding.discard(request_id)

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
                over = isinstance(reply, frames.Tokens | frames.Done | frames.Failed | frames.Refused)
                if isinstance(reply, frames.Refused):
                    raise ModelInvalid(reply.message)
                if isinstance(reply, frames.Failed):
                    raise EngineDied(f"the model's worker could not do it: {reply.message}")
                yield reply
        finally:
            if not over:
                self._cancel(request_id)
            with self._changed:
                self._replies.pop(request_id, None)

    def _cancel(self, request_id: int) -> None:
        with self._changed:
            if request_id not in self._outstanding:
                return  # it ended in this very moment
            self._abandoned[request_id] = time.monotonic()
        with contextlib.suppress(OSError, ValueError):
            self._send(frames.Cancel(request_id), Deadline.after_ms(0))

    def _kill_if_stuck(self) -> None:
        with self._changed:
            oldest = min(self._abandoned.values(), default=None)
        if oldest is not None and time.monotonic() - oldest > _STUCK_S:
            self._kill()

    # The supervisor: one thread that starts the worker, reads from it, and starts it again.

    def _supervise(self) -> None:
        backoff_s = _BACKOFF_FIRST_S
        while not self._closed:
            started = time.monotonic()
            try:
                self._run_worker()
            except (OSError, ValueError) as error:
                self._problem = f"the model's worker could not be started: {type(error).__name__}"
            with self._changed:
                loaded = self._state == ModelState.READY
                self._state = ModelState.FAILED
                self._outstanding.clear()
                self._abandoned.clear()
                for replies in self._replies.values():
                    replies.put(None)
                self._changed.notify_all()
                if loaded and time.monotonic() - started > _HEALTHY_S:
                    backoff_s = _BACKOFF_FIRST_S
                if self._problem and not loaded:
                    # What cannot be loaded now will hardly load in a moment: no process every few seconds.
                    backoff_s = _BACKOFF_UNLOADABLE_S
                if self._changed.wait_for(lambda: self._closed, timeout=backoff_s):
                    return
                self._state = ModelState.LOADING
            backoff_s = min(_BACKOFF_LAST_S, backoff_s * 2)
            self.restarts += 1

    def _run_worker(self) -> None:
        """Starts one worker and reads from it until it ends."""
        process = spawn()
        self._process = process
        try:
            if self._closed or process.stdin is None or process.stdout is None:
                return
            spec = self._spec
            frames.write(
                process.stdin.fileno(),
                frames.Open(
                    str(spec.path),
                    spec.role,
                    spec.n_threads,
                    spec.n_sequences,
                    spec.n_ctx_sequence,
                    spec.memory_limit_bytes,
                ),
            )
            os.set_blocking(process.stdin.fileno(), False)
            while True:
                if not frames.waiting(process.stdout.fileno(), _LOOK_AFTER_S):
                    self._kill_if_stuck()
                    continue
                body = frames.read(process.stdout.fileno())
                if body is None:
                    return
                self._take_in(frames.response_decoder.decode(body))
        finally:
            process.kill()
            process.wait()
            # Under the lock, so that nobody writes to a descriptor that has become another file's.
            with self._write_lock:
                self._process = None
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):
                            stream.close()

    def _take_in(self, message: frames.Response) -> None:
        if isinstance(message, frames.Opened):
            with self._changed:
                self._info = EngineInfo(
                    message.description,
                    message.n_embd,
                    message.n_vocab,
                    message.n_layer,
                    message.n_ctx_sequence,
                    message.system,
                )
                self._problem = ""
                self._state = ModelState.READY
                self._changed.notify_all()
            return
        if isinstance(message, frames.Failed) and message.id == 0:
            self._problem = message.message
            return
        with self._changed:
            if not isinstance(message, frames.Rows):
                self._outstanding.discard(message.id)
                self._abandoned.pop(message.id, None)
            replies = self._replies.get(message.id)
        if replies is not None:
            replies.put(message)

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()


def _wire(adapter: Adapter | None) -> tuple[str, float] | None:
    return None if adapter is None else (str(adapter.path), adapter.scale)


def _budget_ms(deadline: Deadline) -> float:
    remaining = deadline.remaining_ms()
    return -1.0 if remaining == float("inf") else max(0.0, remaining)
