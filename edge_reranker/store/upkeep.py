"""What a running service does by itself to keep the store safe: a thread that makes the daily backup.

The backup reads and checks every page, so it is also what finds damage that nobody has read yet.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from edge_reranker.errors import StoreBusy, StoreError

DAILY_S = 24 * 3600.0
# Between two looks at whether a backup is due: a device may have slept.
_LOOK_S = 1800.0
# After a backup that could not be made: somebody was in a hurry, or there is no room now.
_AGAIN_S = 60.0
# An idle moment is when nothing was asked for this long; who is never idle gets one anyway after an hour.
_QUIET_S = 2.0
_PATIENCE_S = 3600.0
# Between two steps of a copy, as a share of what a step takes: half of a core. Not a low priority for the
# thread: on a busy machine it would be kept waiting with the interpreter's lock, and all others with it.
REST = 1.0


class Upkeep:
    """The thread. ``due_in_s`` says when the next backup is due, ``back_up`` makes one at the given pace.

    ``quiet_s`` says for how long nothing was asked of the store.
    """

    def __init__(
        self,
        due_in_s: Callable[[], float],
        back_up: Callable[[Callable[[], None]], object],
        quiet_s: Callable[[], float],
    ) -> None:
        self._due_in_s = due_in_s
        self._back_up = back_up
        self._quiet_s = quiet_s
        self._stopping = threading.Event()
        self._step_began = 0.0
        self._thread = threading.Thread(target=self._loop, name="store-upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give up what is under way, and stop. Idempotent."""
        self._stopping.set()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            wait_s = self._due_in_s()
            if wait_s <= 0:
                wait_s = _AGAIN_S
                if self._wait_for_quiet():
                    with contextlib.suppress(StoreError, OSError):
                        self._step_began = time.monotonic()
                        self._back_up(self._rest)
                        wait_s = _LOOK_S
            if self._stopping.wait(min(wait_s, _LOOK_S)):
                return

    def _rest(self) -> None:
        took_s = time.monotonic() - self._step_began
        if self._stopping.wait(took_s * REST):
            raise StoreBusy("the store is being closed; the backup is made after the next start")
        self._step_began = time.monotonic()

    def _wait_for_quiet(self) -> bool:
        """Wait for an idle moment; False when the store is being closed."""
        until = time.monotonic() + _PATIENCE_S
        while not self._stopping.is_set():
            left_s = _QUIET_S - self._quiet_s()
            if left_s <= 0 or time.monotonic() > until:
                return True
            self._stopping.wait(left_s)
        return False
