"""When and where something was asked for: what of it tells what the user likes, and what it says then."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import information, lexical
from edge_reranker.ranking.features import evidence
from edge_reranker.ranking.profile import SECONDS_A_DAY, TAKEN_BACK, Taste, counting
from edge_reranker.types import Candidate, Context, Event, EventType, RerankQuery

PRIORS: Mapping[str, tuple[float, float]] = MappingProxyType({"context_tags": (0.0, 0.5)})
"""Mean and deviation of the weights that no pack has: only this user's own feedback gives them a say."""

ENGAGED = frozenset(
    {EventType.VIEW, EventType.CLICK, EventType.LIKE, EventType.PURCHASE, EventType.DWELL, EventType.SHARE}
)
PASSED_OVER = frozenset({EventType.IMPRESSION, EventType.SKIP})

ALPHA = 0.05
MAX_EVENTS = 200
# A new visit begins after half an hour without an event, as in web analytics.
VISIT_GAP_S = 1_800.0
# Of fewer, no deal of the labels is rare enough to show anything.
_MIN_GROUPS = 8
# What is known of one value: of fewer events it is a guess.
_MIN_EVENTS = 3
_MAX_VALUES = 8
_MAX_TOPICS = 16
_MAX_NAMES = 8
_OTHER = "(other)"
_APP = "context."

Local = Callable[[float], time.struct_time]
"""Seconds since 1970 as a local time: the device's time zone, unless a test says otherwise."""

_Tested = tuple[int, tuple[tuple[str, str], ...], tuple[str, ...]]

Values = Mapping[str, str]
"""A context: features by name, such as {"hour": "evening", "surface": "home"}."""


@dataclass(frozen=True, slots=True)
class Informative:
    """What a context feature tells: ``bits`` above chance of whether the user engages (``engagement``), or of
    the tags of what with (``topics``); ``p`` counts how many features were looked at (Holm).

    ``used``: it goes into "context_tags". Only what it says of topics can: whether somebody is in the mood at
    all is the same for all candidates of a list. ``n_groups`` is how many visits, by value, it rests on.
    """

    name: str
    about: Literal["topics", "engagement"]
    bits: float
    p: float
    used: bool
    n_groups: int

    @property
    def tells(self) -> bool:
        """Whether it is more than chance."""
        return self.p <= ALPHA


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the user's contexts say. Depends on the events only: it can be kept until they change.

    ``leaning`` has, for each value of the features that are used, what the tags lean to under it: the unit
    vector of its history's tags less that of all of them, times evidence. ``visits`` has the last visit of
    every session: when it was last heard of (s since 1970), and its number of events. ``tested`` is what
    ``found`` was found in, and in nothing else.
    """

    found: tuple[Informative, ...] = ()
    leaning: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    visits: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    tested: tuple[_Tested, ...] = ()

    def of_request(self, query: RerankQuery, now_s: float, local: Local = time.localtime) -> Values:
        """The context of a request at ``now_s``, in seconds since 1970 UTC."""
        last_s, n_before = self.visits.get(query.session_id, (-math.inf, 0))
        depth = n_before if now_s - last_s <= VISIT_GAP_S else 0
        return _values(now_s, query.surface, query.context, depth, local)

    def column(
        self, candidates: Sequence[Candidate], query: RerankQuery, now_s: float, local: Local = time.localtime
    ) -> NDArray[np.float64]:
        """Cosine of each candidate's tags with those of the history under the same context, less that with
        the whole history's, times evidence: [n_candidates].

        A mean over the features that are used and known of the request; 0 when there is none.
        """
        result = np.zeros(len(candidates))
        if not self.leaning:
            return result
        values = self.of_request(query, now_s, local)
        leanings = [self.leaning[pair] for pair in values.items() if pair in self.leaning]
        if not leanings:
            return result
        mean: dict[str, float] = defaultdict(float)
        for leaning in leanings:
            for tag, weight in leaning.items():
                mean[tag] += weight / len(leanings)
        for row, candidate in enumerate(candidates):
            tags = dict.fromkeys(map(str.casefold, candidate.item.tags))
            if tags:
                result[row] = sum(map(mean.get, tags, repeat(0.0))) / math.sqrt(len(tags))
        return result


@dataclass(frozen=True, slots=True)
class Placed:
    """An event, the visit that it belongs to, and its context."""

    event: Event
    visit: int
    values: Values


def placed(events: Iterable[Event], local: Local = time.localtime) -> list[Placed]:
    """The events in order of time, each with its visit (numbered in that order) and its context.

    A visit is what has one session id, or none, and no gap of more than half an hour. An event is as deep in
    its visit as there were others before it; those of the same moment were not.
    """
    ordered = sorted(events, key=lambda event: (event.occurred_at, event.event_id))
    last: dict[str, tuple[int, list[float]]] = {}
    n_visits = 0
    result = []
    for event in ordered:
        visit, times = last.get(event.session_id, (0, []))
        if not times or event.occurred_at - times[-1] > VISIT_GAP_S:
            visit, times = n_visits, []
            n_visits += 1
            last[event.session_id] = visit, times
        before = len(times)
        while before and times[before - 1] == event.occurred_at:
            before -= 1
        times.append(event.occurred_at)
        values = _values(event.occurred_at, event.surface, event.context, before, local)
        result.append(Placed(event, visit, values))
    return result


def contexts(
    context: Context,
    taste: Taste | None = None,
    local: Local = time.localtime,
    before: Contexts | None = None,
) -> Contexts:
    """What the newest ``MAX_EVENTS`` events that count say of each context, and which tells anything.

    Which does is found in whole days (``_settled``), so that it changes once a day, not with every event;
    ``before`` is what was found last, and spares the work if it was found in the same. Deterministic: the
    same events give the same, bit for bit, with it or without, whatever else was there in between.
    """
    weighed = counted(context.events, taste)
    if not weighed:
        return Contexts()
    everything = placed(context.events, local)
    of_event = {id(each.event): each for each in everything}
    known = [(of_event[id(event)], weight) for event, weight in weighed]
    settled = _settled([each for each, _ in known], full=len(context.events) >= MAX_EVENTS)
    tested = _as_tested(settled)
    found = before.found if before is not None and before.tested == tested else _topics(settled)
    used = [each.name for each in found if each.used]
    return Contexts(found, _leanings(known, used), _last_visits(everything) if used else {}, tested)


def informative(
    events: Iterable[Event], *, taste: Taste | None = None, local: Local = time.localtime
) -> tuple[Informative, ...]:
    """What every context feature of the events tells of the topics, and of whether the user engages.

    The latter where there is both: what was passed over, and what was not. In whatever order they come.
    """
    everything = placed(events, local)
    kinds = telling(taste or Taste())
    newest = [each.event for each in everything if each.event.type in kinds][-MAX_EVENTS:]
    return contexts(Context(tuple(newest)), taste, local).found + _engagement(everything)


def telling(taste: Taste) -> frozenset[EventType]:
    """The types of event that say what the user likes, or take that back."""
    return frozenset({kind for kind, weight in taste.event_weights.items() if weight > 0} | TAKEN_BACK)


def tag_counts(events: Sequence[Placed]) -> tuple[list[str], NDArray[np.float64]]:
    """The most frequent tags, and each event's share in them, [n_events, n_tags + 1]; the last column is of
    all others. An event's shares sum to 1: it is about one of its tags, and nobody knows which.
    """
    shares_of = [shares(each.event) for each in events]
    total: dict[str, float] = defaultdict(float)
    for share in shares_of:
        for tag, part in share.items():
            total[tag] += part
    names = sorted(total, key=lambda tag: (-round(total[tag], 9), tag))[:_MAX_TOPICS]
    at = {tag: column for column, tag in enumerate(names)}
    counts = [[0.0] * (len(names) + 1) for _ in events]
    for row, share in zip(counts, shares_of, strict=True):
        for tag, part in share.items():
            row[at.get(tag, len(names))] += part
    return names, np.array(counts).reshape(len(events), len(names) + 1)


def grouped(
    keys: Sequence[tuple[int, str]], counts: NDArray[np.float64]
) -> tuple[list[tuple[int, str]], NDArray[np.float64]]:
    """Sums of ``counts`` [n, k] over what has the same key, and the keys, in order: [n_groups, k]."""
    at = {key: row for row, key in enumerate(sorted(set(keys)))}
    sums = np.zeros((len(at), counts.shape[1]))
    np.add.at(sums, [at[key] for key in keys], counts)
    return list(at), sums


def counted(
    events: Iterable[Event], taste: Taste | None = None, most: int = MAX_EVENTS
) -> list[tuple[Event, float]]:
    """The newest events that count and have a tag, oldest first, with their weight, that of age too."""
    taste = replace(taste or Taste(), max_events=most)
    ordered = tuple(sorted(events, key=lambda event: (event.occurred_at, event.event_id)))
    found = [
        (event, weight)
        for event, weight in counting(Context(ordered), taste)
        if event.item is not None and event.item.tags
    ]
    if not found:
        return []
    newest_s = found[0][0].occurred_at
    return [
        (event, weight * 0.5 ** ((newest_s - event.occurred_at) / SECONDS_A_DAY / taste.half_life_days))
        for event, weight in reversed(found)
    ]


def _settled(known: Sequence[Placed], *, full: bool) -> list[Placed]:
    """Those of the days (UTC) that have all their events: not of the newest, nor a ``full`` window's oldest.

    All of them, where that leaves less than half.
    """
    days = [each.event.occurred_at // SECONDS_A_DAY for each in known]
    left_out = {days[-1], days[0]} if full else {days[-1]}
    result = [each for each, day in zip(known, days, strict=True) if day not in left_out]
    return result if 2 * len(result) >= len(known) else list(known)


def _as_tested(events: Sequence[Placed]) -> tuple[_Tested, ...]:
    rank = {visit: at for at, visit in enumerate(dict.fromkeys(sorted(each.visit for each in events)))}
    return tuple(
        (rank[each.visit], tuple(each.values.items()), each.event.item.tags)
        for each in events
        if each.event.item is not None
    )


def _last_visits(everything: Sequence[Placed]) -> Mapping[str, tuple[float, int]]:
    size = Counter(each.visit for each in everything)
    return {each.event.session_id: (each.event.occurred_at, size[each.visit]) for each in everything}


def _topics(events: Sequence[Placed]) -> tuple[Informative, ...]:
    return _tested("topics", events, tag_counts(events)[1]) if events else ()


def offered(events: Sequence[Placed]) -> list[Placed]:
    """What the user could take: what was taken, and what was passed over.

    An item that was passed over and then taken after all, in one visit, was not passed over.
    """
    taken = {(each.visit, each.event.item.id) for each in events if each.event.item and engages(each)}
    return [
        each
        for each in events
        if each.event.item
        and (
            engages(each)
            or (each.event.type in PASSED_OVER and (each.visit, each.event.item.id) not in taken)
        )
    ]


def engages(each: Placed) -> bool:
    """Whether the user took it."""
    return each.event.type in ENGAGED


def _engagement(events: Sequence[Placed]) -> tuple[Informative, ...]:
    shown = offered(events)
    counts = np.array([[1.0, 0.0] if engages(each) else [0.0, 1.0] for each in shown]).reshape(-1, 2)
    return _tested("engagement", shown, counts) if counts.any(axis=0).all() else ()


def _tested(
    about: Literal["topics", "engagement"], events: Sequence[Placed], counts: NDArray[np.float64]
) -> tuple[Informative, ...]:
    """Every feature with two values at least, the chances of finding something corrected for their number."""
    names = _names(events)
    tests: list[tuple[str, information.Dependence, int]] = []
    for name in names:
        rows = [row for row, each in enumerate(events) if name in each.values]
        values = [events[row].values[name] for row in rows]
        kept = kept_values(values)
        if len(kept) < 2:
            continue
        keys = [(events[row].visit, _kept(kept, value)) for row, value in zip(rows, values, strict=True)]
        groups, sums = grouped(keys, counts[rows])
        found = information.NONE
        if len(groups) >= _MIN_GROUPS:
            order = sorted(kept)
            labels = np.array([order.index(value) for _, value in groups], np.intp)
            found = information.dependence(labels, sums, len(order))
        tests.append((name, found, len(groups)))
    adjusted = information.holm([found.p for _, found, _ in tests])
    return tuple(
        Informative(name, about, found.bits, p, about == "topics" and p <= ALPHA, n_groups)
        for (name, found, n_groups), p in zip(tests, adjusted, strict=True)
    )


def kept_values(values: Iterable[str]) -> frozenset[str]:
    """The values that are told apart: all, or the most frequent and one for the others."""
    often = Counter(values)
    if len(often) <= _MAX_VALUES:
        return frozenset(often)
    most = sorted(often, key=lambda value: (-often[value], value))[: _MAX_VALUES - 1]
    return frozenset([*most, _OTHER])


def _kept(kept: frozenset[str], value: str) -> str:
    return value if value in kept else _OTHER


def _names(events: Sequence[Placed]) -> list[str]:
    """The features that there are; of the app's own, those that most events have."""
    often = Counter(name for each in events for name in each.values)
    own = sorted((name for name in often if name.startswith(_APP)), key=lambda name: (-often[name], name))
    return sorted([*(name for name in often if not name.startswith(_APP)), *own[:_MAX_NAMES]])


def _leanings(
    known: Sequence[tuple[Placed, float]], used: Sequence[str]
) -> Mapping[tuple[str, str], Mapping[str, float]]:
    whole = lexical.unit(_tags(known))
    result: dict[tuple[str, str], Mapping[str, float]] = {}
    for name in used:
        values = {each.values[name] for each, _ in known if name in each.values}
        for value in sorted(values):
            mine = [(each, weight) for each, weight in known if each.values.get(name) == value]
            if len(mine) < _MIN_EVENTS:
                continue
            own = lexical.unit(_tags(mine))
            n_items = len({each.event.item.id for each, _ in mine if each.event.item})
            much = evidence(n_items)
            result[name, value] = {
                tag: much * (own.get(tag, 0.0) - whole.get(tag, 0.0)) for tag in sorted(whole)
            }
    return result


def _tags(known: Iterable[tuple[Placed, float]]) -> dict[str, float]:
    """As in a profile: an event's weight over the root of its number of tags."""
    tags: dict[str, float] = defaultdict(float)
    for each, weight in known:
        mine = () if each.event.item is None else each.event.item.tags
        for tag in mine:
            tags[tag.casefold()] += weight / math.sqrt(len(mine))
    return tags


def shares(event: Event) -> dict[str, float]:
    """What an event is about: each of its item's tags, in small letters, equally; they sum to 1."""
    tags = dict.fromkeys(map(str.casefold, () if event.item is None else event.item.tags))
    return {tag: 1.0 / len(tags) for tag in tags}


def _values(at_s: float, surface: str, context: Mapping[str, str], depth: int, local: Local) -> Values:
    values = {"depth": "start" if depth == 0 else "early" if depth < 5 else "deep"}
    try:
        moment = local(at_s)
    except (OverflowError, ValueError, OSError):  # a time that the device's calendar does not reach
        pass
    else:
        values["hour"] = ("night", "morning", "afternoon", "evening")[moment.tm_hour // 6]
        values["weekday"] = "weekend" if moment.tm_wday >= 5 else "weekday"
    if surface:
        values["surface"] = surface
    for name in sorted(context):
        values[_APP + name] = context[name]
    return values
