"""Time that is left, and time that work takes. Standard library only."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from dataclasses import dataclass

from edge_reranker.turns import Turn
from edge_reranker.types import Timings

# ``least_units`` of what is done for each candidate, and for each character (RerankQuery.work): lists below
# this take about as long as one of it.
LEAST_CANDIDATES = 50.0
LEAST_CHARACTERS = 128.0 * LEAST_CANDIDATES


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds, by which an answer must be ready.

    Once ``cancelled`` is set, because nobody waits for the answer any more, no time is left. ``turn`` is the
    request's turn at computing, which others have ``while_waiting``.
    """

    at_s: float = math.inf
    cancelled: threading.Event | None = None
    turn: Turn | None = None

    @classmethod
    def after_ms(cls, budget_ms: float) -> Deadline:
        """The moment ``budget_ms`` milliseconds from now."""
        return cls(time.monotonic() + budget_ms / 1000.0)

    @property
    def due_s(self) -> float:
        """``at_s``; long past once cancelled."""
        return -math.inf if self.cancelled is not None and self.cancelled.is_set() else self.at_s

    def remaining_ms(self) -> float:
        """Milliseconds left; not above 0 once it has passed, ``inf`` when there is no limit."""
        if self.cancelled is not None and self.cancelled.is_set():
            return 0.0
        return (self.at_s - time.monotonic()) * 1000.0

    def remaining_s(self) -> float | None:
        """Seconds left, never negative; None when there is no limit (as timeouts want it)."""
        remaining_ms = self.remaining_ms()
        return None if math.isinf(remaining_ms) else max(0.0, remaining_ms / 1000.0)

    def less_ms(self, margin_ms: float) -> Deadline:
        """The same, ``margin_ms`` milliseconds earlier."""
        return dataclasses.replace(self, at_s=self.at_s - margin_ms / 1000.0)

    def half(self) -> Deadline:
        """The same, when half of the time is gone that is left now."""
        if math.isinf(self.at_s):
            return self
        now_s = time.monotonic()
        return dataclasses.replace(self, at_s=now_s + (self.at_s - now_s) / 2)

    def sooner(self, other: Deadline) -> Deadline:
        """The earlier of two; the one that can be cancelled stays so."""
        return Deadline(
            min(self.at_s, other.at_s), self.cancelled or other.cancelled, self.turn or other.turn
        )

    def while_waiting(self) -> contextlib.AbstractContextManager[None]:
        """For the time in which the request waits for something else than its turn at computing."""
        return contextlib.nullcontext() if self.turn is None else self.turn.lent()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining_ms() <= 0.0


class Pace:
    """How long work takes, learned as it goes: milliseconds per unit of work, an exponential average.

    Fewer than ``least_units`` count as so many: what it costs to begin, most of what a short list takes, is
    no pace. Threads may share one: at worst a measurement is lost.
    """

    def __init__(self, ms_per_unit: float | None = None, least_units: float = 0.0) -> None:
        self._ms_per_unit = ms_per_unit
        self._least_units = least_units

    def predict_ms(self, n_units: float) -> float:
        """What ``n_units`` will take; 0 before anything is known."""
        return 0.0 if self._ms_per_unit is None else self._ms_per_unit * max(self._least_units, n_units)

    def measured(self, n_units: float, ms: float) -> None:
        """Takes in one measurement."""
        found = ms / max(1.0, self._least_units, n_units)
        self._ms_per_unit = found if self._ms_per_unit is None else 0.7 * self._ms_per_unit + 0.3 * found

    def refused(self) -> None:
        """A prediction was too large to be tried: lowered, or one stall would forbid work for ever."""
        if self._ms_per_unit is not None:
            self._ms_per_unit *= 0.9


class Paces:
    """A pace of each app: what one asks for must not change what another is thought to take. Thread-safe."""

    def __init__(self, ms_per_unit: float | None = None, least_units: float = 0.0) -> None:
        self._ms_per_unit = ms_per_unit
        self._least_units = least_units
        self._paces: dict[str, Pace] = {}

    def of(self, namespace: str) -> Pace:
        """The pace of one app, made when it is first asked for."""
        return self._paces.get(namespace) or self._paces.setdefault(
            namespace, Pace(self._ms_per_unit, self._least_units)
        )


class Watch:
    """Milliseconds by stage of one request, from when it is made. Not thread-safe."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._spent: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Counts the time since the last lap to ``stage``."""
        now = time.perf_counter()
        self._spent[stage] = self._spent.get(stage, 0.0) + (now - self._last) * 1000.0
        self._last = now

    def spent_ms(self, stage: str) -> float:
        """What ``stage`` has taken so far."""
        return self._spent.get(stage, 0.0)

    def timings(self) -> Timings:
        """All stages, and the whole until now."""
        total_ms = (time.perf_counter() - self._start) * 1000.0
        return Timings(total_ms=total_ms, **{f"{stage}_ms": ms for stage, ms in self._spent.items()})
