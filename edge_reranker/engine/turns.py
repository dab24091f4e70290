"""Who may talk to the worker next: one at a time, background work only when nobody else waits."""

from __future__ import annotations

import threading


class Turns:
    """A lock with two classes of waiters; foreground callers always go before background ones."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken = False
        self._foreground_waiting = 0

    def take(self, timeout_s: float | None, *, background: bool) -> bool:
        """Waits for a turn; False when none came in time (None: wait for ever)."""
        with self._condition:
            if background:
                free = self._condition.wait_for(
                    lambda: not self._taken and not self._foreground_waiting, timeout=timeout_s
                )
            else:
                self._foreground_waiting += 1
                try:
                    free = self._condition.wait_for(lambda: not self._taken, timeout=timeout_s)
                finally:
                    self._foreground_waiting -= 1
            if free:
                self._taken = True
            return free

    def give_back(self) -> None:
        """Ends the turn."""
        with self._condition:
            self._taken = False
            self._condition.notify_all()
