"""Who goes next where only one can: at the worker, and at computing. Standard library only."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Self

_Place = tuple[bool, float, int]  # background, due, and who came first


class Turns:
    """One at a time: background work only when nobody else waits, else who is due first. Thread-safe.

    Where several apps wait, the turn is first of the app that has had the least time since they began to
    wait, whatever the others ask for: one that floods takes turns with the rest.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._numbers = itertools.count()
        # In the order in which their turns come; each waits at a lock of its own, so that a turn wakes one.
        self._line: list[_Place] = []
        self._calls: dict[_Place, threading.Lock] = {}
        self._app_of: dict[_Place, str] = {}
        self._spent_s: dict[str, float] = {}  # by app, while somebody waits
        self._holder, self._since_s = "", 0.0

    def take(self, due_s: float, *, background: bool = False, app: str = "") -> bool:
        """Waits for a turn until ``due_s`` on the monotonic clock (``inf``: for ever); False if none came."""
        with self._lock:
            if not self._taken:
                self._taken = True
                self._begin(app)
                return True
            place = (background, due_s, next(self._numbers))
            # Who comes anew begins with the least of those who are here: time not used is not saved up.
            here = {self._holder, *self._app_of.values()}
            if app not in here:
                least_s = min(self._spent_s.get(each, 0.0) for each in here)
                self._spent_s[app] = max(self._spent_s.get(app, 0.0), least_s)
            self._app_of[place] = app
            bisect.insort(self._line, place)
            call = self._calls[place] = threading.Lock()
            call.acquire()
        timeout_s = -1.0 if due_s == math.inf else max(0.0, due_s - time.monotonic())
        if call.acquire(timeout=timeout_s):
            return True
        with self._lock:
            if place not in self._calls:
                return True  # it came in this very moment
            self._line.remove(place)
            del self._calls[place], self._app_of[place]
            return False

    def give_back(self) -> None:
        """Ends the turn; the next one's begins."""
        with self._lock:
            if not self._line:
                self._taken = False
                self._spent_s.clear()
                return
            spent_s = time.monotonic() - self._since_s
            self._spent_s[self._holder] = self._spent_s.get(self._holder, 0.0) + spent_s
            # Stable: of one app's, and of those who had the same, the first in line.
            place = min(self._line, key=lambda each: (each[0], self._spent_s.get(self._app_of[each], 0.0)))
            self._line.remove(place)
            self._begin(self._app_of.pop(place))
            self._calls.pop(place).release()

    def _begin(self, app: str) -> None:
        self._holder, self._since_s = app, time.monotonic()


class Turn:
    """One request's share of ``turns``: taken by ``with``, and lent to others while it waits for elsewhere.

    A request whose turn does not come by ``due_s`` goes on without one: it has to say at least that it is too
    late. For use in one thread.
    """

    def __init__(self, turns: Turns, due_s: float, app: str = "") -> None:
        self._turns = turns
        self._due_s = due_s
        self.app = app
        self._held = False
        self.waited_ms = 0.0

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Lets others have it in between; with nothing to lend, nothing happens."""
        if not self._held:
            yield
            return
        self._give_back()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        start = time.monotonic()
        self._held = self._turns.take(self._due_s, app=self.app)
        self.waited_ms += (time.monotonic() - start) * 1000.0

    def _give_back(self) -> None:
        if self._held:
            self._held = False
            self._turns.give_back()


class Shares:
    """So much of each app at once; who wants more waits until some is done. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._used: Counter[str] = Counter()

    @contextlib.contextmanager
    def of(self, app: str, n: int) -> Iterator[None]:
        """``n`` of the app's share until the block ends; one that is larger than the share goes alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used[app] or self._used[app] + n <= self._most)
            self._used[app] += n
        try:
            yield
        finally:
            with self._changed:
                self._used[app] -= n
                if not self._used[app]:
                    del self._used[app]
                self._changed.notify_all()
