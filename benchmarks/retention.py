"""Reranks and records while a million events are being swept, in turns with the same without a sweep."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import cache_dir, candidates, films, percentile, report, timed_ms
from edge_reranker.cli import demo, options
from edge_reranker.store import Store
from edge_reranker.store import events as event_rows
from edge_reranker.types import Event, EventType, Item
from edge_reranker_client import EdgeReranker, Retention
from edge_reranker_client import Event as SentEvent
from edge_reranker_client import Item as SentItem

_EVENTS = 1_000_000
_LIKES = 100
_BATCH = 5_000
_WINDOWS = 8
_WINDOW_S = 4.0
_PAUSE_S = 0.002
_RERANKS_PER_RECORD = 5


def main() -> bool:
    """Windows with and without a sweep, in turns, over the socket and with ``--model none``."""
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        folder = Path(name)
        start = time.perf_counter()
        # A process of its own, so that only this is polite to others.
        command = [sys.executable, "-m", "benchmarks.retention", name]
        subprocess.run(command, check=True, env=os.environ)
        built_s = time.perf_counter() - start
        size_bytes = (folder / "store.db").stat().st_size
        with _service(folder) as client:
            figures = _measure(client)
            left = _left(client)
    sweeping_p99 = percentile(figures["sweeping"], 0.99)
    calm_p99 = percentile(figures["calm"], 0.99)
    ratio = sweeping_p99 / calm_p99
    return report(
        "retention",
        {
            "n_events": _EVENTS,
            "n_swept": _EVENTS - left,
            "swept_per_s": (_EVENTS - left) / (_WINDOWS * _WINDOW_S),
            "bytes_per_event": size_bytes / _EVENTS,
            "built_s": built_s,
            "load_1min": os.getloadavg()[0],
            "n_reranks": len(figures["sweeping"]),
            "calm_p50_ms": percentile(figures["calm"], 0.5),
            "calm_p99_ms": calm_p99,
            "sweeping_p50_ms": percentile(figures["sweeping"], 0.5),
            "sweeping_p99_ms": sweeping_p99,
            "sweeping_to_calm_p99": ratio,
            "calm_record_p50_ms": percentile(figures["calm_record"], 0.5),
            "calm_record_p99_ms": percentile(figures["calm_record"], 0.99),
            "sweeping_record_p50_ms": percentile(figures["sweeping_record"], 0.5),
            "sweeping_record_p99_ms": percentile(figures["sweeping_record"], 0.99),
        },
        {"p99 of a rerank during a sweep <= 1.5 x without": ratio <= 1.5},
    )


def _measure(client: EdgeReranker) -> dict[str, list[float]]:
    sent = candidates(films()[:100])
    kinds = ("calm", "sweeping")
    spent: dict[str, list[float]] = {name: [] for kind in kinds for name in (kind, f"{kind}_record")}
    for _ in range(50):
        client.rerank(sent)
    for window in range(2 * _WINDOWS):
        kind = "sweeping" if window % 2 else "calm"
        client.set_retention(Retention(max_events=_LIKES) if window % 2 else Retention())
        until = time.monotonic() + _WINDOW_S
        while time.monotonic() < until:
            for _ in range(_RERANKS_PER_RECORD):
                spent[kind].append(timed_ms(lambda: client.rerank(sent)))
                time.sleep(_PAUSE_S)
            seen = SentEvent("IMPRESSION", SentItem("1"), occurred_at=1e9)
            spent[f"{kind}_record"].append(timed_ms(lambda seen=seen: client.record([seen])))  # type: ignore[misc]
        assert client.retention().sweeping == bool(window % 2)
    client.set_retention(Retention())
    return spent


def _left(client: EdgeReranker) -> int:
    """How many of the events are still there. The oldest went first, and one that is gone is new again."""
    low, high = 0, _EVENTS
    while low < high:
        middle = (low + high) // 2
        if client.record([_sent(middle)]).recorded:
            low = middle + 1
        else:
            high = middle
    return _EVENTS - low


def _sent(number: int) -> SentEvent:
    return SentEvent("VIEW", SentItem(f"i{number % 5_000}"), f"v{number}", occurred_at=_at_s(number))


def _at_s(number: int) -> float:
    return 1_600_000_000.0 + number * 30.0


def _build(folder: Path) -> None:
    """A million views of 5,000 items, then some likes, through the store's own rows."""
    with Store.open(folder, key_source="file") as store:
        items = [Item(f"i{n}", f"Title {n}", tags=(f"tag {n % 20}",)) for n in range(5_000)]
        for first in range(0, _EVENTS, _BATCH):
            rows = event_rows.encode(
                [
                    Event(f"v{n}", EventType.VIEW, _at_s(n), items[n % len(items)], surface="home")
                    for n in range(first, first + _BATCH)
                ]
            )
            store._writer.submit(lambda db, rows=rows: event_rows.insert(db, "default", rows))  # type: ignore[misc]
        liked = films()[100 : 100 + _LIKES]
        now = time.time() - 3600
        store.record(
            "default", [Event(f"l{n}", EventType.LIKE, now + n, item) for n, item in enumerate(liked)]
        )


@contextlib.contextmanager
def _service(folder: Path) -> Iterator[EdgeReranker]:
    config = options.load_config({"cache_dir": cache_dir(), "model": "none"})
    with demo.service(config, folder, stderr=subprocess.DEVNULL) as client:
        yield client


if __name__ == "__main__":
    os.nice(10)
    _build(Path(sys.argv[1]))
