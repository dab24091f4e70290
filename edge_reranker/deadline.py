"""Time that is left. Standard library only."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds, by which an answer must be ready."""

    at_s: float = math.inf

    @classmethod
    def after_ms(cls, budget_ms: float) -> Deadline:
        """The moment ``budget_ms`` milliseconds from now."""
        return cls(time.monotonic() + budget_ms / 1000.0)

    def remaining_ms(self) -> float:
        """Milliseconds left; negative once it has passed, ``inf`` when there is no limit."""
        return (self.at_s - time.monotonic()) * 1000.0

    def remaining_s(self) -> float | None:
        """Seconds left, never negative; None when there is no limit (as timeouts want it)."""
        if math.isinf(self.at_s):
            return None
        return max(0.0, self.at_s - time.monotonic())

    def less_ms(self, margin_ms: float) -> Deadline:
        """The same moment, ``margin_ms`` milliseconds earlier."""
        return Deadline(self.at_s - margin_ms / 1000.0)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at_s
