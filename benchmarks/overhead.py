"""What gRPC over the socket adds to the pipeline in-process, with `--model none`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.common import cache_dir, candidates, films, interleaved, liked, percentile, report, service
from edge_reranker.cli.wiring import open_device
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.types import Candidate, Event, EventType, RerankQuery


def main() -> bool:
    """The same 100 candidates and 30 events both ways, interleaved."""
    items = films()
    history, shown = items[:30], items[200:300]
    sent = candidates(shown)
    query = RerankQuery(tuple(Candidate(item) for item in shown))
    now = time.time() - 3600
    events = [Event(item.id, EventType.LIKE, now + place, item) for place, item in enumerate(history)]
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name, service(model="none") as client:
        folder = Path(name)
        config = Config(folder, folder / "s", cache_dir(), "none", key_source="file")
        device = open_device(config)
        try:
            device.pipeline.record("default", events)
            client.record(liked(history))

            def in_process() -> None:
                device.pipeline.rerank("default", query, Deadline.after_ms(200))

            spent = interleaved({"socket": lambda: client.rerank(sent), "in_process": in_process}, 1020)
        finally:
            device.close()
    socket, alone = spent["socket"][20:], spent["in_process"][20:]
    added = statistics.median(socket) - statistics.median(alone)
    return report(
        "overhead",
        {
            "n_candidates": len(sent),
            "socket_p50_ms": statistics.median(socket),
            "socket_p99_ms": percentile(socket, 0.99),
            "in_process_p50_ms": statistics.median(alone),
            "grpc_adds_p50_ms": added,
        },
        {"grpc adds <= 2 ms": added <= 2, "p50 <= 10 ms": statistics.median(socket) <= 10},
    )
