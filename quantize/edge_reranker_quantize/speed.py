"""How fast a model file loads and reads on this device, and the memory it takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Stop, WorkerEngine
from edge_reranker.engine.types import Role
from edge_reranker.errors import EngineDied

# Tokens; an encoder puts two of its own around them, and BERT has 512 positions.
LENGTHS: Mapping[Role, tuple[int, int]] = {"scorer": (64, 512), "ranker": (64, 508), "encoder": (64, 508)}
_N_SHORT = 4  # texts a round
_LOAD_MS = 600_000.0
_CONTEXT = 768  # a step of 256 more than is read


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over rounds. ``prefill`` is tokens per second by length of the text.

    ``to_baseline`` is the speed at the longest length by the baseline's in the same round, its median.
    """

    load_s: float
    resident_bytes: int
    prefill: Mapping[int, float]
    to_baseline: float


@dataclass(frozen=True, slots=True)
class _Round:
    load_s: float
    resident_bytes: int
    prefill: Mapping[int, float]


class Clock:
    """Rounds over all variants in turn, A B C A B C, so that all see the same machine."""

    def __init__(self, role: Role, n_threads: int, ids: Sequence[int]) -> None:
        """``ids`` are real tokens, more than are read at once."""
        self._role: Role = role
        self._n_threads = n_threads
        self._ids = list(ids)
        self._rounds: dict[str, list[_Round]] = {}
        self._n_read = 0

    def round(self, variants: Mapping[str, Path]) -> None:
        """Loads and reads once with each. Raises EngineDied for a file that does not load."""
        for name, path in variants.items():
            self._rounds.setdefault(name, []).append(self._once(path))

    def of(self, name: str, baseline: str) -> Speed:
        """What the rounds found of a variant that was in all of them, as ``baseline`` was."""
        rounds, theirs = self._rounds[name], self._rounds[baseline]
        longest = max(LENGTHS[self._role])
        return Speed(
            statistics.median(each.load_s for each in rounds),
            int(statistics.median(each.resident_bytes for each in rounds)),
            {n: statistics.median(each.prefill[n] for each in rounds) for n in LENGTHS[self._role]},
            statistics.median(
                a.prefill[longest] / b.prefill[longest] for a, b in zip(rounds, theirs, strict=True)
            ),
        )

    def _once(self, path: Path) -> _Round:
        start = time.perf_counter()
        engine = WorkerEngine(
            EngineSpec(path, self._role, self._n_threads, n_sequences=1, n_ctx_sequence=_CONTEXT)
        )
        try:
            if not engine.wait_ready(Deadline.after_ms(_LOAD_MS)):
                raise EngineDied(engine.problem or f"{path} does not load")
            load_s = time.perf_counter() - start
            short, long_ = LENGTHS[self._role]
            self._read(engine, short)  # the first decode reserves and rearranges
            prefill = {
                short: self._tokens_per_s(engine, short, _N_SHORT),
                long_: self._tokens_per_s(engine, long_, 1),
            }
            return _Round(load_s, resident_bytes(engine.pid or 0), prefill)
        finally:
            engine.close()

    def _tokens_per_s(self, engine: WorkerEngine, n: int, n_texts: int) -> float:
        start = time.perf_counter()
        for _ in range(n_texts):
            self._read(engine, n)
        return n_texts * n / (time.perf_counter() - start)

    def _read(self, engine: WorkerEngine, n: int) -> None:
        self._n_read += 1
        turn = (self._n_read * 17) % len(
            self._ids
        )  # begins with another token: nothing is found in the cache
        ids = [*self._ids[turn:], *self._ids[:turn]][:n]
        if self._role == "encoder":
            stop = engine.encode([ids], Deadline()).stop
        else:
            stop = engine.score(ids[:-1], [ids[-1:]], ids[:1], Deadline()).stop
        if stop != Stop.DONE:
            raise EngineDied(engine.problem or "the model stopped while it was measured; run it again")


def resident_bytes(pid: int) -> int:
    """Memory of a process, its own and shared. Raises OSError when there is no such process."""
    status = Path(f"/proc/{pid}/status")
    if status.is_file():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024
    told = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not told.isdigit():
        raise ProcessLookupError(f"process {pid} is gone; processes here: {os.name}")
    return int(told) * 1024
