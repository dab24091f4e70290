"""Keeps one worker running: starts it, hands on what it says, and starts it again when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from edge_reranker.deadline import Deadline
from edge_reranker.engine import frames
from edge_reranker.engine.process import spawn
from edge_reranker.engine.types import EngineInfo, EngineSpec
from edge_reranker.errors import EngineDied
from edge_reranker.types import ModelState

_BACKOFF_FIRST_S = 0.1
# A worker that always dies is back within five seconds, loading included, and takes a tenth of a core.
_BACKOFF_LAST_S = 2.0
_BACKOFF_UNLOADABLE_S = 60.0
_HEALTHY_S = 30.0
# A cancelled worker stops at the next node of its graph, a matter of milliseconds: one that has not answered
# by then is stuck, or frozen.
_STUCK_S = 2.0


class Supervisor:
    """One worker process at a time, and the thread that starts, reads and replaces it. Thread-safe."""

    def __init__(
        self, spec: EngineSpec, heard: Callable[[frames.Response], None], lost: Callable[[], None]
    ) -> None:
        """Starts the worker in the background.

        ``heard`` gets each reply to a request, ``lost`` is called when the worker has ended and no reply will
        come any more; both from the supervisor's thread.
        """
        self._spec = spec
        self._heard = heard
        self._lost = lost
        self._process: subprocess.Popen[bytes] | None = None
        self._state = ModelState.LOADING
        self._info: EngineInfo | None = None
        self._problem = ""
        self._loaded = False
        self._refused = False  # the worker itself said that it cannot load the model
        self._changed = threading.Condition()
        self._closed = False
        # What was sent and is not over, and since when nobody waits for it (None: somebody does).
        self._open: dict[int, float | None] = {}
        self._timer: threading.Timer | None = None
        self._write_lock = threading.Lock()
        self.restarts = 0
        self._thread = threading.Thread(target=self._supervise, name="engine-supervisor", daemon=True)
        self._thread.start()

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

    def ask(self, question: frames.Question, deadline: Deadline) -> bool:
        """Sends a question; False when the worker takes none in time. Raises EngineDied."""
        with self._changed:
            if self._state != ModelState.READY:
                raise EngineDied("the model's worker is not running; it is being restarted")
            self._open[question.id] = None
        sent = False
        try:
            sent = self._send(question, deadline)
        except (OSError, ValueError) as error:
            self._kill()  # a message cut off in the middle, or a pipe without an end
            raise EngineDied("the model's worker has gone; it is being restarted") from error
        finally:
            if not sent:
                with self._changed:
                    self._open.pop(question.id, None)
        return sent

    def abandon(self, request_id: int) -> None:
        """Nobody waits for this answer any more: the worker is told, and killed if it does not come round."""
        with self._changed:
            if request_id not in self._open:
                return  # it ended in this very moment
            self._open[request_id] = time.monotonic()
            self._watch(_STUCK_S)
        with contextlib.suppress(OSError, ValueError):
            self._send(frames.Cancel(request_id), Deadline.after_ms(0))

    def close(self) -> None:
        """Stops the worker. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._timer is not None:
                self._timer.cancel()
        self._kill()
        self._thread.join(timeout=10)

    def _send(self, message: frames.Request, deadline: Deadline) -> bool:
        with self._write_lock:
            process = self._process
            if process is None or process.stdin is None:
                raise OSError("no worker")
            limit = Deadline.after_ms(_STUCK_S * 1000.0)
            return frames.write_by(process.stdin.fileno(), message, deadline.sooner(limit))

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()

    def _kill_if_stuck(self) -> None:
        with self._changed:
            self._timer = None
            oldest = min((since for since in self._open.values() if since is not None), default=None)
            if oldest is None:
                return
            left_s = oldest + _STUCK_S - time.monotonic()
            if left_s > 0:
                self._watch(left_s)
                return
        self._kill()

    def _watch(self, after_s: float) -> None:
        """Looks later whether the worker came round; while all is well, nothing wakes up for it."""
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(after_s, self._kill_if_stuck)
            self._timer.daemon = True
            self._timer.start()

    def _supervise(self) -> None:
        pause_s = _BACKOFF_FIRST_S / 2
        while not self._closed:
            started = time.monotonic()
            self._refused = self._loaded = False
            try:
                self._run_worker()
            except (OSError, ValueError) as error:
                self._problem = f"the model's worker could not be started: {type(error).__name__}"
            with self._changed:
                loaded = self._loaded
                self._state = ModelState.FAILED
                self._open.clear()
                self._lost()
                self._changed.notify_all()
                if loaded and time.monotonic() - started > _HEALTHY_S:
                    pause_s = _BACKOFF_FIRST_S
                elif self._refused:
                    # What cannot be loaded now will hardly load in a moment: no process every few seconds.
                    pause_s = _BACKOFF_UNLOADABLE_S
                else:
                    pause_s = min(_BACKOFF_LAST_S if loaded else _BACKOFF_UNLOADABLE_S, pause_s * 2)
                if self._changed.wait_for(lambda: self._closed, timeout=pause_s):
                    return
                self._state = ModelState.LOADING
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
                    spec.mode,
                    spec.nice,
                    spec.pooling,
                    spec.normalise,
                ),
            )
            os.set_blocking(process.stdin.fileno(), False)
            while True:
                body = frames.read(process.stdout.fileno())
                if body is None:
                    return
                self._take_in(frames.response_decoder.decode(body))
        finally:
            with self._changed:  # before its process id goes: nobody may take it for ready meanwhile
                self._loaded = self._state == ModelState.READY
                self._state = ModelState.FAILED
            process.kill()
            code = process.wait()
            if not self._loaded and not self._refused and not self._closed:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                self._unloadable(
                    f"{self._spec.path}: the worker ended while loading it ({how}); check it with "
                    "`edge-reranker model verify`"
                )
            # Under the lock, so that nobody writes to a descriptor that has become another file's.
            with self._write_lock:
                self._process = None
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):
                            stream.close()

    def _unloadable(self, why: str) -> None:
        limit_mb = self._spec.memory_limit_bytes // (1024 * 1024)
        self._problem = f"{why}; or raise memory_limit_mb, which is {limit_mb}" if limit_mb else why

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
            self._refused = True
            self._unloadable(message.message)
            return
        if not isinstance(message, frames.Rows):
            with self._changed:
                self._open.pop(message.id, None)
        self._heard(message)
