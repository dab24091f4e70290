"""What learning's rows cost where a request or an event waits for them: 5,000 choices, 200 details."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from benchmarks.common import interleaved, percentile, ratio, report
from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item, Ranking, Result

_CHOICES, _BATCH = 4_900, 490
_CANDIDATES = 100
# As learning makes them of 100 candidates and 16 features.
_DETAIL_BYTES, _BODY_BYTES = 6_000, 1_500
_READS, _RECORDS = 2_000, 100


def main() -> bool:
    """Every call in turn; what is read of a request must be nothing beside one."""
    draw = random.Random(0)
    at = iter(range(1_000_000))
    with tempfile.TemporaryDirectory() as name, Store.open(Path(name) / "data", key_source="file") as store:
        _fill(store, draw)
        body = draw.randbytes(_BODY_BYTES)

        def record(*, chosen: bool) -> None:
            number = next(at)
            event = Event(f"n{number}", EventType.LIKE, 1.1e9 + number, Item("i"), ranking_id="r199")
            store.record("app", [event], {event.event_id: body} if chosen else {})

        store.mute("app", "crime")
        reads = interleaved(
            {
                "muted": lambda: store.muted("app"),
                "choices_state": lambda: store.choices_state("app"),
                "detail": lambda: store.detail("app", "r199"),
            },
            _READS,
        )
        all_of_them = interleaved({"choices": lambda: store.choices("app")}, 5)
        writes = interleaved(
            {"record": lambda: record(chosen=False), "record_choice": lambda: record(chosen=True)}, _RECORDS
        )
    figures: dict[str, object] = {"n_choices": _CHOICES}
    for kind, times in (reads | all_of_them).items():
        figures[f"{kind}_p50_us"] = percentile(times, 0.5) * 1000.0
        figures[f"{kind}_p99_us"] = percentile(times, 0.99) * 1000.0
    for kind, times in writes.items():
        figures[f"{kind}_p50_ms"] = percentile(times, 0.5)
    figures["ratio"] = ratio(writes["record_choice"], writes["record"])
    bounds = {
        f"{kind} at most {most_us} us (p50)": percentile(reads[kind], 0.5) * 1000.0 <= most_us
        for kind, most_us in (("muted", 5), ("choices_state", 5), ("detail", 100))
    }
    return report("choices", figures, bounds)


def _fill(store: Store, draw: random.Random) -> None:
    results = tuple(Result(f"i{n}", 1) for n in range(_CANDIDATES))
    for n in range(200):
        store.put_ranking(
            "app",
            Ranking(f"r{n}", results, 1.0),
            surface="home",
            session_id="s",
            created_at=1e9,
            detail=draw.randbytes(_DETAIL_BYTES),
        )
    store.flush()
    for first in range(0, _CHOICES, _BATCH):
        numbers = range(first, first + _BATCH)
        events = [
            Event(f"e{n}", EventType.LIKE, 1e9 + n, Item(f"i{n}"), ranking_id=f"r{n % 200}") for n in numbers
        ]
        store.record("app", events, {each.event_id: draw.randbytes(_BODY_BYTES) for each in events})
