"""What a user's events say of the user: how broad the taste is, which context tells, and whether it moves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import context, information
from edge_reranker.ranking.context import ALPHA, Informative, Local, Placed
from edge_reranker.ranking.profile import SECONDS_A_DAY, Taste
from edge_reranker.types import Event

RECENT_DAYS = 7
_MIN_EVENTS = 3
_N_TOLD = 3
_N_TOPICS = 10
_N_RESAMPLES = 200
_SEED = 20_263


@dataclass(frozen=True, slots=True)
class Share:
    """A topic's share of the events, 0 to 1, with its 95 % interval over visits."""

    topic: str
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StandsOut:
    """Under one value of a context feature that tells: what is more frequent than usual, and how frequent.

    ``topic`` is a tag; of whether the user engages it is "engaged". ``n_events`` is how many it rests on.
    """

    name: str
    value: str
    topic: str
    share: float
    usual: float
    n_events: int


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the last week's topics are from those before: ``bits`` of KL(last week || before) above chance.

    ``p`` is how often as much would come of dealing the same visits out at random; ``now`` and ``before`` are
    shares of the same topics, those first that moved most.
    """

    n_now: int
    n_before: int
    bits: float
    p: float
    now: tuple[Share, ...] = ()
    before: tuple[Share, ...] = ()

    @property
    def is_drifting(self) -> bool:
        """Whether it is more than chance."""
        return self.p <= ALPHA


@dataclass(frozen=True, slots=True)
class Insights:
    """All of it. ``n_events`` is how many were looked at, ``n_telling`` how many say what the user likes.

    ``bits`` is the entropy of the topics, ``n_topics`` to how many equally frequent ones it comes.
    """

    n_events: int
    n_telling: int
    bits: float
    n_topics: float
    topics: tuple[Share, ...]
    contexts: tuple[Informative, ...]
    stands_out: tuple[StandsOut, ...]
    drift: Drift


def insights(
    events: Sequence[Event], now_s: float, *, taste: Taste | None = None, local: Local = time.localtime
) -> Insights:
    """What the events say at ``now_s`` (s since 1970 UTC). Deterministic; in whatever order they come.

    An event is about one of its item's tags, each equally likely. One that was taken back does not count.
    """
    everything = context.placed(events, local)
    of_event = {id(each.event): each for each in everything}
    telling = [of_event[id(event)] for event, _ in context.counted(events, taste, len(everything))]
    names, counts = context.tag_counts(telling)
    visits = np.array([each.visit for each in telling], np.intp)
    bits = information.entropy(_all_topics(telling))
    found = context.informative(events, taste=taste, local=local)
    return Insights(
        len(everything),
        len(telling),
        bits,
        2.0**bits if telling else 0.0,
        _shares(names, counts, visits)[:_N_TOPICS],
        found,
        _stands_out(everything, found, taste, local),
        _drift(telling, names, counts, visits, now_s),
    )


def _all_topics(telling: Sequence[Placed]) -> NDArray[np.float64]:
    """How often each tag, also those that are too rare for a column of their own."""
    total: dict[str, float] = {}
    for each in telling:
        for tag, part in context.shares(each.event).items():
            total[tag] = total.get(tag, 0.0) + part
    return np.array([total[tag] for tag in sorted(total)])


def _shares(names: Sequence[str], counts: NDArray[np.float64], visits: NDArray[np.intp]) -> tuple[Share, ...]:
    """Every topic's share, with an interval by drawing visits with replacement (percentiles of 200 draws).

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    if not len(counts):
        return ()
    _, sums = context.grouped([(int(visit), "") for visit in visits], counts)
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_N_RESAMPLES) @ sums
    drawn = drawn / drawn.sum(axis=1, keepdims=True)
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    share = counts.sum(axis=0) / counts.sum()
    return tuple(
        Share(name, float(share[at]), float(min(low[at], share[at])), float(max(high[at], share[at])))
        for at, name in enumerate(names)
    )


def _stands_out(
    everything: Sequence[Placed], found: Sequence[Informative], taste: Taste | None, local: Local
) -> tuple[StandsOut, ...]:
    """Of the same events that the features were tested on."""
    kinds = context.telling(taste or Taste())
    newest = [each.event for each in everything if each.event.type in kinds][-context.MAX_EVENTS :]
    of_event = {id(each.event): each for each in context.placed(newest, local)}
    telling = [of_event[id(event)] for event, _ in context.counted(newest, taste)]
    result: list[StandsOut] = []
    for each in found:
        if not each.tells:
            continue
        if each.about == "topics":
            names, counts = context.tag_counts(telling)
            result += _more_frequent(each.name, telling, [*names, "(other)"], counts)
        else:
            shown = context.offered(everything)
            counts = np.array(
                [[float(context.engages(one)), float(not context.engages(one))] for one in shown]
            )
            result += _more_frequent(each.name, shown, ["engaged", ""], counts)
    return tuple(result)


def _more_frequent(
    feature: str, events: Sequence[Placed], names: Sequence[str], counts: NDArray[np.float64]
) -> list[StandsOut]:
    """By value, the topics that add most to what the value tells: share times log of share over usual."""
    rows = [row for row, each in enumerate(events) if feature in each.values]
    values = [events[row].values[feature] for row in rows]
    usual = counts[rows].sum(axis=0) / counts[rows].sum()
    result = []
    for value in sorted(context.kept_values(values)):
        mine = [row for row, each in zip(rows, values, strict=True) if each == value]
        if len(mine) < _MIN_EVENTS:
            continue
        share = counts[mine].sum(axis=0) / counts[mine].sum()
        told = _parts(share, usual)
        best = sorted(range(len(names)), key=lambda at: (-round(float(told[at]), 12), names[at]))
        result += [
            StandsOut(feature, value, names[at], float(share[at]), float(usual[at]), len(mine))
            for at in best[:_N_TOLD]
            if told[at] > 0 and names[at] not in ("", "(other)")
        ]
    return result


def _drift(
    telling: Sequence[Placed],
    names: Sequence[str],
    counts: NDArray[np.float64],
    visits: NDArray[np.intp],
    now_s: float,
) -> Drift:
    since_s = now_s - RECENT_DAYS * SECONDS_A_DAY
    began: dict[int, float] = {}
    for each in telling:
        began.setdefault(each.visit, each.event.occurred_at)
    recent = np.array([began[each.visit] >= since_s for each in telling], np.bool_)
    n_now, n_before = int(recent.sum()), int((~recent).sum())
    if not n_now or not n_before:
        return Drift(n_now, n_before, 0.0, 1.0)
    keys, sums = context.grouped([(int(visit), "") for visit in visits], counts)
    labels = np.array([began[visit] >= since_s for visit, _ in keys], np.intp)
    found = information.dependence(labels, sums, 2, information.divergence)
    now = _shares(names, counts[recent], visits[recent])
    before = _shares(names, counts[~recent], visits[~recent])
    shares = [np.array([each.share for each in part]) for part in (now, before)]
    change = np.abs(shares[0] - shares[1])
    most = sorted(range(len(names)), key=lambda at: (-round(float(change[at]), 12), names[at]))[:_N_TOPICS]
    return Drift(
        n_now,
        n_before,
        found.bits,
        found.p,
        tuple(now[at] for at in most),
        tuple(before[at] for at in most),
    )


def _parts(share: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each topic adds to KL(share || usual), in bits; a share is 0 wherever the usual one is."""
    ratio = np.divide(share, usual, out=np.ones_like(share), where=(share > 0) & (usual > 0))
    return np.asarray(share * np.log2(ratio), np.float64)
