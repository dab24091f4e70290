"""64 requests at once: each is answered or refused within its deadline, and as much gets done."""

from __future__ import annotations

import statistics
import threading
import time
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
    late = failed = refused = 0
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
            answered, over, errors, elapsed_s = _together(client, sent)
            together.append(answered / elapsed_s)
            late, refused, failed = late + over, refused + errors[0], failed + errors[1]
    goodput = statistics.median(b / a for a, b in zip(alone, together, strict=True))
    return report(
        "concurrent",
        {
            "n_clients": _CLIENTS,
            "one_client_per_s": statistics.median(alone),
            "together_per_s": statistics.median(together),
            "goodput_to_one_client": goodput,
            "refused": refused,
            "late": late,
            "failed": failed,
        },
        {
            "every one answered or refused in time": not late and not failed,
            "goodput >= 0.9 x one client": goodput >= 0.9,
        },
    )


def _together(client: EdgeReranker, sent: Sequence[Candidate]) -> tuple[int, int, tuple[int, int], float]:
    """Answers, those past their deadline, (refused, otherwise failed), and seconds until the last."""
    answers: list[str] = []

    def call() -> None:
        start = time.perf_counter()
        try:
            client.rerank(sent, timeout_s=_TIMEOUT_S)
            outcome = "answered"
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
    count = answers.count
    return count("answered"), count("late"), (count("refused"), count("failed")), elapsed_s
