"""The worker process: one model, two pipes, nothing else. Run as ``python -m edge_reranker.engine.worker``.

It has no store, no key and no socket; it ends when its input does.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_reranker.deadline import Pace
from edge_reranker.engine import frames
from edge_reranker.engine.planner import cost, plan, shared_length
from edge_reranker.engine.types import Adapter, EngineSpec, Stop
from edge_reranker.errors import EdgeRerankerError, ModelInvalid
from edge_reranker.types import Piece

if TYPE_CHECKING:
    from edge_reranker.engine.llama import LlamaModel

_WARM_UP_TOKENS = 16
# A chunk may take this much longer than predicted before the deadline is passed.
_SAFETY = 1.15


class Budget:
    """Time left for one request, and whether it was cancelled."""

    def __init__(self, budget_ms: float, cancelled: Callable[[], bool]) -> None:
        self._until = float("inf") if budget_ms < 0 else time.monotonic() + budget_ms / 1000.0
        self._cancelled = cancelled

    def allows(self, ms: float) -> bool:
        """Whether ``ms`` more milliseconds fit."""
        return not self._cancelled() and time.monotonic() + ms / 1000.0 < self._until


class Worker:
    """Reads requests, answers them one at a time, looks for a cancel between chunks."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in = fd_in
        self._out = fd_out
        self._queue: deque[frames.Request] = deque()
        self._cancelled: set[int] = set()
        self._last_answered = 0
        self._closed = False
        self._encode_pace = Pace()
        self._score_pace = Pace()
        self._background_threads = 1
        self._model: LlamaModel

    def run(self) -> None:
        """Serves until the input ends."""
        first = self._next()
        if not isinstance(first, frames.Open):
            return
        if first.memory_limit_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (first.memory_limit_bytes,) * 2)
        try:
            # Imported under the memory limit, and only here: nothing else in the service loads llama.cpp.
            from edge_reranker.engine.llama import LlamaModel

            self._model = LlamaModel(
                EngineSpec(
                    path=Path(first.path),
                    role="encoder" if first.role == "encoder" else "scorer",
                    n_threads=first.n_threads,
                    n_sequences=first.n_sequences,
                    n_ctx_sequence=first.n_ctx_sequence,
                )
            )
        except (EdgeRerankerError, OSError, MemoryError) as error:
            self._send(frames.Failed(0, str(error) or type(error).__name__))
            return
        # Half of the processors stay free for the service and for whatever else the user does.
        self._background_threads = max(1, first.n_threads // 2)
        self._warm_up(first.role)
        info = self._model.info
        self._send(
            frames.Opened(
                info.description, info.n_embd, info.n_vocab, info.n_layer, info.n_ctx_sequence, info.system
            )
        )
        while (request := self._next()) is not None:
            self._answer(request)

    def _warm_up(self, role: str) -> None:
        """One decode before the first request: pages the weights in, and gives the speed a first value."""
        ids = [0] * _WARM_UP_TOKENS
        for _ in range(2):
            start = time.monotonic()
            if role == "encoder":
                self._model.encode(ids)
                pace = self._encode_pace
            else:
                self._model.set_prefix(ids)
                self._model.set_prefix([])
                pace = self._score_pace
            ms = (time.monotonic() - start) * 1000.0
        pace.measured(cost(len(ids)), ms)  # the second: the first is as slow as the disk

    def _answer(self, request: frames.Request) -> None:
        if isinstance(request, frames.Open | frames.Cancel):
            return
        try:
            if isinstance(request, frames.Tokenize):
                ids = [self._model.tokenize([Piece(*piece) for piece in text]) for text in request.texts]
                self._send(frames.Tokens(request.id, ids))
            elif isinstance(request, frames.Encode):
                self._model.use_adapter(_adapter(request.adapter))
                self._send(frames.Done(request.id, self._encode(request)))
            elif isinstance(request, frames.LoadAdapter):
                self._model.load_adapter(Path(request.path))
                self._send(frames.Done(request.id, Stop.DONE))
            else:
                self._model.use_adapter(_adapter(request.adapter))
                self._send(frames.Done(request.id, self._score(request)))
        except ModelInvalid as error:
            self._send(frames.Refused(request.id, str(error)))
        except (EdgeRerankerError, ValueError, RuntimeError) as error:
            self._send(frames.Failed(request.id, str(error)))
        self._last_answered = request.id
        self._cancelled = {id_ for id_ in self._cancelled if id_ > request.id}

    def _encode(self, request: frames.Encode) -> Stop:
        budget = self._budget(request.id, request.budget_ms)
        for index, ids in enumerate(request.sequences):
            if not budget.allows(_SAFETY * self._encode_pace.predict_ms(cost(len(ids)))):
                self._encode_pace.refused()
                return Stop.DEADLINE
            start = time.monotonic()
            vector = self._model.encode(ids, n_threads=self._background_threads if request.background else 0)
            if not request.background:
                self._encode_pace.measured(cost(len(ids)), (time.monotonic() - start) * 1000.0)
            self._send(frames.Rows(request.id, [index], vector.tobytes()))
        return Stop.DONE

    def _score(self, request: frames.Score) -> Stop:
        from edge_reranker.engine.llama import MAX_BATCH_TOKENS

        budget = self._budget(request.id, request.budget_ms)
        # What all candidates begin with is decoded once, behind the prefix.
        shared = shared_length(request.suffixes)
        prefix = [*request.prefix, *request.suffixes[0][:shared]] if shared else request.prefix
        suffixes = [suffix[shared:] for suffix in request.suffixes]
        waves = plan(
            [len(suffix) for suffix in suffixes],
            max_sequences=self._model.n_sequences,
            max_tokens=MAX_BATCH_TOKENS,
        )
        if not budget.allows(_SAFETY * self._score_pace.predict_ms(cost(self._model.prefix_cost(prefix)))):
            self._score_pace.refused()
            return Stop.DEADLINE
        start = time.monotonic()
        decoded = self._model.set_prefix(prefix)
        if decoded:
            self._score_pace.measured(cost(decoded), (time.monotonic() - start) * 1000.0)
        for wave in waves:
            for batch in wave:
                n_tokens = batch.n_tokens
                if not budget.allows(_SAFETY * self._score_pace.predict_ms(cost(n_tokens))):
                    self._score_pace.refused()
                    return Stop.DEADLINE
                start = time.monotonic()
                rows = self._model.score(suffixes, batch, request.targets)
                self._score_pace.measured(cost(n_tokens), (time.monotonic() - start) * 1000.0)
                self._send(frames.Rows(request.id, list(batch.indices), rows.tobytes()))
        return Stop.DONE

    def _budget(self, request_id: int, budget_ms: float) -> Budget:
        def cancelled() -> bool:
            while not self._closed and frames.waiting(self._in):
                self._receive()
            return self._closed or request_id in self._cancelled

        return Budget(budget_ms, cancelled)

    def _receive(self) -> None:
        body = frames.read(self._in)
        if body is None:
            self._closed = True
            return
        request = frames.request_decoder.decode(body)
        if isinstance(request, frames.Cancel):
            if request.id > self._last_answered:
                self._cancelled.add(request.id)
        else:
            self._queue.append(request)

    def _next(self) -> frames.Request | None:
        while not self._queue and not self._closed:
            self._receive()
        return self._queue.popleft() if self._queue else None

    def _send(self, message: frames.Response) -> None:
        frames.write(self._out, message)


def _adapter(wanted: tuple[str, float] | None) -> Adapter | None:
    return None if wanted is None else Adapter(Path(wanted[0]), wanted[1])


def main() -> None:
    """Runs a worker on standard input and output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Native code may print; only our frames may reach the pipe.
    fd_out = os.dup(1)
    os.dup2(2, 1)
    try:
        Worker(0, fd_out).run()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # the service is gone: nothing to tell, nothing to save


if __name__ == "__main__":
    main()
