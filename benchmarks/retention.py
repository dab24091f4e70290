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
from edge_reranker.types import Event, EventType, Item
from edge_reranker_client import EdgeReranker, Retention
from edge_reranker_client import Event as SentEvent
from edge_reranker_client import Item as SentItem

_EVENTS = 1_000_000
_LIKES = 100
_ITEMS = 5_000
_BATCH = 20_000
# A million rows through Python take minutes.
_MANY = """
WITH RECURSIVE n (i) AS (VALUES (?) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
INSERT INTO events (namespace, item, event_id, type, occurred_at, query, dwell_s, surface, session_id,
    ranking_id, position)
SELECT 'default', (SELECT min(id) FROM items) + i % 5000, lower(hex(randomblob(16))), 2, 1.6e9 + 30.0 * i,
    '', 0.0, 'home', lower(hex(randomblob(8))), '', i % 20 FROM n
"""
_WINDOWS = 8
_WINDOW_S = 4.0
_PAUSE_S = 0.002
_RERANKS_PER_RECORD = 5


def main() -> bool:
    """Windows with and without a sweep, in turns, over the socket and with ``--model none``."""
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        folder = Path(name)
        # A process of its own, so that only this is polite to others.
        command = [sys.executable, "-m", "benchmarks.retention", name]
        subprocess.run(command, check=True, env=os.environ)
        size_bytes = (folder / "store.db").stat().st_size
        with _service(folder) as client:
            figures = _measure(client)
        with Store.open(folder, key_source="file") as store:
            left = store.counts("default")["events"]
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


def _build(folder: Path) -> None:
    """A million views of 5,000 items, with ids as apps make them, then some likes."""
    with Store.open(folder, key_source="file") as store:
        items = [Item(f"i{n}", f"Title {n}", tags=(f"tag {n % 20}",)) for n in range(_ITEMS)]
        views = [Event(f"v{n}", EventType.VIEW, 1.5e9 + n, item) for n, item in enumerate(items)]
        store.record("default", views)
        for first in range(0, _EVENTS - _ITEMS, _BATCH):
            numbers = (first, min(first + _BATCH, _EVENTS - _ITEMS))
            store._writer.submit(lambda db, numbers=numbers: db.conn.execute(_MANY, numbers) and None)  # type: ignore[misc]
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
