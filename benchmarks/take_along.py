"""Everything taken along: memory by size, speed, and how long the end of an import holds other writers up."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import report, service
from benchmarks.memory import resident, service_pid
from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item
from edge_reranker_client import EdgeReranker

_MIB = 1024 * 1024
_SIZES = (10_000, 50_000)
_MOVED = 100_000
_PIECE_BYTES = 256 * 1024


def main() -> bool:
    """Sizes of ``TAKE_ALONG`` (numbers of events, the last is the large one) if it is set."""
    sizes = tuple(map(int, os.environ.get("TAKE_ALONG", "").split())) or _SIZES
    measured: dict[str, object] = {}
    for n in sizes:
        # A service each: what another size has left in memory counts for neither.
        with service(model="none") as client:
            client.import_(export(100, "warm"), namespace="warm")
            list(client.export(namespace="warm"))
            grown = transfer(client, n)
            measured |= {f"{name}_{n}": value for name, value in grown.items()}
            print(f"# {n:,} events: {grown}", file=sys.stderr, flush=True)
    held_s, cpu_s, waited_s = moved(_MOVED)
    return report(
        "take_along",
        measured
        | {
            f"writer_held_s_{_MOVED}": held_s,
            f"writer_cpu_s_{_MOVED}": cpu_s,
            f"longest_record_s_{_MOVED}": waited_s,
        },
        # An import has 32 MiB of pages in memory while it is moved into the store.
        {
            "export: the service grows by <= 16 MiB": bool(grown["export_mib"] <= 16),
            "import: the service grows by <= 64 MiB": bool(grown["import_mib"] <= 64),
        },
    )


def transfer(client: EdgeReranker, n: int) -> dict[str, float]:
    """Events a second and how much the service grew while they came and went, in MiB."""
    pid = service_pid()
    start_s = time.perf_counter()
    with growth(pid) as during_import:
        assert client.import_(export(n)).recorded == n
    import_s = time.perf_counter() - start_s
    start_s = time.perf_counter()
    with growth(pid) as during_export:
        size_bytes = sum(map(len, client.export()))
    export_s = time.perf_counter() - start_s
    return {
        "import_mib": during_import[0],
        "export_mib": during_export[0],
        "import_events_per_s": n / import_s,
        "export_events_per_s": n / export_s,
        "bytes_per_event": size_bytes / n,
    }


@contextlib.contextmanager
def growth(pid: int) -> Iterator[list[float]]:
    """In the list, once the block is done: by how many MiB at most a process was larger than before."""
    before = most = resident(pid)
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, resident(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    found: list[float] = []
    try:
        yield found
    finally:
        done.set()
        thread.join()
        found.append((max(most, resident(pid)) - before) / _MIB)


def moved(n: int) -> tuple[float, float, float]:
    """The end of an import of ``n`` events: s, s of processor time, the longest another's record waited."""
    with (
        tempfile.TemporaryDirectory(prefix="er-bench-") as name,
        Store.open(Path(name), key_source="file") as store,
    ):
        store.record("app", [event(number, "before") for number in range(1000)])
        taken = store.importing("app")
        for number in range(n):
            taken.add(number + 2, event(number, "moved"))
        done = threading.Event()
        waits_s: list[float] = []

        def others() -> None:
            number = 0
            while not done.is_set():
                start_s = time.perf_counter()
                store.record("another", [event(number, "other")])
                waits_s.append(time.perf_counter() - start_s)
                number += 1
                time.sleep(0.01)

        thread = threading.Thread(target=others)
        thread.start()
        time.sleep(0.2)
        start_s, cpu_s = time.perf_counter(), time.process_time()
        assert taken.finish().recorded == n
        held_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        done.set()
        thread.join()
        taken.close()
    return held_s, cpu_s, max(waits_s)


def event(number: int, kind: str) -> Event:
    """A like of one of ``number // 3`` items."""
    item = Item(f"i{number // 3}", f"Title of item {number // 3}", "word " * 20, ("Drama", "Crime"))
    return Event(
        f"{kind}-{hashlib.sha256(str(number).encode()).hexdigest()[:32]}",
        EventType.LIKE,
        1.6e9 + number,
        item,
    )


def export(n: int, kind: str = "e") -> Iterator[bytes]:
    """An export of ``n`` events, made as it is read."""
    digest = hashlib.sha256()
    held = bytearray(b'{"format":"edge-reranker-export","version":1}\n')
    for number in range(n):
        made = event(number, kind)
        assert made.item is not None
        line = {
            "eventId": made.event_id,
            "type": "EVENT_TYPE_LIKE",
            "item": {
                "id": made.item.id,
                "title": made.item.title,
                "text": made.item.text,
                "tags": list(made.item.tags),
            },
            "occurredAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made.occurred_at)),
        }
        held += json.dumps({"event": line}, separators=(",", ":")).encode() + b"\n"
        if len(held) > _PIECE_BYTES:
            digest.update(held)
            yield bytes(held)
            held.clear()
    digest.update(held)
    yield bytes(held) + json.dumps({"end": {"records": n, "sha256": digest.hexdigest()}}).encode()


if __name__ == "__main__":
    sys.exit(not main())
