"""What a backup costs those who use the store meanwhile, and how long it takes.

A store of 40,000 events. One thread records single events, another reads the newest 50, every 5 ms; their
latencies while a backup is made at the service's pace against those just before and after it, in one run.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import report
from edge_reranker.store import Store
from edge_reranker.store.upkeep import REST
from edge_reranker.types import Event, EventType, Item

N_EVENTS = 40_000
N_ROUNDS = 5
# Of a p99 among a few hundred calls; a stall for the length of the backup would be 50 and more.
_BOUND = 3.0


def main() -> bool:
    """Whether nobody was held up."""
    during: dict[str, list[float]] = {"record": [], "read": []}
    without: dict[str, list[float]] = {"record": [], "read": []}
    took_s = []
    with (
        tempfile.TemporaryDirectory(prefix="backup-") as name,
        Store.open(Path(name), key_source="file") as store,
    ):
        for start in range(0, N_EVENTS, 500):
            store.record("app", [_event(n) for n in range(start, start + 500)])
        size_bytes = store.path.stat().st_size
        for _ in range(N_ROUNDS):
            began = time.monotonic()
            pace = _Pace()
            _watch(store, lambda pace=pace: store._care.back_up(pace), during)  # type: ignore[misc]
            took_s.append(time.monotonic() - began)
            _watch(store, lambda: time.sleep(took_s[-1]), without)
    figures: dict[str, object] = {
        "size_mb": size_bytes / 1e6,
        "takes_s": statistics.median(took_s),
    }
    worst = 0.0
    for kind in during:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            a, b = (sorted(times)[int(share * (len(times) - 1))] for times in (during[kind], without[kind]))
            figures[f"{kind}_{name}_ms"] = [round(b * 1000, 2), round(a * 1000, 2)]
            figures[f"{kind}_{name}_ratio"] = round(a / b, 2)
            worst = max(worst, a / b)
        figures[f"{kind}_max_ms"] = [round(max(without[kind]) * 1000, 1), round(max(during[kind]) * 1000, 1)]
    return report("backup", figures, {"p50 and p99 <= 3 x those without": worst <= _BOUND})


class _Pace:
    """As the service does it: it rests after each step as long as the step took."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> None:
        time.sleep((time.monotonic() - self._began) * REST)
        self._began = time.monotonic()


def _watch(store: Store, meanwhile: Callable[[], object], times: dict[str, list[float]]) -> None:
    """Record and read, with a pause as users have it, for as long as ``meanwhile`` takes."""
    done = threading.Event()

    def work(kind: str, call: Callable[[int], object]) -> None:
        n = 0
        while not done.is_set():
            began = time.monotonic()
            call(n)
            times[kind].append(time.monotonic() - began)
            n += 1
            time.sleep(0.005)

    unique = time.monotonic_ns()
    threads = [
        threading.Thread(target=work, args=("record", lambda n: store.record("app", [_event(unique + n)]))),
        threading.Thread(target=work, args=("read", lambda _: store.context("app", 50))),
    ]
    for thread in threads:
        thread.start()
    try:
        meanwhile()
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _event(n: int) -> Event:
    return Event(f"e{n}", EventType.LIKE, 1e9 + n, Item(f"i{n}", f"Title {n}", "words " * 100, ("Drama",)))


if __name__ == "__main__":
    main()
