"""50 candidates of 8 to 12 tokens after a hot 200-token prefix, through the worker, in both modes."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, ratio, report, scored
from benchmarks.peers import OneDecode, Sequential
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.engine.quantiser import derive
from edge_reranker.models import ModelCache
from edge_reranker.prompt import TEMPLATES
from edge_reranker.types import Context, Event, EventType

_ROUNDS = 7
_N_BLOCKS = 10
_TARGETS = [1, 2]


def main() -> bool:
    """All of one round on the same machine state; the slow peers in fewer rounds of their own."""
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "scorer")
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        cut_path = Path(name) / "cut.gguf"
        derive(path, cut_path, quantisation="Q4_0", n_blocks=_N_BLOCKS)
        isolated, unified, cut = engines = [
            WorkerEngine(EngineSpec(path, "scorer")),
            WorkerEngine(EngineSpec(path, "scorer", mode="unified", n_sequences=64)),
            WorkerEngine(EngineSpec(cut_path, "scorer")),
        ]
        limit, peer = OneDecode(path), Sequential(path)
        try:
            for engine in engines:
                assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
            prefix, suffixes = prompt(isolated)
            flat = [token for suffix in suffixes for token in suffix]
            limit.set_prefix(prefix)

            def score(engine: WorkerEngine, n: int = 50) -> Callable[[], object]:
                return lambda: scored(engine, prefix, suffixes[:n])

            fast = {
                "limit": lambda: limit.decode(flat),
                "isolated": score(isolated),
                "unified": score(unified),
                "cut": score(cut),
                "isolated_20": score(isolated, 20),
                "cut_20": score(cut, 20),
            }
            interleaved(fast, 2)  # each learns its speed and copies its prefix
            spent = interleaved(fast, _ROUNDS, pause_s=AFTER_MODEL_S)

            def sequential() -> None:
                peer.after_prefix(prefix, suffixes, _TARGETS)

            peer.set_prefix(prefix)
            reuse = interleaved({"isolated": fast["isolated"], "peer": sequential}, 5, pause_s=AFTER_MODEL_S)
            whole = interleaved(
                {
                    "isolated": fast["isolated"],
                    "peer": lambda: peer.full(prefix, suffixes, _TARGETS),
                },
                5,
                pause_s=AFTER_MODEL_S,
            )
        finally:
            for engine in engines:
                engine.close()
            limit.close()
            peer.close()
    figures = {
        "isolated_to_limit": ratio(spent["limit"], spent["isolated"]),
        "unified_to_limit": ratio(spent["limit"], spent["unified"]),
        "times_faster_than_sequential": ratio(reuse["peer"], reuse["isolated"]),
        "times_faster_than_full_prompts": ratio(whole["peer"], whole["isolated"]),
        "times_faster_when_cut": ratio(spent["isolated"], spent["cut"]),
        "cut_20_to_whole_20": ratio(spent["cut_20"], spent["isolated_20"]),
    }
    return report(
        "cross",
        {
            "n_candidates": len(suffixes),
            "n_tokens": len(flat),
            "prefix_tokens": len(prefix),
            **{f"{name}_ms": statistics.median(values) for name, values in spent.items()},
            **figures,
        },
        {
            "isolated >= 0.90 x limit": figures["isolated_to_limit"] >= 0.90,
            "unified >= 0.97 x limit": figures["unified_to_limit"] >= 0.97,
            ">= 3 x sequential": figures["times_faster_than_sequential"] >= 3,
            ">= 16 x full prompts": figures["times_faster_than_full_prompts"] >= 16,
            "cut >= 2.3 x faster": figures["times_faster_when_cut"] >= 2.3,
            "cut, 20 candidates, <= 0.45 x": figures["cut_20_to_whole_20"] <= 0.45,
        },
    )


def prompt(engine: WorkerEngine) -> tuple[Sequence[int], list[list[int]]]:
    """200 tokens of a real history, and 50 real titles of 8 to 12 tokens."""
    template, items = TEMPLATES["default"], films()
    context = Context(tuple(Event(item.id, EventType.LIKE, 0.0, item) for item in items[:14]))
    texts = [template.prefix(context, ""), *(template.suffix(item) for item in items[100:400])]
    prefix, *found = engine.tokenize(texts, Deadline())
    suffixes = [ids for ids in found if 8 <= len(ids) <= 12][:50]
    assert len(suffixes) == 50
    return prefix[:200], suffixes
