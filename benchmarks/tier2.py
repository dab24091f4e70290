"""The model reads 20 candidates after a ~130-token context: ours against llama-cpp-python's own class."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, ratio, report
from benchmarks.peers import Sequential
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.models import ModelCache
from edge_reranker.prompt import TEMPLATES
from edge_reranker.types import Context, Event, EventType, Piece

_ROUNDS = 7


def main() -> bool:
    """Cold each time: the context is decoded anew in every call of every contender."""
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "scorer")
    template = TEMPLATES["default"]
    items = films()
    context = Context(tuple(Event(item.id, EventType.LIKE, 0.0, item) for item in items[:5]))
    engine = WorkerEngine(EngineSpec(path, "scorer"))
    theirs = Sequential(path)
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        # "?" is part of every candidate here, as it was in earlier figures.
        *before, closing = template.prefix(context, "")
        texts = [before, *([closing, *template.suffix(item)] for item in items[100:120])]
        prefix, *suffixes = engine.tokenize(texts, Deadline())
        words = [[Piece(template.positive)], [Piece(template.negative)]]
        targets = [ids[0] for ids in engine.tokenize(words, Deadline())]
        other, *_ = engine.tokenize([[Piece("Something else entirely. " * 4)]], Deadline())
        found: dict[str, Any] = {}

        def ours() -> None:
            found["ours"] = engine.score(prefix, suffixes, targets, Deadline()).logits

        def sequential() -> None:
            theirs.set_prefix(prefix)
            theirs.after_prefix(prefix, suffixes, targets)

        def longest_match() -> None:
            theirs.set_prefix(prefix)
            theirs.longest_match(prefix, suffixes, targets)

        def full() -> None:
            found["full"] = theirs.full(prefix, suffixes, targets)

        def forget() -> None:
            engine.score(other, [other], targets, Deadline())  # ours must not find its context again

        calls = {
            "forget": forget,
            "ours": ours,
            "sequential": sequential,
            "longest_match": longest_match,
            "full": full,
        }
        interleaved(calls, 1)
        spent = interleaved(calls, _ROUNDS, pause_s=AFTER_MODEL_S)
    finally:
        engine.close()
        theirs.close()
    against_full, against_sequential, against_match = (
        ratio(spent["ours"], spent[name]) for name in ("full", "sequential", "longest_match")
    )
    ours_scores, full_scores = (each[:, 0] - each[:, 1] for each in (found["ours"], found["full"]))
    apart = float(abs(ours_scores - full_scores).max())
    return report(
        "tier2",
        {
            "n_candidates": len(suffixes),
            "context_tokens": len(prefix),
            "suffix_tokens": statistics.mean(len(suffix) for suffix in suffixes),
            "ours_ms": statistics.median(spent["ours"]),
            "sequential_ms": statistics.median(spent["sequential"]),
            "full_ms": statistics.median(spent["full"]),
            "ours_to_full": against_full,
            "ours_to_sequential": against_sequential,
            "ours_to_longest_match": against_match,
            "largest_score_difference": apart,
        },
        {
            "<= 0.30 x full prompts": against_full <= 0.30,
            "<= 0.85 x sequential": against_sequential <= 0.85,
            "same scores (within 0.3)": apart <= 0.3,
        },
    )
