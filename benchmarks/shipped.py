"""100 candidates that the device has never seen: with the backend's vectors, its own, and none."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pyarrow import parquet

from benchmarks.common import AFTER_MODEL_S, candidates, films, liked, ratio, report, service
from benchmarks.survival import children
from edge_reranker.types import Item
from edge_reranker_client import Candidate, Ranking

_ROUNDS = 10
_N = 100
_HISTORY = 30


def main() -> bool:
    """Each round's films are new to the device; what its worker reads is what the model is asked for."""
    items = films()[_HISTORY:]
    lots = [items[at : at + _N] for at in range(0, _ROUNDS * _N, _N)]
    sent = _shipped([item for lot in lots for item in lot])
    spent: dict[str, list[float]] = {"shipped": [], "cached": [], "without": []}
    asked: dict[str, list[int]] = {name: [] for name in spent}
    answers: dict[str, list[Ranking]] = {name: [] for name in spent}
    with service() as client:
        client.record(liked(films()[:_HISTORY]))
        client.warmup()
        client.rerank(candidates(films()[:_HISTORY]))  # the history has its vectors
        client.warmup()
        (ours,) = children(os.getpid())
        (worker,) = children(ours)
        for lot in lots:
            for name, list_ in (
                ("shipped", [sent[item.id] for item in lot]),
                ("cached", candidates(lot)),
                ("without", candidates([_another(item) for item in lot])),
            ):
                time.sleep(AFTER_MODEL_S)
                before = _read_bytes(worker)
                start = time.perf_counter()
                answers[name].append(client.rerank(list_))
                spent[name].append((time.perf_counter() - start) * 1000.0)
                client.warmup()  # what it left for afterwards is done
                asked[name].append(_read_bytes(worker) - before)
    figures: dict[str, object] = {"n_candidates": _N, "n_requests": _ROUNDS}
    for name, times in spent.items():
        figures[f"{name}_p50_ms"] = statistics.median(times)
        figures[f"{name}_worst_ms"] = max(times)
        figures[f"{name}_coverage"] = statistics.fmean(answer.coverage for answer in answers[name])
        figures[f"{name}_asked_of_the_model_bytes"] = sum(asked[name])
    own = [answer.ids for answer in answers["cached"]]
    figures["shipped_to_cached"] = to_cached = ratio(spent["shipped"], spent["cached"])
    return report(
        "shipped",
        figures,
        {
            "shipped: the model is asked for nothing": sum(asked["shipped"]) == 0,
            "shipped: all candidates by vectors": all(a.coverage == 1.0 for a in answers["shipped"]),
            "shipped: the order of cached vectors": [a.ids for a in answers["shipped"]] == own,
            "shipped: <= 2.5 x cached": to_cached <= 2.5,
            "without: the model is asked": min(asked["without"]) > 0,
        },
    )


def _shipped(items: Sequence[Item]) -> dict[str, Candidate]:
    """What a backend sends: its items, and their rows of the file that `encode` made, read by pyarrow."""
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        catalogue, out = Path(name) / "items.jsonl", Path(name) / "vectors.parquet"
        rows = ({"id": item.id, "title": item.title, "tags": item.tags} for item in items)
        catalogue.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        command = [sys.executable, "-m", "edge_reranker.cli", "encode", str(catalogue), "--out", str(out)]
        subprocess.run(command, check=True)
        found = {row["id"]: row for row in parquet.read_table(out).to_pylist()}
    return {
        item.id: dataclasses.replace(
            candidate, vector=found[item.id]["vector"], vector_space=found[item.id]["vector_space"]
        )
        for item, candidate in zip(items, candidates(items), strict=True)
    }


def _another(item: Item) -> Item:
    """A film of the same length that is nowhere else."""
    return item._replace(id=f"{item.id}-II", title=f"{item.title} II")


def _read_bytes(pid: int) -> int:
    """Bytes that a process has read in all: a worker's questions come through its pipe."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])
