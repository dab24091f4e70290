"""Encoding beside a program that keeps one processor busy: our worker against llama.cpp's own way to wait."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, percentile, ratio, report
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine, process
from edge_reranker.models import ModelCache
from edge_reranker.prompt import item_pieces

_ROUNDS = 15
# The same decode with two threads whatever happens, waiting as OpenMP does by default.
_DEFAULT = """
import sys
from pathlib import Path
from edge_reranker.engine import EngineSpec
from edge_reranker.engine.llama import LlamaModel
model = LlamaModel(EngineSpec(Path(sys.argv[1]), "encoder"))
ids = [int(id) for id in sys.argv[2:]]
for line in sys.stdin:
    model.encode(ids)
    print("done", flush=True)
"""


def main() -> bool:
    """One film a call, both in turn, first on a quiet machine, then beside a busy loop."""
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "encoder")
    worker = WorkerEngine(EngineSpec(path, "encoder"))
    try:
        assert worker.wait_ready(Deadline.after_ms(60_000)), worker.problem
        ids = worker.tokenize([item_pieces(films()[0])], Deadline())
        with subprocess.Popen(
            [sys.executable, "-I", "-c", _DEFAULT, str(path), *map(str, ids[0])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in process.WORKER_ENVIRONMENT.items() if key != "GOMP_SPINCOUNT"},
        ) as default:
            try:
                calls: dict[str, Callable[[], object]] = {
                    "ours": partial(worker.encode, ids, Deadline()),
                    "default": partial(_ask, default),
                }
                interleaved(calls, 3)
                quiet = interleaved(calls, _ROUNDS, pause_s=AFTER_MODEL_S)
                hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                try:
                    busy = interleaved(calls, _ROUNDS, pause_s=AFTER_MODEL_S)
                finally:
                    hog.kill()
                    hog.wait()
            finally:
                default.kill()
    finally:
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


def _ask(default: subprocess.Popen[str]) -> None:
    assert default.stdin is not None
    assert default.stdout is not None
    default.stdin.write("\n")
    default.stdin.flush()
    assert default.stdout.readline() == "done\n"
