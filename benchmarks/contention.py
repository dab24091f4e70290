"""Encoding while another program keeps one processor busy: threads that sleep against threads that spin."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from functools import partial

from benchmarks.common import cache_dir, films, interleaved, percentile, ratio, report
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine, client
from edge_reranker.models import ModelCache
from edge_reranker.prompt import item_pieces

_ROUNDS = 40


def main() -> bool:
    """One film a call, both workers in turn, first on a quiet machine, then beside a busy loop."""
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "encoder")
    workers = {policy: _worker(EngineSpec(path, "encoder"), policy) for policy in ("PASSIVE", "ACTIVE")}
    try:
        ids = workers["PASSIVE"].tokenize([item_pieces(films()[0])], Deadline())
        calls = {name: partial(worker.encode, ids, Deadline()) for name, worker in workers.items()}
        interleaved(calls, 3)
        quiet = interleaved(calls, _ROUNDS)
        hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            busy = interleaved(calls, _ROUNDS)
        finally:
            hog.kill()
            hog.wait()
    finally:
        for worker in workers.values():
            worker.close()
    return report(
        "contention",
        {
            "quiet_sleeping_p50_ms": statistics.median(quiet["PASSIVE"]),
            "quiet_spinning_p50_ms": statistics.median(quiet["ACTIVE"]),
            "quiet_ratio": ratio(quiet["PASSIVE"], quiet["ACTIVE"]),
            "busy_sleeping_p50_ms": statistics.median(busy["PASSIVE"]),
            "busy_spinning_p50_ms": statistics.median(busy["ACTIVE"]),
            "busy_sleeping_p90_ms": percentile(busy["PASSIVE"], 0.9),
            "busy_spinning_p90_ms": percentile(busy["ACTIVE"], 0.9),
            "busy_ratio": ratio(busy["PASSIVE"], busy["ACTIVE"]),
            "n_cpus": os.cpu_count(),
        },
        {"sleeping is no slower beside a busy program": ratio(busy["PASSIVE"], busy["ACTIVE"]) <= 1.0},
    )


def _worker(spec: EngineSpec, policy: str) -> WorkerEngine:
    before = client.WORKER_ENVIRONMENT
    client.WORKER_ENVIRONMENT = {**before, "OMP_WAIT_POLICY": policy}
    try:
        worker = WorkerEngine(spec)
        assert worker.wait_ready(Deadline.after_ms(60_000)), worker.problem
        return worker
    finally:
        client.WORKER_ENVIRONMENT = before
