"""Does context earn its place? When it is found, how often by mistake, and what the column then gains.

MovieLens-100K's later users as they are, and with the times of their visits dealt out anew (whatever is found
then is a mistake). Simulated users who like other topics in the evening: how many events it takes. And a
SIMULATION of learning: such users choose from lists at any hour, and the weight of "context_tags" is learned
from nothing but their choices.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import cache_dir, report
from edge_reranker.evaluation import lists, log, metrics, movielens, protocol
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.models import load_pack
from edge_reranker.models.pack import Pack
from edge_reranker.ranking import context, features, fusion
from edge_reranker.ranking.insights import insights
from edge_reranker.ranking.profile import Taste, profile
from edge_reranker.types import Candidate, Context, Event, EventType, Item, RerankQuery

_START_S = 1_700_438_400.0
_HOUR_S = 3_600.0
_N_TAGS = 18
_TAGS = tuple(f"t{at}" for at in range(_N_TAGS))
_N_SHUFFLES = 3
_N_SIMULATED = 100
_N_LEARNERS = 60
_N_MOVED, _N_SAME = 40, 400
_N_ROUNDS = 50
_N_CANDIDATES = 50


def main() -> bool:
    """Whether mistakes are as rare as promised, and what is there is found and gains."""
    data = movielens.load(cache_dir() / "data" / "movielens-100k")
    items = {item.id: item for item in data.items}
    figures: dict[str, object] = {}
    later = _later(data, items)
    figures["later_users"] = len(later)
    visits = _movielens("visits", later, None)
    figures |= visits | _movielens("single_events", later, _apart)
    figures |= _refit(data, items)
    found = {
        (planted, n, per_visit): _found(n, planted, per_visit)
        for per_visit in (1, 5)
        for planted in (0.0, 0.5, 0.9)
        for n in (50, 100, 200)
    }
    figures |= {f"found_{planted}_of_{n}_by_{by}": share for (planted, n, by), share in found.items()}
    learned = {planted: _learned(planted) for planted in (0.0, 0.5, 0.9)}
    figures |= _drifting() | _cost()
    for planted, values in learned.items():
        figures |= {f"learning_{planted}_{name}": value for name, value in values.items()}
    mistakes = float(np.mean([share for (planted, _, _), share in found.items() if not planted]))
    return report(
        "context",
        figures,
        {
            # Of 600: two deviations of such a share are 1.8 %.
            "mistakes <= 6.8 % of all simulated users": mistakes <= 0.068,
            "mistakes <= 5 % on dealt out visits": visits["visits_dealt_out_any"] <= 0.05,
            "planted .9 is mostly found in 100 events": found[0.9, 100, 1] >= 0.7,
            "learning gains where .9 is planted": learned[0.9]["gain_low"] > 0,
        },
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _later(data: log.Log, items: dict[str, Item]) -> list[list[Event]]:
    """The newest events of every later user that say what they like, as the service would read them."""
    at_s = protocol.split(data).at_s
    kinds = context.telling(Taste())
    result = []
    for _, past in data.of_users():
        if past.at_s[0] > at_s:
            events = [each for each in log.events(past, items) if each.type in kinds]
            result.append(events[-context.MAX_EVENTS :])
    return result


def _used(events: Sequence[Event]) -> list[str]:
    found = context.contexts(Context(tuple(events)), local=time.gmtime).found
    return [each.name for each in found if each.used]


def _apart(events: Sequence[Event]) -> list[Event]:
    """Every event a visit of its own, as if one did not lead to the next."""
    return [replace(each, session_id=f"{at}") for at, each in enumerate(events)]


def _dealt_out(events: Sequence[Event], rng: np.random.Generator) -> list[Event]:
    """The same visits at each other's times."""
    placed = context.placed(events)
    start: dict[int, float] = {}
    for each in placed:
        start.setdefault(each.visit, each.event.occurred_at)
    new = dict(zip(start, rng.permutation(list(start.values())).tolist(), strict=True))
    return [
        replace(
            each.event,
            occurred_at=new[each.visit] + each.event.occurred_at - start[each.visit],
            session_id=f"v{each.visit}",
        )
        for each in placed
    ]


def _movielens(
    name: str, later: Sequence[Sequence[Event]], change: Callable[[Sequence[Event]], list[Event]] | None
) -> dict[str, float]:
    """Shares of users with a find: any feature, each feature; as they are, and with visits dealt out."""
    as_they_are = change or list
    real = [_used(as_they_are(events)) for events in later]
    rng = np.random.default_rng(11)
    dealt = [_used(as_they_are(_dealt_out(each, rng))) for _ in range(_N_SHUFFLES) for each in later]
    result = {}
    for part, finds in (("as_they_are", real), ("dealt_out", dealt)):
        result[f"{name}_{part}_any"] = float(np.mean([bool(each) for each in finds]))
        for feature in ("hour", "weekday", "depth"):
            result[f"{name}_{part}_{feature}"] = float(np.mean([feature in each for each in finds]))
    several = [sum(1 for _ in {each.visit for each in context.placed(events)}) for events in later]
    result[f"{name}_eight_visits"] = float(np.mean([n >= 8 for n in several]))
    hours = [len({each.values["hour"] for each in context.placed(one, time.gmtime)}) for one in later]
    result[f"{name}_two_parts_of_the_day"] = float(np.mean([n > 1 for n in hours]))
    _say(f"{name}: {result}")
    return result


def _refit(data: log.Log, items: dict[str, Item]) -> dict[str, float]:
    """Tier 0 refitted on the fusion users with the column and without; later users, cut after 100 and 200."""
    pack: Pack = load_pack(_pack_folder())
    taste = Taste.of(pack.manifest.taste)
    split = protocol.split(data)
    of_user = dict(data.of_users())
    after = dict.fromkeys(of_user, (100, 200))
    fusion_users = {cut.user_id for cut in split.fusion}
    later = {cut.user_id for cut in split.test}
    cuts = [
        protocol.cuts({user: past for user, past in of_user.items() if user in users}, after)
        for users in (fusion_users, later)
    ]
    server = PopularityServer((each for past in split.head.values() for each in past), items)
    lister = lists.Lister(server, items, taste, None, 100)
    result: dict[str, float] = {}
    prior = fusion.with_priors(fusion.Weights.of(pack.manifest.without_model), context.PRIORS)
    plain = fusion.Weights.of(pack.manifest.without_model)
    for name, gate in (("gated", True), ("always", False)):
        fitting, testing = ([_with_column(lister, cut, taste, gate) for cut in part] for part in cuts)
        weights = [fusion.fit(_choices(fitting, each.names), each) for each in (plain, prior)]
        places = [lists.places(testing, each) for each in weights]
        change = metrics.compare(places[1], places[0], lists.users(testing)).ndcg10
        filled = np.mean([each.matrix[:, lists.NAMES.index("context_tags")].any() for each in testing])
        result |= {
            f"refit_{name}_weight": float(weights[1].mean[-1]),
            f"refit_{name}_gain": change.mean,
            f"refit_{name}_low": change.low,
            f"refit_{name}_high": change.high,
            f"refit_{name}_lists_filled": float(filled),
            f"refit_{name}_lists": len(testing),
        }
    _say(f"refit: {result}")
    return result


def _pack_folder() -> Path:
    from edge_reranker.cli import options, packs

    return packs.pack_folder(options.load_config({}))


def _with_column(lister: lists.Lister, cut: protocol.Cut, taste: Taste, gate: bool) -> lists.Listed:
    listed = lister.listed(cut)
    known = Context(log.events(cut.history, lister.items))
    told = context.contexts(known, taste, time.gmtime)
    if not gate:
        told = _ungated(known, taste)
    matrix = listed.matrix.copy()
    candidates = [Candidate(item) for item in listed.items]
    query = RerankQuery(tuple(candidates))
    matrix[:, lists.NAMES.index("context_tags")] = told.column(candidates, query, cut.now_s, time.gmtime)
    return replace(listed, matrix=matrix)


def _ungated(known: Context, taste: Taste) -> context.Contexts:
    """As if every feature told something."""
    before = context.ALPHA
    context.ALPHA = 1.0
    try:
        return context.contexts(known, taste, time.gmtime)
    finally:
        context.ALPHA = before


def _choices(listed: Sequence[lists.Listed], names: Sequence[str]) -> list[fusion.Choices]:
    columns = [lists.NAMES.index(name) for name in names]
    return [
        fusion.Choices(part.matrix[:, :, columns], part.counts, part.offset) for part in lists.choices(listed)
    ]


def _tastes(rng: np.random.Generator, planted: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chances of the topics by day, and in the evening."""
    usual = rng.dirichlet(np.full(_N_TAGS, 0.6))
    return usual, (1 - planted) * usual + planted * rng.dirichlet(np.full(_N_TAGS, 0.6))


def _history(
    rng: np.random.Generator, tastes: tuple[NDArray[np.float64], NDArray[np.float64]], n: int, per_visit: int
) -> list[Event]:
    """Likes at any hour, in visits of ``per_visit`` on average; an item has one to three tags."""
    events: list[Event] = []
    at_s = _START_S
    while len(events) < n:
        at_s += rng.uniform(3, 30) * _HOUR_S
        size = 1 + (rng.poisson(per_visit - 1) if per_visit > 1 else 0)
        for step in range(min(size, n - len(events))):
            now_s = at_s + 60.0 * step
            item = _item(rng, f"i{len(events)}", tastes[_is_evening(now_s)])
            surface = str(rng.choice(["home", "search"]))
            events.append(Event(f"e{len(events)}", EventType.LIKE, now_s, item, surface=surface))
    return events


def _item(rng: np.random.Generator, name: str, chances: NDArray[np.float64]) -> Item:
    floor = (chances + 1e-9) / (chances + 1e-9).sum()
    tags = rng.choice(_TAGS, size=int(rng.integers(1, 4)), replace=False, p=floor)
    return Item(name, tags=tuple(map(str, tags)))


def _is_evening(at_s: float) -> int:
    return int(time.gmtime(at_s).tm_hour >= 18)


def _found(n: int, planted: float, per_visit: int) -> float:
    """Share of simulated users of whom the hour is found; with nothing planted, any feature."""
    hits = 0
    for seed in range(_N_SIMULATED):
        rng = np.random.default_rng((seed, n, per_visit))
        used = _used(_history(rng, _tastes(rng, planted), n, per_visit))
        hits += bool(used) if planted == 0 else "hour" in used
    _say(f"planted {planted}, {n} events, {per_visit} a visit: found {hits / _N_SIMULATED:.3f}")
    return hits / _N_SIMULATED


def _drifting() -> dict[str, float]:
    """Shares of simulated users who are told of a drift: of those whose topics changed a week ago, of others.

    Ten weeks of two likes a day, each a visit.
    """
    told: dict[str, list[bool]] = {"moved": [], "same": []}
    for seed in range(_N_MOVED + _N_SAME):
        rng = np.random.default_rng((seed, 99))
        usual, new = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(8))
        moved = seed < _N_MOVED
        events = []
        for at in range(140):
            chances = new if moved and at >= 126 else usual
            item = Item(f"i{at}", tags=(_TAGS[int(rng.choice(8, p=chances))],))
            at_s = _START_S + (at // 2 * 24 + at % 2 * 5) * _HOUR_S
            events.append(Event(f"e{at}", EventType.LIKE, at_s, item))
        found = insights(events, _START_S + 70 * 24 * _HOUR_S)
        told["moved" if moved else "same"].append(found.drift.is_drifting)
    result = {f"drift_told_of_{name}": float(np.mean(each)) for name, each in told.items()}
    _say(f"drift: {result}")
    return result


def _cost() -> dict[str, float]:
    """Milliseconds of the thread, median of 15: contexts anew, and with what was found before."""
    result: dict[str, float] = {}
    for planted in (0.0, 0.9):
        for n in (50, 200):
            rng = np.random.default_rng(3)
            known = Context(tuple(_history(rng, _tastes(rng, planted), n, 1)))
            told = context.contexts(known)
            result[f"anew_{planted}_of_{n}_ms"] = _thread_ms(partial(context.contexts, known))
            result[f"known_{planted}_of_{n}_ms"] = _thread_ms(partial(context.contexts, known, before=told))
    candidates = tuple(Candidate(_item(rng, f"c{at}", np.ones(_N_TAGS))) for at in range(100))
    query = RerankQuery(candidates)
    now_s = known.events[-1].occurred_at
    result["column_of_100_ms"] = _thread_ms(lambda: told.column(candidates, query, now_s))
    _say(f"cost: {result}")
    return result


def _thread_ms(call: Callable[[], object]) -> float:
    spent = []
    for _ in range(15):
        start = time.thread_time()
        call()
        spent.append((time.thread_time() - start) * 1000.0)
    return float(np.median(spent))


def _learned(planted: float) -> dict[str, float]:
    """SIMULATION: NDCG@10 of the choice in the last half of the rounds, with the column less without it.

    Both learn from the same choices: after each, the most probable weights given all of them so far, from
    the shipped pack's prior for tier 0 (and the column's own).
    """
    pack = load_pack(_pack_folder())
    plain = fusion.Weights.of(pack.manifest.without_model)
    priors = (plain, fusion.with_priors(plain, context.PRIORS))
    gains: list[float] = []
    weights: list[float] = []
    for seed in range(_N_LEARNERS):
        rng = np.random.default_rng((seed, 77))
        tastes = _tastes(rng, planted)
        known = Context(tuple(_history(rng, tastes, 150, 1)))
        told, user = context.contexts(known, local=time.gmtime), profile(known)
        seen: list[fusion.Choices] = []
        now = list(priors)
        at_s = known.events[-1].occurred_at
        change = []
        for round_ in range(_N_ROUNDS):
            at_s += rng.uniform(3, 30) * _HOUR_S
            candidates = tuple(
                Candidate(_item(rng, f"c{round_}-{at}", np.full(_N_TAGS, 1.0))) for at in range(_N_CANDIDATES)
            )
            matrix = features.features(user, RerankQuery(candidates), now_s=at_s)
            column = told.column(candidates, RerankQuery(candidates), at_s, time.gmtime)
            matrix[:, features.FEATURES.index("context_tags")] = column
            chosen = _chosen(rng, candidates, tastes[_is_evening(at_s)])
            places = [
                int(np.flatnonzero(fusion.order(fusion.fuse(matrix, features.FEATURES, each)) == chosen)[0])
                for each in now
            ]
            gain = [1 / np.log2(2 + place) if place < 10 else 0.0 for place in places]
            change.append(gain[1] - gain[0])
            counts = np.zeros((1, _N_CANDIDATES))
            counts[0, chosen] = 1.0
            seen.append(fusion.Choices(matrix[None], counts, matrix[None, :, 0]))
            if round_ % 5 == 4:
                now = [fusion.fit(_columns(seen, each.names), each) for each in priors]
        gains.append(float(np.mean(change[_N_ROUNDS // 2 :])))
        weights.append(float(now[1].mean[-1]))
    found = metrics.bootstrap(np.array(gains), [f"{at}" for at in range(_N_LEARNERS)])
    result = {
        "gain": found.mean,
        "gain_low": found.low,
        "gain_high": found.high,
        "worse": float(np.mean(np.array(gains) < 0)),
        "weight": float(np.mean(weights)),
    }
    _say(f"learning {planted}: {result}")
    return result


def _columns(seen: Sequence[fusion.Choices], names: Sequence[str]) -> list[fusion.Choices]:
    at = [features.FEATURES.index(name) for name in names]
    matrix = np.concatenate([each.matrix for each in seen])[:, :, at]
    counts = np.concatenate([each.counts for each in seen])
    return [fusion.Choices(matrix, counts, np.concatenate([each.offset for each in seen]))]


def _chosen(rng: np.random.Generator, candidates: Sequence[Candidate], taste: NDArray[np.float64]) -> int:
    """By the square of the mean chance of an item's topics, and the list's order (Zipf)."""
    of_tag = dict(zip(_TAGS, taste.tolist(), strict=True))
    liking = np.array([np.mean([of_tag[tag] for tag in each.item.tags]) for each in candidates])
    chances = (liking + 1e-4) ** 2 / np.sqrt(np.arange(1, len(candidates) + 1))
    return int(rng.choice(len(candidates), p=chances / chances.sum()))
