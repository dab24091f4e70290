"""What a user's recent events say, in a form that many requests can share."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import lexical
from edge_reranker.types import Context, Event, EventType, Item

SECONDS_A_DAY = 86_400.0
# What somebody is up to now; chosen on the fusion users (docs/decisions/0013).
RECENT_ITEMS = 5
TAKEN_BACK = frozenset({EventType.DISLIKE, EventType.HIDE})

EVENT_WEIGHTS: Mapping[EventType, float] = MappingProxyType(
    {
        EventType.VIEW: 0.5,
        EventType.CLICK: 0.5,
        EventType.DWELL: 0.5,
        EventType.SEARCH: 0.5,
        EventType.LIKE: 1.0,
        EventType.SHARE: 1.0,
        EventType.PURCHASE: 1.0,
    }
)


class TasteSettings(Protocol):
    """A pack's settings: events by their type's name."""

    @property
    def event_weights(self) -> Mapping[str, float]:
        """Weight by event type name, such as "LIKE"; a type without one counts nothing."""

    @property
    def half_life_days(self) -> float:
        """Age at which an event counts half."""

    @property
    def max_events(self) -> int:
        """How many events count at all, the newest."""

    @property
    def fresh_half_life_days(self) -> float:
        """Age at which a candidate is half as fresh."""


@dataclass(frozen=True, slots=True)
class Taste:
    """How much an event counts: by its type, and by half for every half-life that it is older."""

    event_weights: Mapping[EventType, float] = field(default_factory=lambda: EVENT_WEIGHTS)
    half_life_days: float = 30.0
    max_events: int = 50
    fresh_half_life_days: float = 7.0

    @classmethod
    def of(cls, settings: TasteSettings) -> Taste:
        """A pack's settings, by type."""
        return cls(
            {EventType[name]: weight for name, weight in settings.event_weights.items()},
            settings.half_life_days,
            settings.max_events,
            settings.fresh_half_life_days,
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """A user at one moment. Depends on the events only, not on the clock: it can be cached with them.

    ``items`` are the distinct items that count, newest first; ``weights`` [n_items] sum to 1. Words and
    tags have length 1 (Euclidean); ``attributes`` holds, per name, each value's share of the weight, and
    ``tag_shares`` each tag's, an item's spread evenly over its tags; these sum to 1 if any item has tags.
    ``recent`` are the newest ``RECENT_ITEMS`` of the items, ``recent_weights`` their newest events' types'.
    """

    items: tuple[Item, ...] = ()
    weights: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    words: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[tuple[str, str], float] = field(default_factory=dict)
    tag_shares: Mapping[str, float] = field(default_factory=dict)
    recent: tuple[Item, ...] = ()
    recent_weights: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def __bool__(self) -> bool:
        return bool(self.items) or bool(self.words)


def profile(context: Context, taste: Taste | None = None) -> Profile:
    """Sum up the newest ``max_events`` events that count.

    Age is measured from the newest of them, so that a user who comes back after a year is still known. A
    DISLIKE or HIDE takes back what earlier events said for the item.
    """
    taste = taste or Taste()
    counted = list(counting(context, taste))
    if not counted:
        return Profile()
    newest_s = max(event.occurred_at for event, _ in counted)
    items: dict[str, Item] = {}
    newest: dict[str, float] = {}
    weight_of: dict[str, float] = defaultdict(float)
    words: dict[str, float] = defaultdict(float)
    tags: dict[str, float] = defaultdict(float)
    attributes: dict[tuple[str, str], float] = defaultdict(float)
    for event, type_weight in counted:
        age_days = (newest_s - event.occurred_at) / SECONDS_A_DAY
        weight = type_weight * 0.5 ** (age_days / taste.half_life_days)
        if event.item is not None:
            items.setdefault(event.item.id, event.item)
            newest.setdefault(event.item.id, type_weight)
            weight_of[event.item.id] += weight
        for word in lexical.words(event.query):
            words[word] += weight
    total = sum(weight_of.values())
    if total <= 0:
        return Profile(words=lexical.unit(words))
    for item_id, item in items.items():
        weight = weight_of[item_id]
        for word in lexical.words(item.title, item.text):
            words[word] += weight
        for tag in item.tags:
            tags[tag.casefold()] += weight / math.sqrt(len(item.tags))
        for pair in item.attributes.items():
            attributes[pair] += weight / total
    weights = [weight_of[item_id] / total for item_id in items]
    return Profile(
        items=tuple(items.values()),
        weights=np.array(weights, np.float32),
        words=lexical.unit(words),
        tags=lexical.unit(tags),
        attributes=dict(attributes),
        tag_shares=tag_shares(items.values(), weights),
        recent=tuple(items.values())[:RECENT_ITEMS],
        recent_weights=np.array(list(newest.values())[:RECENT_ITEMS], np.float32),
    )


def tag_shares(items: Iterable[Item], weights: Iterable[float]) -> dict[str, float]:
    """Each tag's share (casefolded) of the items' weights, summing to 1; empty when no item has a tag.

    Steck, "Calibrated recommendations", RecSys 2018: an item's weight is spread evenly over its tags.
    """
    share_of: dict[str, float] = defaultdict(float)
    total = 0.0
    for item, weight in zip(items, weights, strict=True):
        tags = dict.fromkeys(map(str.casefold, item.tags))  # in order, so that every process sums alike
        if tags and weight > 0:
            total += weight
            for tag in tags:
                share_of[tag] += weight / len(tags)
    return {tag: share / total for tag, share in share_of.items()}


def counting(context: Context, taste: Taste) -> Iterator[tuple[Event, float]]:
    """The newest events that count, with their type's weight, newest first."""
    taken_back: set[str] = set()
    left = taste.max_events
    for event in reversed(context.events):
        if left == 0:
            return
        item_id = "" if event.item is None else event.item.id
        if item_id in taken_back:
            continue
        if event.type in TAKEN_BACK and item_id:
            taken_back.add(item_id)
        weight = taste.event_weights.get(event.type, 0.0)
        if weight > 0:
            left -= 1
            yield event, weight
