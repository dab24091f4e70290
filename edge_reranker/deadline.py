"""Time that is left. Standard library only."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds, by which an answer must be ready.

    Once ``cancelled`` is set, because nobody waits for the answer any more, no time is left.
    """

    at_s: float = math.inf
    cancelled: threading.Event | None = None

    @classmethod
    def after_ms(cls, budget_ms: float) -> Deadline:
        """The moment ``budget_ms`` milliseconds from now."""
        return cls(time.monotonic() + budget_ms / 1000.0)

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
        return Deadline(self.at_s - margin_ms / 1000.0, self.cancelled)

    def half(self) -> Deadline:
        """The same, when half of the time is gone that is left now."""
        if math.isinf(self.at_s):
            return self
        now_s = time.monotonic()
        return Deadline(now_s + (self.at_s - now_s) / 2, self.cancelled)

    def sooner(self, other: Deadline) -> Deadline:
        """The earlier of two; the one that can be cancelled stays so."""
        return Deadline(min(self.at_s, other.at_s), self.cancelled or other.cancelled)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining_ms() <= 0.0
