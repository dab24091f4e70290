"""What the encoder's time buys on cold lists: NDCG@10 by budget, with and without stopping when settled.

NDCG is of all lists of MovieLens-100K's later users with the packs that ship; their clock is SIMULATED, with
the milliseconds an item that the real worker takes here (``effort_lists``). The price to stop at is from the
fusion users. A plot goes into the file that EFFORT_PLOT names.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import cache_dir, films, percentile, report, service, timed_ms
from benchmarks.effort_lists import ARMS, FROM_THE_TOP, SETTLED, Cold, Reader
from edge_reranker.cli.hidden import kept_hidden_states
from edge_reranker.cli.packs import DEFAULT_PACK, pack_folder
from edge_reranker.cli.wiring import encoder_engine
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.evaluation import metrics, movielens, plot, protocol, run
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.models import load_pack
from edge_reranker.prompt import item_pieces
from edge_reranker.ranking import effort
from edge_reranker.ranking.effort import Float64
from edge_reranker.scoring import Plan
from edge_reranker.types import Candidate as CoreCandidate
from edge_reranker.types import RerankQuery
from edge_reranker_client import Candidate, Event, Item, Ranking

_PACKS = (DEFAULT_PACK, "generic-minilm")
_BUDGETS_MS = (25, 50, 100, 200, 400)
_PRICES = (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4)
_ALL = 1_000
_SAMPLE = 12
_STYLE = """svg { font: 12px sans-serif; background: #fff; } text { fill: #222; } .grid { stroke: #ddd; }
.s0 { --series: #b45f00; } .s1 { --series: #0063b1; } .s2 { --series: #00795a; }
circle { fill: var(--series); } .bar { stroke: var(--series); }
polyline { fill: none; stroke: var(--series); }
@media (prefers-color-scheme: dark) { svg { background: #16181c; } text { fill: #ddd; }
.grid { stroke: #333; } }
"""


@dataclass(frozen=True, slots=True)
class Reached:
    """Lists with so much time: each case's place, and how many of each list were read."""

    places: metrics.Places
    reads: Sequence[int]


def main() -> bool:
    """The tables; whether stopping costs nothing and saves most of the time."""
    data = movielens.load(cache_dir() / "data" / "movielens-100k")
    split = protocol.split(data)
    figures: dict[str, object] = {**_worker(), **_service(split)}
    # What is measured beside other work says little of a device: then the pace of a quiet one can be given.
    ms = float(os.environ.get("EFFORT_MS_PER_ITEM") or str(figures["measured_ms_per_item"]))
    figures["ms_per_item"] = ms
    stops = {budget: int(budget / ms) for budget in _BUDGETS_MS}
    bounds: dict[str, bool] = {}
    dots: list[plot.Dot] = []
    for name in _PACKS:
        config = Config(cache_dir(), cache_dir() / "s", cache_dir(), "minilm", pack=name)
        pack = load_pack(pack_folder(config))
        hidden = kept_hidden_states(config, pack.manifest.encoder, data.items)
        reader = Reader(pack, run.lister(data, split, pack, hidden))
        if name == DEFAULT_PACK:
            cost = _price(name, reader, [reader.cold(cut) for cut in split.fusion])
            bounds["the price costs fusion users <= .0005"] = cost <= 0.0005
        later = [reader.cold(cut) for cut in split.test]
        found = {arm: _reached(reader, later, arm, [0, *stops.values(), _ALL]) for arm in ARMS}
        users = [cold.cut.user_id for cold in later for _ in cold.targets]
        key = "" if name == DEFAULT_PACK else "generic_"
        figures |= {f"{key}{what}": value for what, value in _figures(name, found, users, stops).items()}
        figures |= {f"{key}{what}": value for what, value in _by_entropy(reader, later, found[SETTLED][_ALL])}
        saved, change = _mean(found[SETTLED][_ALL].reads), _against_all(found, users)
        bounds[f"{name}: no worse than all read, within .002"] = change.low >= -0.002
        if name == DEFAULT_PACK:
            bounds["at most a third is read"] = saved <= len(later[0].matrix) / 3
            dots = _dots(found, users, stops, ms)
    figures |= {"price": effort.PRICE, **_planning()}
    bounds["planning 100 candidates <= 0.3 ms"] = float(str(figures["plan_100_ms"])) <= 0.3
    bounds["planning 1,000 candidates <= 2 ms"] = float(str(figures["plan_1000_ms"])) <= 2.0
    if path := os.environ.get("EFFORT_PLOT"):
        _draw(Path(path), dots)
    return report("effort", figures, bounds)


def _reached(reader: Reader, lists: Sequence[Cold], arm: str, stops: Sequence[int]) -> dict[int, Reached]:
    places: dict[int, list[int]] = {n: [] for n in stops}
    reads: dict[int, list[int]] = {n: [] for n in stops}
    for cold in lists:
        walk = reader.walk(cold, arm, stops)
        for n in reads:
            n_read, order = walk.at(n)
            places[n] += cold.places(order)
            reads[n].append(n_read)
    return {n: Reached(np.array(places[n], np.int64), reads[n]) for n in reads}


def _price(name: str, reader: Reader, lists: Sequence[Cold]) -> float:
    """What the price costs the fusion users against reading all; prints what others do."""
    users = [cold.cut.user_id for cold in lists for _ in cold.targets]
    everything = _reached(reader, lists, FROM_THE_TOP, [_ALL])[_ALL].places
    print(f"{name}, fusion users: all read, {float(metrics.ndcg(everything).mean()):.4f}")
    cost = {}
    for price in _PRICES:
        places: list[int] = []
        reads = []
        for cold in lists:
            n_read, order = reader.walk(cold, SETTLED, [], price).at(_ALL)
            places += cold.places(order)
            reads.append(n_read)
        change = metrics.compare(np.array(places, np.int64), everything, users).ndcg10
        print(f"  price {price:g}: {_mean(reads):.1f} read, {_change(change)}")
        cost[price] = -change.mean
    return cost[effort.PRICE]


def _figures(
    name: str,
    found: Mapping[str, Mapping[int, Reached]],
    users: Sequence[str],
    stops: Mapping[int, int],
) -> dict[str, float]:
    """Prints the later users' table."""
    print(f"{name}, later users: NDCG@10 [95 %] (items read); the clock is simulated")
    figures: dict[str, float] = {}
    rows = {"none read": 0, **{f"{ms} ms": n for ms, n in stops.items()}, "all the time": _ALL}
    for title, n in rows.items():
        cells = []
        for arm in ARMS:
            reached = found[arm][n]
            gain = metrics.bootstrap(metrics.ndcg(reached.places), users)
            key = f"{arm}_{title}".replace(" ", "_")
            figures |= {f"{key}_ndcg10": gain.mean, f"{key}_read": _mean(reached.reads)}
            interval = f"[{gain.low:.4f}, {gain.high:.4f}]"
            cells.append(f"{arm} {gain.mean:.4f} {interval} ({_mean(reached.reads):.1f})")
        change = metrics.compare(found[SETTLED][n].places, found[FROM_THE_TOP][n].places, users).ndcg10
        print(f"  {title:<13}{'  '.join(cells)}  {_change(change)}")
        figures |= {f"change_{title}".replace(" ", "_") + end: value for end, value in _ends(change)}
    change = _against_all(found, users)
    print(f"  settled against all read: {_change(change)}")
    return figures | {f"settled_against_all{end}": value for end, value in _ends(change)}


def _by_entropy(reader: Reader, lists: Sequence[Cold], settled: Reached) -> list[tuple[str, float]]:
    """How many are read of the lists whose choice is least undecided before, and most, by quarters."""
    bits = [effort.entropy(reader.scores(cold)) for cold in lists]
    of_quarter = np.array_split(np.argsort(bits, kind="stable"), 4)
    found = []
    for at, quarter in enumerate(of_quarter, start=1):
        entropy, n = _mean([bits[row] for row in quarter]), _mean([settled.reads[row] for row in quarter])
        print(f"  quarter {at} by entropy: {entropy:.2f} bits, {n:.1f} read")
        found += [(f"entropy_quarter_{at}_bits", entropy), (f"entropy_quarter_{at}_read", n)]
    return found


def _against_all(found: Mapping[str, Mapping[int, Reached]], users: Sequence[str]) -> metrics.Interval:
    return metrics.compare(found[SETTLED][_ALL].places, found[FROM_THE_TOP][_ALL].places, users).ndcg10


def _change(change: metrics.Interval) -> str:
    return f"change {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"


def _ends(change: metrics.Interval) -> list[tuple[str, float]]:
    return [("", change.mean), ("_low", change.low), ("_high", change.high)]


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def _service(split: protocol.Split) -> dict[str, float]:
    """Cold lists through the real worker and socket: the whole request's milliseconds, and an item's."""
    items = {item.id: item for item in films()}
    server = PopularityServer((each for past in split.head.values() for each in past), items)
    answers: dict[str, list[Ranking]] = {"SETTLED": [], "FULL": []}
    with service() as client:
        for cut in split.test[:: len(split.test) // _SAMPLE][:_SAMPLE]:
            pool = server.candidates(cut.history, {each.item_id for each in cut.history}, 100)
            sent = [Candidate(each.id, each.item.title, tags=each.item.tags) for each in pool]
            for name, kept in answers.items():
                client.forget(all=True)
                client.record(
                    Event(
                        each.type.name,
                        Item(each.item_id, items[each.item_id].title, tags=items[each.item_id].tags),
                        occurred_at=time.time() - 10_000 + place,
                    )
                    for place, each in enumerate(cut.history)
                )
                client.warmup()
                kept.append(client.rerank(sent, budget_ms=5_000, effort=name))
    figures: dict[str, float] = {"n_sampled": float(_SAMPLE)}
    for name, kept in answers.items():
        figures[f"real_{name.lower()}_p50_ms"] = statistics.median(each.timings.total_ms for each in kept)
        figures[f"real_{name.lower()}_read"] = _mean([each.coverage * 100 for each in kept])
    return figures


def _worker() -> dict[str, float]:
    """Milliseconds an item, in tier 1's chunks; of the best tenth, because others compute here too."""
    config = Config(cache_dir(), cache_dir() / "s", cache_dir(), "minilm")
    engine = encoder_engine(config, load_pack(pack_folder(config)).manifest.encoder)
    texts = [item_pieces(item) for item in films()[:400]]

    def encode(at: int) -> None:
        engine.encode(engine.tokenize(texts[at : at + 8], Deadline()), Deadline())

    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        encode(0)
        spent = [timed_ms(partial(encode, at)) / 8 for at in range(0, len(texts), 8)]
    finally:
        engine.close()
    return {
        "measured_ms_per_item": percentile(spent, 0.1),
        "measured_p50_ms_per_item": statistics.median(spent),
    }


def _planning() -> dict[str, float]:
    """Milliseconds to decide what to read next, in the best of 200 tries: others compute here, too."""
    draw = np.random.default_rng(0)
    found = {}
    for n in (100, 1_000):
        plan = Plan(RerankQuery(tuple(CoreCandidate(item) for item in films()[:n])))
        scores, deviations = draw.standard_normal(n), np.full(n, 0.5)

        def planned(plan: Plan, scores: Float64, deviations: Float64) -> None:
            plan.stands(scores, deviations)
            plan.next(range(len(scores)))

        found[f"plan_{n}_ms"] = min(timed_ms(partial(planned, plan, scores, deviations)) for _ in range(200))
    return found


def _dots(
    found: Mapping[str, Mapping[int, Reached]], users: Sequence[str], stops: Mapping[int, int], ms: float
) -> list[plot.Dot]:
    dots = []
    for arm in ARMS:
        for n in (0, *stops.values()):
            reached = found[arm][n]
            gain = metrics.bootstrap(metrics.ndcg(reached.places), users)
            spent_ms = ms * _mean(reached.reads)
            label = f"{arm}: {gain.mean:.4f} in {spent_ms:.0f} ms"
            dots.append(plot.Dot(spent_ms, arm, gain.mean, gain.low, gain.high, label))
    return dots


def _draw(path: Path, dots: Sequence[plot.Dot]) -> None:
    """The plot as a file of its own, with its colours and their names."""
    drawn = plot.svg(dots, "ms of model time (mean over lists, simulated)", "NDCG@10")
    names = "".join(
        f'<g class="s{at}"><circle cx="{160 + 130 * at}" cy="13" r="4"/>'
        f'<text x="{170 + 130 * at}" y="17">{arm}</text></g>'
        for at, arm in enumerate(ARMS)
    )
    head, rest = drawn.split(">", 1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    path.write_text(f"{head}><style>{_STYLE}</style>{names}{rest}\n", encoding="utf-8")
