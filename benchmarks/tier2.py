"""The model reads 20 candidates after a ~130-token context: ours against llama-cpp-python's own class."""

from __future__ import annotations

import statistics
from typing import Any

import llama_cpp

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, ratio, report
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
    theirs = llama_cpp.Llama(
        str(path), n_ctx=512, n_threads=2, n_threads_batch=2, logits_all=False, verbose=False
    )
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        texts = [template.prefix(context, ""), *(template.suffix(item) for item in items[100:120])]
        prefix, *suffixes = engine.tokenize(texts, Deadline())
        yes, no = (
            ids[0]
            for ids in engine.tokenize([[Piece(template.positive)], [Piece(template.negative)]], Deadline())
        )
        other, *_ = engine.tokenize([[Piece("Something else entirely. " * 4)]], Deadline())
        found: dict[str, list[float]] = {}

        def ours() -> None:
            scored = engine.score(prefix, suffixes, [yes, no], Deadline())
            found["ours"] = [float(row[0] - row[1]) for row in scored.logits]

        def sequential() -> None:
            """One `eval` of the prefix, then the cache is cut back to it before each candidate."""
            scores = []
            theirs.reset()
            theirs.eval(prefix)
            for suffix in suffixes:
                theirs.n_tokens = len(prefix)
                theirs.eval(suffix)
                logits = _last_logits(theirs)
                scores.append(float(logits[yes] - logits[no]))
            found["sequential"] = scores

        def longest_match() -> None:
            """As `Llama.generate` does: what a candidate shares with the one before is kept too."""
            scores = []
            theirs.reset()
            theirs.eval(prefix)
            before: list[int] = []
            for suffix in suffixes:
                # The last token is always evaluated: its logits are read.
                pairs = zip(before, suffix[:-1], strict=False)
                same = next(
                    (at for at, (a, b) in enumerate(pairs) if a != b), min(len(before), len(suffix) - 1)
                )
                theirs.n_tokens = len(prefix) + same
                theirs.eval(suffix[same:])
                logits = _last_logits(theirs)
                scores.append(float(logits[yes] - logits[no]))
                before = suffix
            found["longest_match"] = scores

        def full() -> None:
            scores = []
            for suffix in suffixes:
                theirs.reset()
                theirs.eval(prefix + suffix)
                logits = _last_logits(theirs)
                scores.append(float(logits[yes] - logits[no]))
            found["full"] = scores

        def forget() -> None:
            engine.score(other, [other], [yes], Deadline())  # ours must not find its context again

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
    apart = max(abs(a - b) for a, b in zip(found["ours"], found["full"], strict=True))
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


def _last_logits(model: Any) -> Any:
    """Read where llama.cpp put them: the class copies them out only when asked to keep all."""
    return llama_cpp.llama_get_logits_ith(model._ctx.ctx, -1)
