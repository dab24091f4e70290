"""A store of 10,000, 100,000 and 1,000,000 events: what recording, ranking and starting cost in each."""

from __future__ import annotations

import gc
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlite_utils import Database

from benchmarks.common import percentile, report, timed_ms
from edge_reranker.cli import demo, options
from edge_reranker.store import Store
from edge_reranker.types import DegradedReason, Event, EventType, Item, Ranking, Result, Timings

_SIZES = (10_000, 100_000, 1_000_000)
_ITEMS = 20_000
_LIST = 20
_BATCH = 100
_ROUNDS = 10
_BATCHES_EACH = 8
_CONTEXTS_EACH = 40
_CONTEXT_EVENTS = 200
_CANDIDATES = 100
_SPACE = "movielens-minilm"
# What a pack's taste counts; the rest of a feed's log, nine of ten events, are impressions and skips.
_TELLING = frozenset(EventType) - {EventType.UNSPECIFIED, EventType.IMPRESSION, EventType.SKIP}


def main() -> bool:
    """The sizes in turns, so that all see the same machine."""
    figures: dict[str, object] = {"load_1_min_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="er-size-") as name:
        start = time.perf_counter()
        folders, users = _made(Path(name))
        figures["made_s"] = time.perf_counter() - start
        for size, folder in folders.items():
            figures[f"{size}_bytes_per_event"] = (folder / "store.db").stat().st_size / size
        spent, cpu = _measured(folders, users)
        for size in _SIZES:
            for what, values in spent[size].items():
                figures[f"{size}_{what}_p50_ms"] = statistics.median(values)
                figures[f"{size}_{what}_p99_ms"] = percentile(values, 0.99)
            cpu_s = sum(cpu[size]) / 1000.0
            figures[f"{size}_events_per_processor_s"] = _BATCH * len(cpu[size]) / cpu_s
            figures[f"{size}_events_per_s"] = (
                _BATCH * len(spent[size]["record"]) / (sum(spent[size]["record"]) / 1000.0)
            )
    figures["load_1_min_after"] = os.getloadavg()[0]
    small, large = spent[_SIZES[0]], spent[_SIZES[-1]]
    growth = {what: statistics.median(large[what]) / statistics.median(small[what]) for what in large}
    figures |= {f"growth_{what}": value for what, value in growth.items()}
    per_s = figures[f"{_SIZES[-1]}_events_per_s"]
    assert isinstance(per_s, float)
    return report(
        "store_size",
        figures,
        {
            "1M: >= 3,000 events/s in batches of 100": per_s >= 3_000,
            "1M: context p99 <= 3 ms": percentile(large["context"], 0.99) <= 3,
            "1M: store opens in <= 300 ms": statistics.median(large["open"]) <= 300,
            "context: 1M <= 1.5 x 10k": growth["context"] <= 1.5,
        },
    )


class _User:
    """Makes up what one user does: lists of 20, of which one or two items are picked."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        words = [f"word{number}" for number in range(5_000)]
        self.items = [
            Item(
                f"item-{number}",
                " ".join(self._random.choices(words, k=5)),
                " ".join(self._random.choices(words, k=25)),
                tuple(self._random.choices(words[:40], k=3)),
                {"lang": "en"},
            )
            for number in range(_ITEMS)
        ]
        self.now_s = time.time() - 2 * 365 * 86_400

    def events(self, n: int) -> Iterator[Event]:
        for place in range(n):
            self.now_s += 30
            kind = EventType.IMPRESSION
            if self._random.random() < 0.07:
                kind = self._random.choice((EventType.VIEW, EventType.CLICK, EventType.LIKE))
            elif self._random.random() < 0.03:
                kind = EventType.SKIP
            yield Event(
                f"{self._random.getrandbits(128):032x}",
                kind,
                self.now_s,
                # Some items are shown far more often than others.
                self.items[int(_ITEMS * self._random.random() ** 2)],
                surface="home",
                session_id=f"session-{int(self.now_s) // 3600}",
                ranking_id=f"ranking-{int(self.now_s) // (30 * _LIST)}",
                position=place % _LIST,
            )


def _made(folder: Path) -> tuple[dict[int, Path], _User]:
    """A closed store of each size; the larger ones go on from the smaller.

    The first 10,000 events come through the front door, at about 100 us of a processor each. The others are
    the same again with ids and times of their own: a million through the door would take minutes.
    """
    user, growing = _User(), folder / "growing"
    found: dict[int, Path] = {}
    with Store.open(growing, key_source="file") as store:
        rows = [(f"hash-{item.id}", item.id, os.urandom(128)) for item in user.items]
        store.put_vectors("default", _SPACE, rows)
        began_s = user.now_s
        for first in range(0, _SIZES[0], _BATCH):
            store.record("default", list(user.events(min(_BATCH, _SIZES[0] - first))))
        span_s = user.now_s - began_s
    before = _SIZES[0]
    for size in _SIZES:
        with Store.open(growing, key_source="file") as store:
            times = [span_s * number for number in range(before // _SIZES[0], size // _SIZES[0])]
            store._writer.alone(lambda db, times=times: _again(db, times))  # type: ignore[misc]
            user.now_s = began_s + span_s * size / _SIZES[0]
        before = size
        found[size] = Path(shutil.copytree(growing, folder / str(size)))
        print(f"{size} events made", file=sys.stderr, flush=True)
    shutil.rmtree(growing)
    return found, user


def _again(db: Database, later_s: Sequence[float]) -> None:
    """The first events once more for each of the times, with new ids."""
    db.conn.execute("PRAGMA cache_size = -400000")  # a page of an index is written once, not for each event
    db.conn.execute("BEGIN IMMEDIATE")
    for by_s in later_s:
        db.conn.execute(
            "INSERT INTO events (namespace, item, event_id, type, occurred_at, query, dwell_s, surface, "
            "session_id, ranking_id, position) "
            "SELECT namespace, item, lower(hex(randomblob(16))), type, occurred_at + ?1, query, dwell_s, "
            "surface, 'session-' || CAST((occurred_at + ?1) / 3600 AS INTEGER), "
            "'ranking-' || CAST((occurred_at + ?1) / 600 AS INTEGER), position "
            "FROM events WHERE seq <= ?2 ORDER BY seq",
            (by_s, _SIZES[0]),
        )
    db.conn.execute("COMMIT")


def _measured(
    folders: dict[int, Path], user: _User
) -> tuple[dict[int, dict[str, list[float]]], dict[int, list[float]]]:
    kinds = ("record", "context", "context_processor", "vectors", "put_ranking", "open", "healthy")
    spent: dict[int, dict[str, list[float]]] = {size: {kind: [] for kind in kinds} for size in folders}
    cpu: dict[int, list[float]] = {size: [] for size in folders}
    # As `serve` does: the 20,000 items stay, and no collection need walk over them.
    gc.collect()
    gc.freeze()
    for _ in range(_ROUNDS):
        for size, folder in folders.items():
            start = time.perf_counter()
            store = Store.open(folder, key_source="file")
            spent[size]["open"].append((time.perf_counter() - start) * 1000.0)
            with store:
                _round(store, user, spent[size], cpu[size])
    config = options.load_config({"model": "none"})
    for _ in range(3):
        for size, folder in folders.items():
            start = time.perf_counter()
            with demo.service(config, folder):
                spent[size]["healthy"].append((time.perf_counter() - start) * 1000.0)
    return spent, cpu


def _round(store: Store, user: _User, spent: dict[str, list[float]], cpu: list[float]) -> None:
    """What an app does with a store that is open: record, rank, and rank again."""
    store.context("default", 1)  # the reader's connection
    for _ in range(_BATCHES_EACH):
        events = list(user.events(_BATCH))
        used_s = time.process_time()
        spent["record"].append(timed_ms(lambda events=events: store.record("default", events)))  # type: ignore[misc]
        # What it takes of a processor is told beside the time: on a busy machine they are far apart.
        cpu.append((time.process_time() - used_s) * 1000.0)
    for number in range(_CONTEXTS_EACH):
        hashes = [f"hash-{item.id}" for item in _shown(user, number)]
        used_s = time.thread_time()
        spent["context"].append(timed_ms(lambda: _context(store)))
        spent["context_processor"].append((time.thread_time() - used_s) * 1000.0)
        spent["vectors"].append(timed_ms(lambda hashes=hashes: store.vectors("default", _SPACE, hashes)))  # type: ignore[misc]
    for number in range(_CONTEXTS_EACH):
        ranking = _ranking(_shown(user, number))
        spent["put_ranking"].append(timed_ms(lambda ranking=ranking: _log(store, ranking)))  # type: ignore[misc]
    store.flush()


def _shown(user: _User, number: int) -> Sequence[Item]:
    return user.items[number * _CANDIDATES : (number + 1) * _CANDIDATES]


def _context(store: Store) -> None:
    """As the pipeline asks when the events have changed since the last request."""
    store.generation("default")
    found = store.context("default", _CONTEXT_EVENTS, types=_TELLING)
    assert len(found.events) == _CONTEXT_EVENTS


def _log(store: Store, ranking: Ranking) -> None:
    store.put_ranking("default", ranking, surface="home", session_id="s", created_at=time.time())


def _ranking(shown: Sequence[Item]) -> Ranking:
    results = tuple(Result(item.id, 1) for item in shown)
    reason = DegradedReason.UNSPECIFIED
    return Ranking(str(uuid.uuid4()), results, 1.0, reason, Timings(), "minilm", "pack", True)
