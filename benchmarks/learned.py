"""What learning, gate, policy and keeping for Explain add to a request of 100 candidates, in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import MODEL, cache_dir, films, interleaved, report, timed_ms
from edge_reranker.cli.wiring import open_device
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.pipeline import Pipeline
from edge_reranker.types import Candidate, Event, EventType, Policy, RerankQuery

_N_EVENTS = 50
_N_CHOICES = 300
_ROUNDS = 100
_EVERYTHING = Policy(diversity=0.3, calibration=0.3, exploration=0.2)


def main() -> bool:
    """One namespace that never gave feedback, and one that gave much and asks for everything."""
    items = films()
    plain = RerankQuery(tuple(Candidate(item) for item in items[200:300]))
    with_all = RerankQuery(plain.candidates, policy=_EVERYTHING)
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        folder = Path(name)
        device = open_device(Config(folder, folder / "s", cache_dir(), MODEL, key_source="file"))
        try:
            assert not device.settle(Deadline.after_ms(60_000))
            pipeline = device.pipeline
            at_s = time.time() - 30 * 86_400
            for namespace in ("fresh", "learned"):
                pipeline.create_namespace(namespace)
                liked = [
                    Event(item.id, EventType.LIKE, at_s + 3_600 * at, item)
                    for at, item in enumerate(items[:_N_EVENTS])
                ]
                pipeline.record(namespace, liked)
            pipeline.warmup(Deadline.after_ms(60_000))
            _give_feedback(pipeline, plain)
            pipeline.warmup(Deadline.after_ms(60_000))
            learned = pipeline._learning.now(pipeline._current.value.tiers, "learned")
            assert learned is not None
            assert learned.n_choices == _N_CHOICES

            kept: list[float] = []
            looked_up: list[float] = []
            _timing(pipeline._explaining, "keep", kept)
            _timing(pipeline._learning, "now", looked_up)
            spent = interleaved(
                {
                    "fresh": lambda: pipeline.rerank("fresh", plain, Deadline()),
                    "learned": lambda: pipeline.rerank("learned", plain, Deadline()),
                    "with_policy": lambda: pipeline.rerank("learned", with_all, Deadline()),
                },
                _ROUNDS,
            )
            pipeline._learning.forget("learned")
            replay_ms = timed_ms(lambda: pipeline.rerank("learned", plain, Deadline()))
        finally:
            device.close()
    p50 = {name: statistics.median(each) for name, each in spent.items()}
    # What nobody can turn off, and what feedback and a policy add to it.
    always = statistics.median(kept) + statistics.median(looked_up)
    added = always + p50["with_policy"] - p50["fresh"]
    return report(
        "learned",
        {
            "n_candidates": len(plain.candidates),
            "n_choices": _N_CHOICES,
            **{f"{name}_p50_ms": value for name, value in p50.items()},
            "kept_p50_ms": statistics.median(kept),
            "looked_up_p50_ms": statistics.median(looked_up),
            "added_p50_ms": added,
            "first_after_restart_ms": replay_ms,
        },
        {"all together add <= 3 ms p50": added <= 3},
    )


def _give_feedback(pipeline: Pipeline, query: RerankQuery) -> None:
    items = {candidate.id: candidate.item for candidate in query.candidates}
    ranking = pipeline.rerank("learned", query, Deadline())
    for number in range(_N_CHOICES):
        if number % 10 == 0:
            ranking = pipeline.rerank("learned", query, Deadline())
        place = number % 10
        item = items[ranking.results[place].id]
        event = Event(
            f"c{number}", EventType.SKIP, time.time(), item, ranking_id=ranking.ranking_id, position=place
        )
        pipeline.record("learned", [event])


def _timing(part: Any, name: str, spent: list[float]) -> None:
    call: Callable[..., Any] = getattr(part, name)

    def timed(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*given, **named)
        finally:
            spent.append((time.perf_counter() - start) * 1000.0)

    setattr(part, name, timed)
