"""Encoding beside a program that keeps one processor busy: our worker against OpenMP's default waiting."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from functools import partial

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, percentile, ratio, report
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine, process
from edge_reranker.models import ModelCache
from edge_reranker.prompt import item_pieces

_ROUNDS = 15


def main() -> bool:
    """One film a call, both workers in turn, first on a quiet machine, then beside a busy loop."""
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "encoder")
    workers = {name: _worker(EngineSpec(path, "encoder"), name) for name in ("ours", "default")}
    try:
        ids = workers["ours"].tokenize([item_pieces(films()[0])], Deadline())
        calls = {name: partial(worker.encode, ids, Deadline()) for name, worker in workers.items()}
        interleaved(calls, 3)
        quiet = interleaved(calls, _ROUNDS, pause_s=AFTER_MODEL_S)
        hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            busy = interleaved(calls, _ROUNDS, pause_s=AFTER_MODEL_S)
        finally:
            hog.kill()
            hog.wait()
    finally:
        for worker in workers.values():
            worker.close()
    return report(
        "contention",
        {
            "quiet_ours_p50_ms": statistics.median(quiet["ours"]),
            "quiet_default_p50_ms": statistics.median(quiet["default"]),
            "quiet_ours_to_default": ratio(quiet["ours"], quiet["default"]),
            "busy_ours_p50_ms": statistics.median(busy["ours"]),
            "busy_default_p50_ms": statistics.median(busy["default"]),
            "busy_ours_p90_ms": percentile(busy["ours"], 0.9),
            "busy_default_p90_ms": percentile(busy["default"], 0.9),
            "busy_ours_to_default": ratio(busy["ours"], busy["default"]),
            "n_cpus": os.cpu_count(),
        },
        {
            "within 15 % on a quiet machine": ratio(quiet["ours"], quiet["default"]) <= 1.15,
            "no slower beside a busy program": ratio(busy["ours"], busy["default"]) <= 1.0,
        },
    )


def _worker(spec: EngineSpec, name: str) -> WorkerEngine:
    ours = process.WORKER_ENVIRONMENT
    if name == "default":
        process.WORKER_ENVIRONMENT = {key: ours[key] for key in ours if key != "GOMP_SPINCOUNT"}
    try:
        worker = WorkerEngine(spec)
        assert worker.wait_ready(Deadline.after_ms(60_000)), worker.problem
        return worker
    finally:
        process.WORKER_ENVIRONMENT = ours
