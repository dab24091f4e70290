"""What Explain takes at 100 candidates and 50 events, and what it costs those who do not ask."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import MODEL, cache_dir, candidates, films, liked, percentile, report, timed_ms
from edge_reranker.cli import demo, options
from edge_reranker.cli.wiring import open_device
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.types import Candidate, Event, EventType, RerankQuery
from edge_reranker_client import EdgeReranker

_N_EVENTS = 50
_ROUNDS = 30
_REQUESTS = 200


def main() -> bool:
    """In-process with the vectors cached; then over the socket, requests beside one Explain after another."""
    figures, largest_error = _alone()
    figures |= _beside_requests()
    # Of its own: the writer, which it wakes up, takes its turns meanwhile, as without what is kept.
    added = figures["kept_cpu_p50_ms"]
    per_event = figures["explain_p50_ms"] / _N_EVENTS / figures["request_p50_ms"]
    beside = figures["socket_request_beside_p50_ms"] / figures["socket_request_p50_ms"]
    return report(
        "explain",
        {**figures, "event_to_request": per_event, "beside_to_alone": beside},
        {
            "contributions sum to the score (1e-9)": largest_error <= 1e-9,
            "an event takes less than a request": per_event <= 1,
            "what is kept of a request <= 1 ms": added <= 1,
            "a request beside explanations <= 3 x": beside <= 3,
        },
    )


def _alone() -> tuple[dict[str, float], float]:
    """The figures, and by how much a candidate's contributions miss its score, at most."""
    items = films()
    query = RerankQuery(tuple(Candidate(item) for item in items[200:300]))
    now = time.time() - 30 * 86_400
    events = [
        Event(item.id, EventType.LIKE, now + 3_600 * at, item) for at, item in enumerate(items[:_N_EVENTS])
    ]
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        folder = Path(name)
        device = open_device(Config(folder, folder / "s", cache_dir(), MODEL, key_source="file"))
        try:
            assert not device.settle(Deadline.after_ms(60_000))
            device.pipeline.record("app", events)
            device.pipeline.warmup(Deadline.after_ms(60_000))
            device.pipeline.rerank("app", query, Deadline())  # all vectors are there from here on
            keep, kept, computed = device.pipeline._explaining.keep, [], []

            def timed(*given: object) -> None:
                start = time.thread_time()
                kept.append(timed_ms(lambda: keep(*given)))  # type: ignore[arg-type]
                computed.append((time.thread_time() - start) * 1000.0)

            device.pipeline._explaining.keep = timed  # type: ignore[method-assign,assignment]
            requests, explained = [], []
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                ranking_id = device.pipeline.rerank("app", query, Deadline()).ranking_id
                requests.append((time.perf_counter() - start) * 1000.0)
                start = time.perf_counter()
                answer = device.pipeline.explain("app", ranking_id, (), Deadline())
                explained.append((time.perf_counter() - start) * 1000.0)
            device.store.flush()
            detail = device.store.detail("app", ranking_id)
        finally:
            device.close()
    errors = [
        abs(sum(part.value for part in each.contributions) - each.score) for each in answer.explanations
    ]
    figures = {
        "n_candidates": len(query.candidates),
        "n_events": _N_EVENTS,
        "request_p50_ms": statistics.median(requests),
        "explain_p50_ms": statistics.median(explained),
        "explain_p95_ms": percentile(explained, 0.95),
        "kept_p50_ms": statistics.median(kept),
        "kept_cpu_p50_ms": statistics.median(computed),
        "detail_bytes": len(detail or b""),
        "n_reasons": sum(len(each.reasons) for each in answer.explanations),
    }
    return figures, max(errors)


def _beside_requests() -> dict[str, float]:
    items = films()
    sent = candidates(items[200:300])
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        config = options.load_config({"cache_dir": cache_dir(), "model": MODEL})
        with (
            demo.service(config, Path(name), stderr=subprocess.DEVNULL) as owner,
            EdgeReranker(socket=Path(name) / "s.sock", data_dir=name) as app,
        ):
            app.record(liked(items[:_N_EVENTS]))
            owner.warmup()
            newest = [""]

            def request() -> None:
                newest[0] = app.rerank(sent).ranking_id

            for _ in range(20):
                request()
            alone = [timed_ms(request) for _ in range(_REQUESTS)]
            with _explaining(owner, newest) as spent:
                beside = [timed_ms(request) for _ in range(_REQUESTS)]
    return {
        "socket_request_p50_ms": statistics.median(alone),
        "socket_request_beside_p50_ms": statistics.median(beside),
        "socket_explain_beside_p50_ms": statistics.median(spent),
    }


@contextmanager
def _explaining(owner: EdgeReranker, newest: list[str]) -> Iterator[list[float]]:
    """One Explain after another, of the newest ranking, until the block ends; what each took, in ms."""
    spent: list[float] = []
    stop = threading.Event()

    def explain() -> None:
        assert owner.explain(newest[0]).reasons_missing == ""

    def ask() -> None:
        while not stop.is_set():
            spent.append(timed_ms(explain))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield spent
    finally:
        stop.set()
        thread.join()
