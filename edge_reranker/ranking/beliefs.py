"""What is believed about a user, topic by topic, with the events behind it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from edge_reranker.explained import Belief, BeliefEvent
from edge_reranker.ranking.explain import title
from edge_reranker.ranking.profile import SECONDS_A_DAY, TAKEN_BACK, Taste, counting
from edge_reranker.types import Context, Event

MAX_BELIEFS = 200
# A dislike speaks as loudly as a like.
_AGAINST = -1.0


def beliefs(
    context: Context, taste: Taste, *, own: str, muted: Collection[str] = ()
) -> tuple[tuple[Belief, ...], int]:
    """At most 200 beliefs, strongest first, and the number of events that they go by.

    weight_t = sum of w_e over the events e about t / sum of |w_e| over all, where w_e is the type's weight,
    -1 for a DISLIKE or HIDE, times one half for every half-life that e is older than the newest. For are the
    events that make the profile; against are the dislikes and hides of the same time, unless the item was
    chosen again since. ``own`` is whose events those are of whom the context says nothing.
    """
    weighed = _weighed(context, taste)
    total = sum(abs(weight) for _, weight in weighed)
    if total <= 0:
        return (), len(weighed)
    whose = dict(zip(map(id, context.events), context.namespaces, strict=False))
    behind: dict[str, list[BeliefEvent]] = defaultdict(list)
    for event, weight in weighed:
        if event.item is None:
            continue
        each = BeliefEvent(
            event.event_id,
            whose.get(id(event), own),
            event.type,
            title(event),
            event.item.id,
            event.occurred_at,
            weight / total,
        )
        for topic in dict.fromkeys(tag.casefold() for tag in event.item.tags):
            behind[topic].append(each)
    made = [
        Belief(
            topic,
            _within(sum(each.weight for each in events)),
            _within(sum(abs(each.weight) for each in events)),
            tuple(events),
            topic in muted,
        )
        for topic, events in behind.items()
    ]
    made.sort(key=lambda belief: (-abs(belief.weight), -belief.share, belief.topic))
    return tuple(made[:MAX_BELIEFS]), len(weighed)


def _weighed(context: Context, taste: Taste) -> list[tuple[Event, float]]:
    """The events for and against, newest first, with their weights."""
    counted = {id(event): weight for event, weight in counting(context, taste)}
    oldest = min((at for at, event in enumerate(context.events) if id(event) in counted), default=0)
    if len(counted) < taste.max_events:
        oldest = 0  # all that there is was looked at
    found: list[tuple[Event, float]] = []
    chosen_since: set[str] = set()
    for event in reversed(context.events[oldest:]):
        weight = counted.get(id(event), 0.0)
        item_id = "" if event.item is None else event.item.id
        if weight > 0:
            chosen_since.add(item_id)
        elif event.type in TAKEN_BACK and item_id and item_id not in chosen_since:
            weight = _AGAINST
        if weight:
            found.append((event, weight))
    newest_s = max((event.occurred_at for event, _ in found), default=0.0)
    days = SECONDS_A_DAY * taste.half_life_days
    return [(event, weight * 0.5 ** ((newest_s - event.occurred_at) / days)) for event, weight in found]


def _within(value: float) -> float:
    """A sum of shares, which may be over 1 by its last bit."""
    return max(-1.0, min(1.0, value))
