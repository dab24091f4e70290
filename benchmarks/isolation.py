"""What one app's answers take beside another's 100,000 stored events and their vectors, and without them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import interleaved, percentile, ratio, report
from edge_reranker.cli import packs
from edge_reranker.cli.tiers import make_tiers
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.models import Pack, load_pack
from edge_reranker.pipeline import Pipeline
from edge_reranker.prompt import content_hash
from edge_reranker.ranking.towers import Towers
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Event, EventType, Item, RerankQuery

_EVENTS = 100_000
_BATCH = 1_000
_ROUNDS = 200
_CANDIDATES = 100


def main() -> bool:
    """Two services in one process, asked in turn; the other app is not at work, its data are just there."""
    pack = load_pack(packs.pack_folder(Config(Path(), Path(), Path(), "minilm")))
    query = RerankQuery(tuple(Candidate(_film(number)) for number in range(_CANDIDATES)))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        services = {
            kind: stack.enter_context(_service(Path(name) / kind, pack, crowded=kind == "beside"))
            for kind in ("alone", "beside")
        }
        # Recording makes the next answer read the user anew: the dearest case that there is.
        at = iter(range(1_000_000))

        def ask(whole: Pipeline) -> None:
            number = next(at)
            whole.record("a", [Event(f"n{number}", EventType.LIKE, 1.1e9 + number, _film(number % 50))])
            whole.rerank("a", query, Deadline())

        calls = {
            kind: (lambda whole=whole: whole.rerank("a", query, Deadline()))
            for kind, whole in services.items()
        }
        calls |= {f"{kind}_renewed": (lambda whole=whole: ask(whole)) for kind, whole in services.items()}
        interleaved(calls, 5)
        spent = interleaved(calls, _ROUNDS)
    figures: dict[str, object] = {"n_events_of_the_other": _EVENTS, "n_candidates": _CANDIDATES}
    for kind, times in spent.items():
        figures[f"{kind}_p50_ms"] = percentile(times, 0.5)
        figures[f"{kind}_p99_ms"] = percentile(times, 0.99)
    ratios = {
        "ratio": ratio(spent["beside"], spent["alone"]),
        "ratio_renewed": ratio(spent["beside_renewed"], spent["alone_renewed"]),
    }
    bounds = {f"{name} within 0.9 to 1.1": 0.9 <= value <= 1.1 for name, value in ratios.items()}
    return report("isolation", figures | ratios, bounds)


def _film(number: int) -> Item:
    return Item(f"f{number}", f"Film {number} of many", tags=("Drama", f"Tag {number % 20}"))


@contextlib.contextmanager
def _service(folder: Path, pack: Pack, *, crowded: bool) -> Iterator[Pipeline]:
    """With the shipped pack and made-up hidden states: what is looked at is not the model."""
    engine = FakeEngine(n_embd=pack.manifest.encoder.n_embd)
    with Store.open(folder, key_source="file") as store:
        if crowded:
            _fill(store, pack)
        whole = Pipeline(store, make_tiers(pack, store, engine, None, model="fake"))
        whole.record("a", [Event(f"e{n}", EventType.LIKE, 1e9 + n, _film(n)) for n in range(30)])
        whole.rerank("a", RerankQuery(tuple(Candidate(_film(n)) for n in range(_CANDIDATES))), Deadline())
        if crowded:
            # The other's are in memory, too: as much as there is room for.
            for first in range(0, 10_000, _BATCH):
                many = tuple(Candidate(_film(n)) for n in range(first, first + _BATCH))
                whole.rerank("b", RerankQuery(many), Deadline())
        background = whole._current.value.tiers.background
        assert background is not None
        background.wait_idle(Deadline.after_ms(60_000))
        try:
            yield whole
        finally:
            whole.close()


def _fill(store: Store, pack: Pack) -> None:
    random = np.random.default_rng(0)
    n_dims = Towers.of(pack.head).n_dims
    for first in range(0, _EVENTS, _BATCH):
        numbers = range(first, first + _BATCH)
        store.record("b", [Event(f"e{n}", EventType.LIKE, 1e9 + n, _film(n)) for n in numbers])
        made = random.standard_normal((_BATCH, n_dims)).astype("<f2")
        keyed = [(content_hash(_film(n)), f"f{n}", made[at].tobytes()) for at, n in enumerate(numbers)]
        store.put_vectors("b", pack.id, keyed)
    store.flush()
