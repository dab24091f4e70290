"""Why a score is what it is: what each feature added, and what each event of the user changed.

A score is a sum over features (``fusion.contributions``), so it is its own explanation. What one event did is
told by leaving it out: the score with all events less the score without this one, all else as it was (Cook,
"Detection of Influential Observation in Linear Regression", 1977, asks the same of one row of a regression).
Such changes need not add up: two events that say the same change little each.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_reranker.explained import Contribution, Feature
from edge_reranker.ranking import fusion
from edge_reranker.ranking.fusion import Float64, Weights
from edge_reranker.ranking.profile import TAKEN_BACK, Taste, counting
from edge_reranker.texts import clean
from edge_reranker.types import Context, Event, EventType

# Less than this is what the order of a sum does to its last bits.
NOISE = 1e-9
MAX_TITLE_CHARS = 80

DESCRIPTIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "server_rank": ("server", "where the server put it"),
        "server_score": ("server", "the server's own score of it"),
        "history_text": ("history", "words it shares with what you chose before"),
        "query_text": ("search", "words it shares with what you search for"),
        "tags": ("history", "topics it shares with what you chose before"),
        "context_tags": ("history", "topics it shares with what you chose at such a time or place"),
        "attributes": ("history", "details it shares with what you chose before, such as year or author"),
        "recency": ("freshness", "how new it is"),
        "neighbours": ("history", "the app calls it similar to what you chose before"),
        "public_vector": ("history", "close to what you chose before, by the app's own measure"),
        "towers": ("history", "what people liked next who chose what you chose"),
        "towers_recent": ("history", "what people liked next who chose what you chose last"),
        "content": ("history", "reads like what you chose before"),
        "content_recent": ("history", "reads like what you chose last"),
        "query_content": ("search", "reads like what you search for"),
        "unseen": ("history", "new to everybody from whom the pack has learned"),
        "item_to_item": ("history", "liked by others who liked what you chose last"),
        "scorer": ("history", "what the model makes of it, having read what you did"),
        "expected": ("history", "what the model would probably say of it, had there been time to read it"),
    }
)
"""Of every feature: what it is about, and what it is, in plain English."""

_DID: Mapping[EventType, str] = MappingProxyType(
    {
        EventType.IMPRESSION: "were shown",
        EventType.VIEW: "viewed",
        EventType.CLICK: "chose",
        EventType.LIKE: "liked",
        EventType.DISLIKE: "disliked",
        EventType.PURCHASE: "bought",
        EventType.SEARCH: "searched for",
        EventType.SKIP: "skipped",
        EventType.DWELL: "spent time with",
        EventType.SHARE: "shared",
        EventType.HIDE: "hid",
    }
)
# Not by strftime: that speaks the device's language, and the rest is English.
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


@dataclass(frozen=True, slots=True)
class Scored:
    """A request's ``scores`` [n], their ``parts`` [n, k] by feature, and each candidate's ``place`` [n]."""

    scores: Float64
    parts: Float64
    place: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Change:
    """What one event changed of every candidate: ``score`` [n], ``place`` [n] (above 0: up), and the column
    ``feature`` [n] by which it moved it most.
    """

    score: Float64
    place: NDArray[np.intp]
    feature: NDArray[np.intp]


def feature(name: str, named: Sequence[str] = ()) -> Feature:
    """A feature in words; ``named`` are those that the app sends by name."""
    if name in named:
        return Feature(name, "app", f'the app\'s own number "{name}"')
    return Feature(name, *DESCRIPTIONS.get(name, ("other", name.replace("_", " "))))


def scored(matrix: Float64, names: Sequence[str], weights: Weights, *, as_served: bool = False) -> Scored:
    """The scores of ``matrix`` [n, k], each its parts' sum; ``as_served``: the places are the server's."""
    parts = np.column_stack(list(fusion.contributions(matrix, names, weights).values()))
    scores = fusion.fuse(matrix, names, weights)
    n = len(scores)
    place = np.empty(n, np.intp)
    place[np.arange(n) if as_served else fusion.order(scores)] = np.arange(n)
    return Scored(scores, parts, place)


def change(now: Scored, without: Scored) -> Change:
    """What an event changed, given the scores ``now`` and those ``without`` it."""
    score = now.scores - without.scores
    score[np.abs(score) < NOISE] = 0.0
    moved = (now.parts - without.parts) * np.sign(score)[:, None]
    return Change(score, without.place - now.place, moved.argmax(axis=1))


def contributions(parts: Float64, names: Sequence[str]) -> tuple[Contribution, ...]:
    """One candidate's parts [k] that are not 0, the largest first, whichever way."""
    order = np.argsort(-np.abs(parts), kind="stable")
    return tuple(Contribution(names[at], float(parts[at])) for at in order.tolist() if parts[at] != 0.0)


def telling(context: Context, taste: Taste) -> Iterator[int]:
    """The places in ``context`` of the events without which the profile may be another, newest first.

    Those that count, and each DISLIKE and HIDE that takes one back. All others can be left out for nothing.
    """
    counted = [id(event) for event, _ in counting(context, taste)]
    for at in reversed(range(len(context.events))):
        event = context.events[at]
        if id(event) in counted:
            yield at
        elif event.type in TAKEN_BACK:
            left = [id(event) for event, _ in counting(without(context, at), taste)]
            if left != counted:
                yield at


def without(context: Context, at: int) -> Context:
    """The same less one event."""
    namespaces = context.namespaces
    return dataclasses.replace(
        context,
        events=context.events[:at] + context.events[at + 1 :],
        namespaces=namespaces[:at] + namespaces[at + 1 :] if namespaces else (),
    )


def title(event: Event) -> str:
    """What an event is about, one line of at most 80 characters: title, else id, else words searched."""
    if event.item is None:
        return clean(event.query, MAX_TITLE_CHARS)
    return clean(event.item.title, MAX_TITLE_CHARS) or clean(event.item.id, MAX_TITLE_CHARS)


def phrase(
    event: Event, score_change: float, by: str, *, now_s: float, zone: datetime.tzinfo | None = None
) -> str:
    """ "because you liked Heat (1995) on Tuesday"; "although ..." for what spoke against the candidate.

    ``by`` is the feature that moved it most. ``now_s`` is in seconds since 1970 UTC, ``zone`` the device's
    without one.
    """
    about = title(event)
    if event.item is None:
        about = f'"{about}"'
    when = day(event.occurred_at, now_s, zone)
    did = _DID.get(event.type, "met")
    if score_change < 0:
        return f"although you {did} {about} {when}"
    if by == "item_to_item" and event.item is not None:
        return f"like others who {did} {about}, as you did {when}"
    return f"because you {did} {about} {when}"


def day(at_s: float, now_s: float, zone: datetime.tzinfo | None = None) -> str:
    """The day of a moment as of now: today, yesterday, a weekday of the six days before, else the date."""
    at, now = (
        datetime.datetime.fromtimestamp(s, datetime.UTC).astimezone(zone).date() for s in (at_s, now_s)
    )
    days_ago = (now - at).days
    if days_ago in (0, 1):
        return ("today", "yesterday")[days_ago]
    if 1 < days_ago < 7:
        return f"on {_DAYS[at.weekday()]}"
    return f"on {at.day} {_MONTHS[at.month - 1]} {at.year}"
