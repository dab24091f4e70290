"""100 candidates with cached vectors, end to end over the socket."""

from __future__ import annotations

import statistics
from functools import partial

from benchmarks.common import candidates, films, liked, percentile, report, service, timed_ms


def main() -> bool:
    """p50 of 200 requests; and an event changes the next order."""
    items = films()
    sent = candidates(items[200:300])
    with service() as client:
        client.record(liked(items[:30]))
        client.warmup()
        client.rerank(sent)
        client.warmup()
        first = client.rerank(sent)
        spent = [timed_ms(lambda: client.rerank(sent)) for _ in range(200)]
        inside = [client.rerank(sent).timings.total_ms for _ in range(50)]
        record_ms = [timed_ms(partial(client.record, [event])) for event in liked(items[400:420])]
        client.record(liked([items[299]]))
        changed = client.rerank(sent)
    return report(
        "request",
        {
            "n_candidates": len(sent),
            "coverage": first.coverage,
            "p50_ms": statistics.median(spent),
            "p99_ms": percentile(spent, 0.99),
            "service_p50_ms": statistics.median(inside),
            "record_one_event_p50_ms": statistics.median(record_ms),
        },
        {
            "all candidates by the model": first.coverage == 1.0 and not first.degraded_reason,
            "p50 <= 8 ms": statistics.median(spent) <= 8,
            "the event changes the next order": changed.ids != first.ids,
        },
    )
