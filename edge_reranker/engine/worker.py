"""The worker process: one model, two pipes, nothing else. Run as ``python -m edge_reranker.engine.worker``.

It has no store, no key and no socket; it ends when its input does.
"""

from __future__ import annotations

import os
import queue
import resource
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_reranker import crashes
from edge_reranker.deadline import Pace
from edge_reranker.engine import frames
from edge_reranker.engine.planner import DECODE_OVERHEAD_TOKENS, cost
from edge_reranker.engine.threads import Threads
from edge_reranker.engine.types import Adapter, EngineSpec, Stop
from edge_reranker.errors import EdgeRerankerError, ModelInvalid
from edge_reranker.types import Piece

if TYPE_CHECKING:
    from edge_reranker.engine.llama import LlamaModel

_WARM_UP_TOKENS = 16
# A chunk may take this much longer than predicted before the deadline is passed.
_SAFETY = 1.15
# Background work gives way to a request after a decode of this long.
_SLICE_MS = 50.0
_MIN_SLICE_TOKENS = 8


class Budget:
    """Time left for one request, and whether it was cancelled."""

    def __init__(self, budget_ms: float, cancelled: Callable[[], bool]) -> None:
        self._until = float("inf") if budget_ms < 0 else time.monotonic() + budget_ms / 1000.0
        self._cancelled = cancelled

    @property
    def left_ms(self) -> float:
        """Milliseconds left; 0 once it was cancelled."""
        return 0.0 if self._cancelled() else max(0.0, (self._until - time.monotonic()) * 1000.0)

    def allows(self, ms: float) -> bool:
        """Whether ``ms`` more milliseconds fit."""
        return not self._cancelled() and time.monotonic() + ms / 1000.0 < self._until


class Inbox:
    """What came in, read by a thread of its own, so that a cancel is seen while the model decodes."""

    def __init__(self, fd: int, abort: Callable[[], None]) -> None:
        """``abort`` is called when the request that is being answered is cancelled."""
        self._fd = fd
        self._abort = abort
        self._requests: queue.SimpleQueue[frames.Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._cancelled: set[int] = set()
        self._running = self._answered = 0
        self._closed = False
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def next(self) -> frames.Request | None:
        """The next request, once there is one; None when there will be no more."""
        return self._requests.get()

    def begin(self, request_id: int) -> None:
        """From here on, a cancel of this request calls ``abort``."""
        with self._lock:
            self._running = request_id

    def end(self) -> None:
        """The request has been answered; later cancels of it mean nothing."""
        with self._lock:
            self._running, self._answered = 0, max(self._running, self._answered)
            self._cancelled = {each for each in self._cancelled if each > self._answered}

    def cancelled(self) -> bool:
        """Whether nobody waits for the answer to the running request."""
        return self._closed or self._running in self._cancelled

    def _read(self) -> None:
        try:
            while (body := frames.read(self._fd)) is not None:
                request = frames.request_decoder.decode(body)
                if isinstance(request, frames.Cancel):
                    self._cancel(request.id)
                else:
                    self._requests.put(request)
        except (OSError, ValueError):
            pass  # nonsense, or no pipe any more: the service is gone
        with self._lock:
            self._closed = True
            self._abort()
        self._requests.put(None)

    def _cancel(self, request_id: int) -> None:
        with self._lock:
            if request_id > self._answered:
                self._cancelled.add(request_id)
            if request_id == self._running:
                self._abort()


class Worker:
    """Reads requests, answers them one at a time, and stops when one is cancelled."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in = fd_in
        self._out = fd_out
        self._encode_pace = Pace()
        self._score_pace = Pace()
        self._rank_pace = Pace()
        self._background_threads = 1
        self._threads = Threads(1)
        self._model: LlamaModel
        self._inbox: Inbox

    def run(self) -> None:
        """Serves until the input ends."""
        body = frames.read(self._in)
        first = None if body is None else frames.request_decoder.decode(body)
        if not isinstance(first, frames.Open):
            return
        if first.memory_limit_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (first.memory_limit_bytes,) * 2)
        _be_nice(first.nice)
        try:
            # Imported under the memory limit, and only here: nothing else in the service loads llama.cpp.
            from edge_reranker.engine.llama import LlamaModel

            self._model = LlamaModel(
                EngineSpec(
                    path=Path(first.path),
                    role=first.role,
                    n_threads=first.n_threads,
                    n_sequences=first.n_sequences,
                    n_ctx_sequence=first.n_ctx_sequence,
                    mode="unified" if first.mode == "unified" else "isolated",
                    pooling=first.pooling,
                    normalise=first.normalise,
                )
            )
        except MemoryError:
            self._send(frames.Failed(0, f"{first.path}: no memory to load it; close other programs"))
            return
        except EdgeRerankerError as error:
            self._send(frames.Failed(0, str(error)))
            return
        except (ImportError, OSError, RuntimeError) as error:  # of the library's: not there, or no memory
            self._send(frames.Failed(0, f"{first.path}: llama.cpp cannot be started: {error}"))
            return
        # Half of the processors stay free for the service and for whatever else the user does.
        self._background_threads = max(1, first.n_threads // 2)
        self._threads = Threads(first.n_threads)
        self._warm_up(first.role)
        info = self._model.info
        self._send(
            frames.Opened(
                info.description, info.n_embd, info.n_vocab, info.n_layer, info.n_ctx_sequence, info.system
            )
        )
        self._inbox = Inbox(self._in, self._model.abort)
        while (request := self._inbox.next()) is not None:
            self._answer(request)

    def _warm_up(self, role: str) -> None:
        """One decode before the first request: pages the weights in, and gives the speed a first value."""
        ids = [0] * _WARM_UP_TOKENS
        for _ in range(2):
            start = time.monotonic()
            if role == "encoder":
                self._model.encode(ids)
                pace = self._encode_pace
            elif role == "ranker":
                self._model.ranker.score(ids, [])
                pace = self._rank_pace
            else:
                self._model.kv.set_prefix(ids)
                self._model.kv.clear()
                pace = self._score_pace
            ms = (time.monotonic() - start) * 1000.0
        pace.measured(cost(len(ids)), ms)  # the second: the first is as slow as the disk

    def _answer(self, request: frames.Request) -> None:
        if isinstance(request, frames.Open | frames.Cancel):
            return
        from edge_reranker.engine.kv import Aborted

        self._inbox.begin(request.id)
        try:
            answer: frames.Response = self._answer_to(request)
        except Aborted:
            self._model.forget()
            answer = frames.Done(request.id, Stop.DEADLINE)
        except ModelInvalid as error:
            answer = frames.Refused(request.id, str(error))
        except (EdgeRerankerError, ValueError) as error:
            answer = frames.Failed(request.id, str(error))
        except RuntimeError as error:  # of a decode: what it left in the cache is not known
            self._model.forget()
            answer = frames.Failed(request.id, str(error))
        self._inbox.end()
        # Also when the abort came too late for a decode: the next request must not meet it.
        self._model.go_on()
        self._send(answer)

    def _answer_to(self, request: frames.Question) -> frames.Response:
        if isinstance(request, frames.Tokenize):
            ids = [self._model.tokenize([Piece(*piece) for piece in text]) for text in request.texts]
            return frames.Tokens(request.id, ids)
        if isinstance(request, frames.LoadAdapter):
            self._model.load_adapter(Path(request.path))
            return frames.Done(request.id, Stop.DONE)
        if isinstance(request, frames.Encode | frames.Score | frames.Prefill | frames.Restore):
            self._model.use_adapter(_adapter(request.adapter))
        if isinstance(request, frames.Encode):
            return frames.Done(request.id, self._encode(request))
        if isinstance(request, frames.Score):
            return self._score(request)
        if isinstance(request, frames.Prefill):
            return self._prefill(request)
        if isinstance(request, frames.Rank):
            return frames.Done(request.id, self._rank(request))
        kv = self._model.kv
        if isinstance(request, frames.Restore):
            # What was decoded since the start is newer.
            taken = not kv.prefix and kv.restore(request.prefix, request.state)
            return frames.Done(request.id, Stop.DONE, len(kv.prefix) if taken else 0)
        return frames.State(request.id, kv.prefix, kv.saved() if kv.prefix else b"")

    def _encode(self, request: frames.Encode) -> Stop:
        budget = Budget(request.budget_ms, self._inbox.cancelled)
        for index, ids in enumerate(request.sequences):
            if not budget.allows(_SAFETY * self._encode_pace.predict_ms(cost(len(ids)))):
                self._encode_pace.refused()
                return Stop.DEADLINE
            n_threads = self._background_threads if request.background else self._threads.choose()
            start, cpu_start = time.monotonic(), time.process_time()
            vector = self._model.encode(ids, n_threads=n_threads)
            if not request.background:
                ms, cpu_ms = (time.monotonic() - start) * 1000.0, (time.process_time() - cpu_start) * 1000.0
                self._encode_pace.measured(cost(len(ids)), ms)
                self._threads.measured(n_threads, cost(len(ids)), ms, cpu_ms)
            self._send(frames.Rows(request.id, [index], vector.tobytes()))
        return Stop.DONE

    def _score(self, request: frames.Score) -> frames.Done:
        budget = Budget(request.budget_ms, self._inbox.cancelled)
        kv, prefix, suffixes = self._model.kv, request.prefix, request.suffixes
        ms_per_token = _SAFETY * self._score_pace.predict_ms(1)
        affordable = (
            budget.left_ms / ms_per_token - cost(kv.missing(prefix)) if ms_per_token else float("inf")
        )
        decoded = 0
        for batch in kv.plan(suffixes, affordable):
            # What its suffixes begin with stands behind the prefix, and is decoded once.
            whole = [*prefix, *suffixes[batch.indices[0]][: batch.shared]]
            units = cost(kv.missing(whole)) + cost(batch.n_tokens)
            if not budget.allows(_SAFETY * self._score_pace.predict_ms(units)):
                self._score_pace.refused()
                return frames.Done(request.id, Stop.DEADLINE, decoded)
            start = time.monotonic()
            new = kv.set_prefix(whole)
            decoded += max(0, len(prefix) - (len(whole) - new))
            rows = kv.score(suffixes, batch, request.targets)
            self._score_pace.measured(units, (time.monotonic() - start) * 1000.0)
            self._send(frames.Rows(request.id, list(batch.indices), rows.tobytes()))
        return frames.Done(request.id, Stop.DONE, decoded)

    def _prefill(self, request: frames.Prefill) -> frames.Done:
        """Decodes what takes ``_SLICE_MS``; the service asks again for the rest, after whoever waits."""
        kv, pace = self._model.kv, self._score_pace
        affordable = _SLICE_MS / max(pace.predict_ms(1), 1e-3) - DECODE_OVERHEAD_TOKENS
        start = time.monotonic()
        decoded = kv.set_prefix(request.prefix, at_most=max(_MIN_SLICE_TOKENS, int(affordable)))
        if decoded:
            pace.measured(cost(decoded), (time.monotonic() - start) * 1000.0)
        return frames.Done(request.id, Stop.DEADLINE if kv.missing(request.prefix) else Stop.DONE, decoded)

    def _rank(self, request: frames.Rank) -> Stop:
        budget = Budget(request.budget_ms, self._inbox.cancelled)
        for index, ids in enumerate(request.documents):
            units = cost(len(request.query) + len(ids))
            if not budget.allows(_SAFETY * self._rank_pace.predict_ms(units)):
                self._rank_pace.refused()
                return Stop.DEADLINE
            start = time.monotonic()
            score = self._model.ranker.score(request.query, ids)
            self._rank_pace.measured(units, (time.monotonic() - start) * 1000.0)
            self._send(frames.Rows(request.id, [index], struct.pack("<f", score)))
        return Stop.DONE

    def _send(self, message: frames.Response) -> None:
        frames.write(self._out, message)


def _be_nice(nice: int) -> None:
    """Gives way to other programs, at least as far as the service does itself."""
    nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
    tasks = Path("/proc/self/task")
    # To Linux, niceness is a thread's: numpy has some by now, and the model's inherit it from this one.
    for task in [int(entry.name) for entry in tasks.iterdir()] if tasks.is_dir() else [0]:
        os.setpriority(os.PRIO_PROCESS, task, nice)


def _adapter(wanted: tuple[str, float] | None) -> Adapter | None:
    return None if wanted is None else Adapter(Path(wanted[0]), wanted[1])


def main() -> None:
    """Runs a worker on standard input and output."""
    crashes.leave_nothing()
    # Native code may print; only our frames may reach the pipe.
    fd_out = os.dup(1)
    os.dup2(2, 1)
    try:
        Worker(0, fd_out).run()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # the service is gone: nothing to tell, nothing to save


if __name__ == "__main__":
    main()
