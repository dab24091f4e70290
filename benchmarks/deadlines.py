"""1,000 requests with 50 to 500 ms for 100 mostly new candidates each; then 200 with 1,000 new ones."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator, Sequence

from benchmarks.common import candidates, films, liked, percentile, report, service
from edge_reranker_client import Candidate, DeadlineExceeded, EdgeReranker

_DEADLINES_MS = (50, 100, 200, 500)
_REQUESTS = 1_000
_LARGE_REQUESTS = 200
_NOISE_MS = 10.0
_NO_BUDGET_MS = 60_000


class Times:
    """What came of the requests of one kind; every other gives its time as the gRPC deadline."""

    def __init__(self) -> None:
        self.late: dict[int, list[float]] = {ms: [] for ms in _DEADLINES_MS}
        self.coverage: dict[int, list[float]] = {ms: [] for ms in _DEADLINES_MS}
        self.complete = 0
        self._n = 0

    def add(self, client: EdgeReranker, sent: Sequence[Candidate]) -> None:
        """One request, measured at the client."""
        deadline_ms = _DEADLINES_MS[self._n // 2 % len(_DEADLINES_MS)]
        by_grpc = self._n % 2 == 0
        self._n += 1
        start = time.perf_counter()
        try:
            answer = client.rerank(
                sent,
                budget_ms=_NO_BUDGET_MS if by_grpc else deadline_ms,
                timeout_s=deadline_ms / 1000.0 if by_grpc else 30.0,
            )
        except DeadlineExceeded:
            return  # not complete, and counted so
        self.late[deadline_ms].append((time.perf_counter() - start) * 1000.0 - deadline_ms)
        self.complete += sorted(answer.ids) == sorted(candidate.id for candidate in sent)
        self.coverage[deadline_ms].append(answer.coverage)

    @property
    def worst_ms(self) -> float:
        """The largest p99 over its deadline; infinite where no request came back."""
        return max(percentile(late, 0.99) if late else float("inf") for late in self.late.values())


def main() -> bool:
    """A complete permutation every time, in time."""
    usual, large = Times(), Times()
    with service() as client:
        items = films()
        client.record(liked(items[:30]))
        client.warmup()
        for sent in usual_lists():
            usual.add(client, sent)
        for sent in _large_lists():
            large.add(client, sent)
    figures: dict[str, object] = {
        "n_requests": _REQUESTS,
        "complete": usual.complete,
        "p99_over_deadline_ms": usual.worst_ms,
    }
    for ms in _DEADLINES_MS:
        figures[f"p99_{ms}_ms"] = percentile(usual.late[ms], 0.99) + ms
        figures[f"mean_coverage_{ms}_ms"] = sum(usual.coverage[ms]) / len(usual.coverage[ms])
    # Too few for a p99 of each deadline: over all of them.
    large_ms = percentile([ms for late in large.late.values() for ms in late], 0.99)
    figures |= {
        "n_large_requests": _LARGE_REQUESTS,
        "large_complete": large.complete,
        "large_p99_over_deadline_ms": large_ms,
    }
    return report(
        "deadlines",
        figures,
        {
            "complete every time": usual.complete == _REQUESTS,
            "p99 <= deadline + 10 ms": usual.worst_ms <= _NOISE_MS,
            "1,000 candidates: complete every time": large.complete == _LARGE_REQUESTS,
            "1,000 candidates: p99 <= deadline + 10 ms": large_ms <= _NOISE_MS,
        },
    )


def usual_lists() -> Iterator[list[Candidate]]:
    """100 candidates each."""
    draw = random.Random(0)
    items = films()
    pool = candidates(items)
    for number in range(_REQUESTS):
        yield draw.sample(pool, 100)
        if number % 100 == 99:
            # New texts again: a service that knows all 1,682 films has nothing left to do.
            pool = [_renamed(candidate, number) for candidate in candidates(items)]


def _large_lists() -> Iterator[list[Candidate]]:
    """1,000 new candidates each; of every 16 lists, 8 with 1,000 characters of text and more tags."""
    draw = random.Random(1)
    items = films()
    words = [word for item in items for word in item.title.split()]
    for number in range(_LARGE_REQUESTS):
        sent = [_renamed(candidate, 10_000 + number) for candidate in candidates(items)[:1_000]]
        if number // 8 % 2:
            sent = [
                dataclasses.replace(
                    candidate,
                    text=" ".join(draw.choices(words, k=160)),
                    tags=[*candidate.tags, *draw.choices(words, k=10)],
                    attributes={"director": draw.choice(words), "country": draw.choice(words)},
                )
                for candidate in sent
            ]
        yield sent


def _renamed(candidate: Candidate, number: int) -> Candidate:
    return dataclasses.replace(candidate, title=f"{candidate.title} {number}")
