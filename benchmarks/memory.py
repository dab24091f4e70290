"""Resident memory of the service without its workers, and of the worker that reads candidates."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.common import cache_dir, candidates, films, liked, report, scored, service, with_scorer
from benchmarks.cross import prompt
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.models import ModelCache

_MIB = 1024 * 1024


def main() -> bool:
    """After work, not fresh: 30 events and some requests of 100 candidates."""
    items = films()
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        os.environ["EDGE_RERANKER_PACK"] = str(with_scorer(Path(name)))
        try:
            with service() as client:
                client.record(liked(items[:30]))
                for start in range(200, 500, 100):
                    client.rerank(candidates(items[start : start + 100]))
                client.warmup()
                parent = service_pid()
                service_mib = resident(parent) / _MIB
        finally:
            del os.environ["EDGE_RERANKER_PACK"]
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "scorer")
    spec = EngineSpec(path, "scorer")
    engine = WorkerEngine(spec)
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        prefix, suffixes = prompt(engine)
        scored(engine, prefix, suffixes)
        saved = engine.save_prefix(Deadline())
        assert saved is not None
        assert engine.pid is not None
        worker_mib = resident(engine.pid) / _MIB
        libraries_mib = resident(engine.pid, "RssFile") / _MIB
    finally:
        engine.close()
    file_mib = path.stat().st_size / _MIB
    cells = spec.n_ctx_sequence * (spec.n_sequences + 1)
    kv_mib = len(saved.state) / len(saved.ids) * cells / _MIB
    beyond = worker_mib - file_mib - kv_mib
    return report(
        "memory",
        {
            "service_mib": service_mib,
            "worker_mib": worker_mib,
            "worker_libraries_mib": libraries_mib,
            "model_file_mib": file_mib,
            "kv_mib": kv_mib,
            "worker_beyond_file_and_kv_mib": beyond,
        },
        {
            "service <= 120 MB": service_mib <= 120,
            "worker <= model file + KV + 80 MB": beyond <= 80,
        },
    )


def service_pid() -> int:
    """The child of this process that runs `serve`."""
    me = str(os.getpid())
    for status in Path("/proc").glob("[0-9]*/status"):
        lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        command = (status.parent / "cmdline").read_bytes().split(b"\0")
        if lines.get("PPid") == me and b"serve" in command:
            return int(status.parent.name)
    raise AssertionError("no service runs")


def resident(pid: int, kind: str = "VmRSS") -> int:
    """Bytes; ``RssFile`` are those of mapped files: the libraries, since no model is mapped."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} is gone")
