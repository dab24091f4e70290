"""64 requests at once: each is answered or refused within its deadline, and as much gets done."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.common import candidates, films, liked, report, service
from edge_reranker_client import Candidate, EdgeReranker, EdgeRerankerError
from edge_reranker_client.errors import Overloaded

_CLIENTS = 64
_ROUNDS = 5
_TIMEOUT_S = 2.0


def main() -> bool:
    """100 known candidates a request; one client one after another, and 64 together, in turn."""
    items = films()
    sent = candidates(items[200:300])
    alone: list[float] = []
    together: list[float] = []
    late = failed = refused = degraded = 0
    with service() as client:
        client.record(liked(items[:30]))
        client.warmup()
        client.rerank(sent)
        client.warmup()
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            for _ in range(_CLIENTS):
                client.rerank(sent)
            alone.append(_CLIENTS / (time.perf_counter() - start))
            outcomes, elapsed_s = _together(client, sent)
            # Only what every tier due had its say in counts as done.
            together.append(outcomes["answered"] / elapsed_s)
            degraded, refused = degraded + outcomes["degraded"], refused + outcomes["refused"]
            late, failed = late + outcomes["late"], failed + outcomes["failed"]
    goodput = statistics.median(b / a for a, b in zip(alone, together, strict=True))
    return report(
        "concurrent",
        {
            "n_clients": _CLIENTS,
            "one_client_per_s": statistics.median(alone),
            "together_per_s": statistics.median(together),
            "goodput_to_one_client": goodput,
            "degraded": degraded,
            "refused": refused,
            "late": late,
            "failed": failed,
        },
        {
            "every one answered or refused in time": not late and not failed,
            "goodput >= 0.9 x one client": goodput >= 0.9,
        },
    )


def _together(client: EdgeReranker, sent: Sequence[Candidate]) -> tuple[Counter[str], float]:
    """How the calls ended, and seconds until the last."""
    answers: list[str] = []

    def call() -> None:
        start = time.perf_counter()
        try:
            ranking = client.rerank(sent, timeout_s=_TIMEOUT_S)
            outcome = "degraded" if ranking.degraded_reason else "answered"
        except Overloaded:
            outcome = "refused"
        except EdgeRerankerError:
            outcome = "failed"
        answers.append("late" if time.perf_counter() - start > _TIMEOUT_S + 0.05 else outcome)

    threads = [threading.Thread(target=call) for _ in range(_CLIENTS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s = time.perf_counter() - start
    return Counter(answers), elapsed_s
