"""A process that records, forgets and opens again, and notes down what the store has promised.

    python -m tests.faults.workload DATA_DIR PROMISES WORK [CONTROL]

A line of PROMISES is a mark and event ids: "+" these are recorded, "?" these are about to be forgotten, "-"
these are forgotten. It is written after the store's call has returned, or before it for "?". ``CONTROL``
weakens the store, so that a harness that finds nothing then is known to be blunt: a value of ``synchronous``,
or "trusting".
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_reranker.errors import StoreError
from edge_reranker.store import Store, faults, open, store, writer
from edge_reranker.types import Event, EventType, Item, Selector

BATCH = 3
NAMESPACES = ("app", "other")

# Few, so that a short run has many checkpoints.
_LOG_COMMITS = 4


def batch(name: str, size: int = BATCH) -> list[Event]:
    """Events that are stored all or none; all of a batch have one item."""
    item = Item(f"i-{name}", "Title", "x" * 1500)
    return [Event(f"{name}.{k}", EventType.LIKE, 1.0, item) for k in range(size)]


class Promises:
    """The file of promises, one unbuffered write a line. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def note(self, mark: str, ids: Sequence[str]) -> None:
        """Write one line."""
        os.write(self._file, f"{mark} {' '.join(ids)}\n".encode("ascii"))

    def record(self, opened: Store, events: Sequence[Event], namespace: str = "app") -> None:
        """Record a batch, and promise it once that has returned."""
        opened.record(namespace, events)
        self.note("+", [e.event_id for e in events])

    def forget(self, opened: Store, ids: Sequence[str], namespace: str = "app", **selector: Any) -> None:
        """Forget what ``selector`` says, which is ``ids``."""
        self.note("?", ids)
        opened.forget(namespace, Selector(**selector))
        self.note("-", ids)


def weaken(control: str) -> None:
    """Have every connection set up with another ``synchronous``, or a sync that failed taken as any error."""
    if control == "trusting":
        faults.unsynced = lambda error: False
        return
    real = open.open_database

    def weaker(*args: Any, **kwargs: Any) -> Any:
        db = real(*args, **kwargs)
        db.conn.execute(f"PRAGMA synchronous = {control}")
        return db

    for module in (store, open):
        setattr(module, "open_database", weaker)  # noqa: B010 - mypy knows no other way to replace a function


def run(data_dir: Path, promises: Promises) -> None:
    """Everything that the store does to its files, from their making on."""
    with Store.open(data_dir, key_source="file") as opened:
        for n in range(12):
            promises.record(opened, batch(f"one{n}"))
        promises.record(opened, batch("elsewhere", 6), "other")
        together(opened, promises, "two")
        promises.forget(opened, ["one3.1"], event_id="one3.1")
        promises.forget(opened, [e.event_id for e in batch("one5")], item_id="i-one5")
        opened.put_vectors("app", "space", [(f"h{n}", f"i-one{n}", b"v" * 500) for n in range(20)])
        beside_a_reader(opened, promises, "five")
        promises.forget(opened, [e.event_id for e in batch("elsewhere", 6)], "other", everything=True)
        promises.record(opened, batch("large", 40))
    # A second opening, which nothing closes.
    opened = Store.open(data_dir, key_source="file")
    together(opened, promises, "three")
    for n in range(12):
        promises.record(opened, batch(f"four{n}"))


def together(opened: Store, promises: Promises, name: str) -> None:
    """Four threads whose batches share commits."""

    def work(thread: int) -> None:
        for n in range(5):
            promises.record(opened, batch(f"{name}-{thread}-{n}"))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def beside_a_reader(opened: Store, promises: Promises, name: str) -> None:
    """Record while a reader keeps an old state in use, so that checkpoints stop half-way."""
    with opened._readers.one() as db:
        db.conn.execute("BEGIN")
        db.conn.execute("SELECT count(*) FROM events").fetchall()
        try:
            for n in range(7):
                promises.record(opened, batch(f"{name}{n}"))
        finally:
            db.conn.execute("COMMIT")


def persist(data_dir: Path, promises: Promises, *, read: bool = True) -> None:
    """Record beside a reader and without, and again what a sync that failed has refused."""
    opened = Store.open(data_dir, key_source="file")
    for n in range(30):
        for attempt in range(50):
            try:
                # Not once something failed: the writer then waits for readers.
                if n % 3 == 2 and read and attempt == 0:
                    beside_a_reader(opened, promises, f"beside{n}-")
                promises.record(opened, batch(f"persist{n}"))
                break
            except StoreError:
                continue


def alone(data_dir: Path, promises: Promises) -> None:
    """As ``persist``, without a reader: then nothing but the writer holds the log's index."""
    persist(data_dir, promises, read=False)


def main() -> None:
    """One run, ended as a kill would end it."""
    data_dir, promises, work, *control = sys.argv[1:]
    writer.LOG_COMMITS = _LOG_COMMITS
    if control:
        weaken(*control)
    {"run": run, "persist": persist, "alone": alone}[work](Path(data_dir), Promises(Path(promises)))
    # Without the end of the interpreter: nothing is closed, nothing is folded in.
    os._exit(0)


if __name__ == "__main__":
    main()
