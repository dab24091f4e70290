"""What time it is, as far as the device's clock can be believed: ages of events are counted by it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlite_utils import Database

from edge_reranker.errors import StoreError
from edge_reranker.store.readers import Read
from edge_reranker.store.writer import Writer, transaction

# Steps of the clock below this change no age that is counted in days.
_SLEW_S = 60.0
# Nobody knows how long the service was not there. So much of it is believed at once.
_GAP_S = 86_400.0
# A clock that was wrong is put right within days, by the network or by its user.
_WAIT_S = 7 * 86_400.0
# A clock before this stands where a board without a battery has put it: there was no such program then.
_RELEASED_S = 1_735_689_600.0  # 2025-01-01T00:00:00Z
# Events may lie so far ahead (the contract); later than that, nothing can have happened.
_AHEAD_S = 86_400.0
_MAX_STEPS = 32
_NOTE_S = 3_600.0


def passed_s() -> float:
    """Seconds on a clock that nobody can set, and that goes on while the device sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Noted:
    """The store's time at a moment, and what the device's clock said then, both in s since 1970.

    ``steps`` are the clock's jumps ahead that are not believed yet, oldest first: when (by the store's time)
    and how far, in s.
    """

    store_s: float
    device_s: float
    steps: tuple[tuple[float, float], ...] = ()


def advance(noted: Noted, device_s: float, passed: float | None) -> Noted:
    """The store's time now, from the time before, what the device's clock says and how long it has been.

    ``passed`` is None at a start, where nobody knows. The store's time

    1. goes on by ``passed``, and over a start by as much as the clock did, but 0 to 24 hours;
    2. jumps ahead with the clock once that has stayed so far ahead of it for seven days of the store's time;
    3. never goes back.

    So no event gets older by more than the time that has really passed, and a day for each start, unless the
    clock told so for a week: one that jumps, however far, and comes back within a week has changed no age.
    After a device was off for years, or asleep unnoticed, ages are right again a week later.
    """
    moved = device_s - noted.device_s
    store_s = noted.store_s + (min(max(moved, 0.0), _GAP_S) if passed is None else passed)
    steps = list(noted.steps)
    more = device_s - store_s - sum(far for _, far in steps)
    if more > _SLEW_S:
        steps.append((store_s, more))
    # What comes back takes from the newest first: a step that is left was ahead in full ever since.
    while steps and more < -_SLEW_S:
        since, far = steps.pop()
        more += far
        if more > 0:
            steps.append((since, more))
    # From a time that cannot be right, no jump says how long it has been: see `set_right`.
    while steps and store_s >= _RELEASED_S and store_s - steps[0][0] >= _WAIT_S:
        _, far = steps.pop(0)
        store_s += far
        steps = [(since + far, each) for since, each in steps]
    while len(steps) > _MAX_STEPS:
        # The later moment for both: nothing is believed sooner.
        (_, far), (since, more) = steps[-2:]
        steps[-2:] = [(since, far + more)]
    return Noted(store_s, device_s, tuple(steps))


def get(db: Database) -> Noted | None:
    """What was noted last; None in a store that never did."""
    row = db.conn.execute("SELECT store_s, device_s, steps FROM clock").fetchone()
    if row is None:
        return None
    return Noted(row[0], row[1], tuple((since, far) for since, far in json.loads(row[2])))


def put(db: Database, noted: Noted) -> None:
    """Note it, inside the caller's transaction."""
    db.conn.execute("DELETE FROM clock")
    db.conn.execute(
        "INSERT INTO clock (store_s, device_s, steps) VALUES (?, ?, ?)",
        (noted.store_s, noted.device_s, json.dumps(noted.steps)),
    )


def begin(db: Database, device_s: float) -> Noted:
    """The time at a start. A store without events believes the clock as it is. Nothing is written."""
    noted = get(db)
    if noted is None or db.conn.execute("SELECT 1 FROM events LIMIT 1").fetchone() is None:
        return Noted(device_s, device_s)
    return advance(noted, device_s, None)


def set_right(db: Database, now: Noted) -> Noted:
    """The time from now on, once this clock has been set for the first time; noted if it should be.

    Inside the caller's transaction. What was recorded by a clock from before this program was there is as old
    as that clock said, counted back from the first that can be right.
    """
    if now.store_s < _RELEASED_S <= now.device_s:
        db.conn.execute(
            "UPDATE events SET occurred_at = occurred_at + ? WHERE occurred_at <= ?",
            (now.device_s - now.store_s, now.store_s + _AHEAD_S),
        )
        now = Noted(now.device_s, now.device_s)
    kept = get(db)
    if kept is None or _moved_on(kept, now):
        put(db, now)
    return now


def at_start(writer: Writer, read: Read, device_s: float) -> Noted:
    """The time at the start, noted where there is room."""

    def write(db: Database) -> Noted:
        with transaction(db):
            return set_right(db, begin(db, device_s))

    # Whoever must forget to get room has to get in first, even into a store that could not be migrated.
    with contextlib.suppress(StoreError):
        return writer.alone(write)
    with contextlib.suppress(StoreError):
        return read(lambda db: begin(db, device_s))
    return Noted(device_s, device_s)


def _moved_on(kept: Noted, now: Noted) -> bool:
    """Whether ``now`` should be noted: an hour has passed, or the clock has jumped."""
    return now.steps != kept.steps or now.store_s - kept.store_s >= _NOTE_S


class Clock:
    """The store's time while it is open. Thread-safe."""

    def __init__(self, noted: Noted, device: Callable[[], float], passed: Callable[[], float]) -> None:
        self._device = device
        self._passed = passed
        self._lock = threading.Lock()
        self._noted = noted
        self._looked = passed()
        self._kept = noted

    def now(self) -> Noted:
        """The time now."""
        with self._lock:
            looked = self._passed()
            self._noted = advance(self._noted, self._device(), looked - self._looked)
            self._looked = looked
            return self._noted

    def due(self, now: Noted) -> bool:
        """Whether ``now`` should be noted in the store."""
        return _moved_on(self._kept, now)

    def kept(self, noted: Noted) -> None:
        """Takes in that this was noted."""
        self._kept = noted


def dated(occurred_at: float, now: Noted) -> float:
    """When an event happened by the store's time, which says ``occurred_at`` as it is recorded ``now``.

    While the device's clock is behind, it is taken for what that clock said, unless that would be after now;
    then whoever set it had another clock. Otherwise it stays: one from a clock that is ahead is put right by
    ``undated`` when that has come back.
    """
    behind_s = now.store_s - now.device_s
    moved = occurred_at + behind_s
    return moved if behind_s > _SLEW_S and moved <= now.store_s + _AHEAD_S else occurred_at


def after(now: Noted) -> float | None:
    """The moment after which no event can have happened; None while the clock may be right to be ahead."""
    return None if now.steps else max(now.store_s, now.device_s) + _AHEAD_S
