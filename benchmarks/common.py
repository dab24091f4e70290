"""A service of its own process, real films to rank, and the one line at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import platformdirs

from edge_reranker.cli import demo, options, wiring
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Scored, Stop, WorkerEngine
from edge_reranker.evaluation import movielens
from edge_reranker.models.catalogue import DEFAULT_MODEL
from edge_reranker.types import Item
from edge_reranker_client import Candidate, EdgeReranker, Event
from edge_reranker_client import Item as SentItem

MODEL = DEFAULT_MODEL
READER = "smollm2-135m"
# Threads of a model may still spin for some milliseconds: with this pause, nobody pays for another's.
AFTER_MODEL_S = 0.02


def cache_dir() -> Path:
    """Where `make` has put model and data."""
    chosen = os.environ.get("EDGE_RERANKER_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("edge-reranker", appauthor=False))


def films() -> tuple[Item, ...]:
    """MovieLens-100K's films."""
    return movielens.load(cache_dir() / "data" / "movielens-100k").items


def candidates(items: Sequence[Item]) -> list[Candidate]:
    """Films as an app sends them."""
    return [Candidate(id=item.id, title=item.title, tags=item.tags) for item in items]


def liked(items: Sequence[Item]) -> list[Event]:
    """Films as events, a second apart."""
    now = time.time() - 3600
    return [
        Event("LIKE", SentItem(id=item.id, title=item.title, tags=item.tags), occurred_at=now + place)
        for place, item in enumerate(items)
    ]


@contextlib.contextmanager
def service(*, model: str = MODEL) -> Iterator[EdgeReranker]:
    """A real service on an empty data directory, as a user would start it."""
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        config = options.load_config({"cache_dir": cache_dir(), "model": model})
        with demo.service(config, Path(name), stderr=subprocess.DEVNULL) as client:
            yield client


def with_scorer(folder: Path) -> Path:
    """The pack that ships, with a weight for tier 2, which it leaves at 0; its folder."""
    pack = folder / "pack"
    shutil.copytree(wiring.pack_folder(Config(folder, folder / "s", cache_dir(), MODEL)), pack)
    manifest = json.loads((pack / "pack.json").read_text(encoding="utf-8"))
    manifest["scorer"] |= {"weight": 0.1, "model": READER}
    (pack / "pack.json").write_text(json.dumps(manifest), encoding="utf-8")
    return pack


def scored(engine: WorkerEngine, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Scored:
    """Scores of all, for certain: an engine reports what went wrong instead of raising it."""
    answer = engine.score(prefix, suffixes, [1, 2], Deadline())
    assert answer.stop == Stop.DONE, answer.stop
    return answer


def timed_ms(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000.0


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, pause_s: float = 0.0
) -> dict[str, list[float]]:
    """Milliseconds of each call, A B C A B C …, so that all see the same machine."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause_s)
            spent[name].append(timed_ms(call))
    return spent


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def report(name: str, figures: dict[str, object], bounds: dict[str, bool]) -> bool:
    """Prints the one JSON line; whether all bounds hold."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({"benchmark": name, **rounded, "bounds": bounds}), flush=True)
    return all(bounds.values())


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
