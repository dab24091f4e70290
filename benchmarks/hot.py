"""The user's context in the model: what an event costs, and the first request after a restart."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.common import (
    AFTER_MODEL_S,
    MODEL,
    cache_dir,
    films,
    ratio,
    report,
    scored,
    timed_ms,
    with_scorer,
)
from benchmarks.peers import OneDecode
from edge_reranker.cli.wiring import Device, open_device
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Stop, WorkerEngine
from edge_reranker.models import ModelCache
from edge_reranker.prompt import TEMPLATES
from edge_reranker.types import Candidate, Context, Event, EventType, Item, RerankQuery

_EVENTS = 15
_RESTARTS = 5


def main() -> bool:
    """An event's decode against one of its own tokens; restarts with and without the saved state."""
    event = _event_costs()
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        first = _restarts(Path(name))
    to_own = ratio(event["event"], event["own_tokens"])
    restored = statistics.median(first["restored"]) / statistics.median(first["warm"])
    cold = statistics.median(first["cold"]) / statistics.median(first["warm"])
    decoded = max(event["prefix_tokens"])
    return report(
        "hot",
        {
            "event_p50_ms": statistics.median(event["event"]),
            "event_tokens": statistics.median(event["n_tokens"]),
            "event_to_own_tokens": to_own,
            "prefix_tokens_decoded_by_the_next_request": decoded,
            **{f"{name}_request_p50_ms": statistics.median(spent) for name, spent in first.items()},
            "restored_to_warm": restored,
            "cold_to_warm": cold,
        },
        {
            "an event <= 1.3 x its own tokens": to_own <= 1.3,
            "the request after it decodes no prefix token": decoded == 0,
            "first request after a restart <= 1.2 x warm": restored <= 1.2,
        },
    )


def _event_costs() -> dict[str, list[float]]:
    """Events one by one: through the worker, and as one decode of the same tokens after the same prefix."""
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "scorer")
    engine, limit = WorkerEngine(EngineSpec(path, "scorer")), OneDecode(path)
    template, items = TEMPLATES["default"], films()
    before: list[int] = []
    spent: dict[str, list[float]] = {"event": [], "own_tokens": [], "n_tokens": [], "prefix_tokens": []}
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        suffixes = engine.tokenize([template.suffix(item) for item in items[100:105]], Deadline())
        (closing,) = engine.tokenize([template.closing("")], Deadline())
        for n, told in enumerate(_growing(engine, items), start=-2):
            if n > -2:
                own = told[len(before) :]
                limit.set_prefix(before)
                time.sleep(AFTER_MODEL_S)
                own_ms = timed_ms(lambda own=own: limit.decode(own))  # type: ignore[misc]
                time.sleep(AFTER_MODEL_S)
                start = time.perf_counter()
                while engine.prefill([*told, *closing], Deadline()).stop == Stop.DEADLINE:
                    pass
                event_ms = (time.perf_counter() - start) * 1000.0
            answer = scored(engine, [*told, *closing], suffixes)
            if n > 0:  # the first ones make the worker's speed known
                spent["event"].append(event_ms)
                spent["own_tokens"].append(own_ms)
                spent["n_tokens"].append(len(own))
                spent["prefix_tokens"].append(answer.prefix_tokens)
            before = told
    finally:
        engine.close()
        limit.close()
    return spent


def _growing(engine: WorkerEngine, items: Sequence[Item]) -> Iterator[list[int]]:
    """The context's tokens, event by event, as long as a window lets it grow."""
    template = TEMPLATES["default"]
    pieces = template.header()
    for n in range(_EVENTS):
        events = tuple(Event(item.id, EventType.LIKE, 0.0, item) for item in items[: n + 1])
        (ids,) = engine.tokenize([[*pieces, *template.prefix(Context(events), "")[2:-1]]], Deadline())
        if len(ids) > 200:
            return
        yield ids


def _restarts(folder: Path) -> dict[str, list[float]]:
    """Tier 2's time for 20 candidates: warm, after a restart, and after one without a saved state."""
    items = films()
    pack = str(with_scorer(folder))
    config = Config(folder, folder / "s", cache_dir(), MODEL, pack=pack, key_source="file")
    spent: dict[str, list[float]] = {"warm": [], "restored": [], "cold": []}
    device = _open(config)
    device.pipeline.record(
        "app", [Event(i.id, EventType.LIKE, 1e9 + at, i) for at, i in enumerate(items[:12])]
    )
    for n in range(-1, _RESTARTS):
        for kind in spent:
            if kind != "warm":
                if kind == "cold":
                    device.store.put_prefix_state(None)
                    device.store.flush()
                    assert device.pipeline._current.value.tiers.tier2 is not None
                    device.pipeline._current.value.tiers.tier2.forget("app")  # or closing would save it again
                device.close()
                device = _open(config)
            device.pipeline.warmup(Deadline.after_ms(60_000))
            time.sleep(0.3)  # the state is restored in a thread of its own
            # Other titles each time, or the scores would be known.
            shown = [Candidate(i._replace(title=f"{i.title[:24]} {n}{kind[0]}")) for i in items[200:240]]
            if kind == "warm":
                device.pipeline.rerank("app", RerankQuery(tuple(shown[20:])), Deadline())
            answer = device.pipeline.rerank("app", RerankQuery(tuple(shown[:20])), Deadline())
            if n >= 0:
                spent[kind].append(answer.timings.tier2_ms)
    device.close()
    return spent


def _open(config: Config) -> Device:
    device = open_device(config)
    assert not device.settle(Deadline.after_ms(60_000))
    return device
