"""1,000 requests with deadlines of 50 to 500 ms, 100 candidates of which most are new each time."""

from __future__ import annotations

import dataclasses
import random
import time

from benchmarks.common import candidates, films, liked, percentile, report, service
from edge_reranker_client import Candidate, DeadlineExceeded

_DEADLINES_MS = (50, 100, 200, 500)
_REQUESTS = 1_000
_NOISE_MS = 10.0
_NO_BUDGET_MS = 60_000


def main() -> bool:
    """A complete permutation every time, in time; measured at the client.

    Every other request gives its time as the gRPC deadline, the rest as ``budget_ms``.
    """
    items = films()
    pool = candidates(items)
    draw = random.Random(0)
    late: dict[int, list[float]] = {ms: [] for ms in _DEADLINES_MS}
    coverage: dict[int, list[float]] = {ms: [] for ms in _DEADLINES_MS}
    complete = 0
    with service() as client:
        client.record(liked(items[:30]))
        client.warmup()
        for number in range(_REQUESTS):
            deadline_ms = _DEADLINES_MS[number // 2 % len(_DEADLINES_MS)]
            by_grpc = number % 2 == 0
            sent = draw.sample(pool, 100)
            start = time.perf_counter()
            try:
                answer = client.rerank(
                    sent,
                    budget_ms=_NO_BUDGET_MS if by_grpc else deadline_ms,
                    timeout_s=deadline_ms / 1000.0 if by_grpc else 30.0,
                )
            except DeadlineExceeded:
                continue  # not complete, and counted so
            late[deadline_ms].append((time.perf_counter() - start) * 1000.0 - deadline_ms)
            complete += sorted(answer.ids) == sorted(candidate.id for candidate in sent)
            coverage[deadline_ms].append(answer.coverage)
            if number % 100 == 99:
                # New texts again: a service that knows all 1,682 films has nothing left to do.
                pool = [_renamed(candidate, number) for candidate in candidates(items)]
    worst = max(percentile(values, 0.99) for values in late.values())
    figures: dict[str, object] = {
        "n_requests": _REQUESTS,
        "complete": complete,
        "p99_over_deadline_ms": worst,
    }
    for ms in _DEADLINES_MS:
        figures[f"p99_{ms}_ms"] = percentile(late[ms], 0.99) + ms
        figures[f"mean_coverage_{ms}_ms"] = sum(coverage[ms]) / len(coverage[ms])
    return report(
        "deadlines",
        figures,
        {
            "complete every time": complete == _REQUESTS,
            "p99 <= deadline + 10 ms": worst <= _NOISE_MS,
        },
    )


def _renamed(candidate: Candidate, number: int) -> Candidate:
    return dataclasses.replace(candidate, title=f"{candidate.title} {number}")
