"""Which events a prompt shows: an append-only window, so that a decoded prompt stays useful."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


class Window:
    """The newest lines that fit a budget of tokens, chosen so that a new line nearly always only adds.

    A window that slides changes its beginning with every event, and all behind it must be decoded again.
    This one grows at its end until it passes the budget, and then starts anew with the newest lines that
    fill half of it. So at least half a budget of new lines pays for each new start: decoding them costs no
    more than twice their own tokens, whatever comes (the budget and one line more at the first start).
    """

    def __init__(self, budget: int, first: str = "") -> None:
        """``budget`` is in tokens, at least 1; ``first`` names the line that a window before began with."""
        self._budget = budget
        self.first = first

    def start(self, names: Sequence[str], lengths: Sequence[int]) -> int:
        """The index of the first line shown, of lines oldest to newest with these names and tokens.

        Only the newest line may be longer than the budget, alone.
        """
        start = names.index(self.first) if self.first in names else 0
        if sum(lengths[start:]) > self._budget:
            sums = itertools.accumulate(reversed(lengths))
            n_kept = sum(1 for _ in itertools.takewhile(lambda total: total <= self._budget / 2, sums))
            start = len(lengths) - max(1, n_kept) if lengths else 0
        self.first = names[start] if names else ""
        return start
