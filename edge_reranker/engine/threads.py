"""How many threads to decode with: threads wait for each other, and for whoever holds their processors."""

from __future__ import annotations

from edge_reranker.deadline import Pace

# Undisturbed, threads compute 0.9 of the time and more; beside one busy program, half: docs/decisions/0007.
_DISTURBED = 0.6
# So many decodes in a row, for any one may have been disturbed by a moment's work.
_IN_A_ROW = 4
_TRY_EVERY = 20


class Threads:
    """All threads on a quiet device; else all or half of them, whichever was faster of late."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._half = max(1, most // 2)
        self._paces = {self._most: Pace(), self._half: Pace()}
        self._disturbed = False
        self._in_a_row = 0
        self._n = 0

    def choose(self) -> int:
        """Threads for the next decode. While the device is busy, now and then twice the slower number."""
        if not self._disturbed:
            return self._most
        slower, faster = sorted(self._paces, key=lambda n: self._paces[n].predict_ms(1), reverse=True)
        self._n += 1
        return slower if self._n % _TRY_EVERY < 2 else faster

    def measured(self, n_threads: int, n_units: float, wall_ms: float, cpu_ms: float) -> None:
        """Takes in one decode: how long it was and took, and the processor time of all its threads."""
        if self._disturbed and self._n % _TRY_EVERY in (0, 2):
            return  # the first with another number of threads: these are still waking up
        self._paces[n_threads].measured(n_units, wall_ms)
        if n_threads != self._most or self._half == self._most:
            return
        if cpu_ms >= _DISTURBED * n_threads * wall_ms:
            self._in_a_row, self._disturbed = 0, False
            return
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW and not self._disturbed:
            self._paces[self._half] = Pace()  # what it knows is of another hour: 0 ms, so it comes next
            self._disturbed, self._n = True, 2
