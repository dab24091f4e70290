"""The records of what is said about rankings and about the user. Standard library only."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from edge_reranker.types import DegradedReason, EventType


class ReasonsMissing(enum.IntEnum):
    """Why an explanation has no reasons, or not all of them; numbered as in the proto."""

    UNSPECIFIED = 0
    NOT_KEPT = 1
    NOT_SCORED = 2
    DEADLINE = 3


class Feature(NamedTuple):
    """One part of the score, in words; ``group`` is what it is about, such as "history"."""

    name: str
    group: str
    description: str


class Contribution(NamedTuple):
    """What one feature added to a candidate's score."""

    feature: str
    value: float


@dataclass(frozen=True, slots=True)
class Reason:
    """An event that moved a candidate; changes are against the same request without this one event.

    ``title`` is the item's, else its id, or a search's words. ``occurred_at`` is in seconds since 1970 UTC.
    Above 0, ``score_change`` and ``place_change`` (places by score) were in the candidate's favour.
    """

    event_id: str
    namespace: str
    type: EventType
    title: str
    item_id: str
    occurred_at: float
    score_change: float
    place_change: int
    feature: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one candidate stands where it stands. Places are zero-based; None: there is none, or not known.

    ``place`` is the one in the answer, ``score_place`` the one by score alone.
    Contributions sum to ``score``.
    """

    id: str
    tier: int
    score: float = 0.0
    server_place: int | None = None
    place: int | None = None
    score_place: int | None = None
    contributions: tuple[Contribution, ...] = ()
    reasons: tuple[Reason, ...] = ()
    title: str = ""
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a past ranking is as it is; ``features`` are those that the explanations name.

    ``reading_held``: what the model's reading (tier 2) added is taken as it was, else reasons are exact.
    """

    explanations: tuple[Explanation, ...]
    features: tuple[Feature, ...] = ()
    missing: ReasonsMissing = ReasonsMissing.UNSPECIFIED
    degraded_reason: DegradedReason = DegradedReason.UNSPECIFIED
    reading_held: bool = False


@dataclass(frozen=True, slots=True)
class BeliefEvent:
    """An event behind a belief, and what it adds to the belief's weight; ``title`` as in Reason."""

    event_id: str
    namespace: str
    type: EventType
    title: str
    item_id: str
    occurred_at: float
    weight: float


@dataclass(frozen=True, slots=True)
class Belief:
    """What the user is taken to think of a topic, a tag in lower case.

    ``weight`` is from -1 to 1, ``share`` from 0 to 1 and never below the weight's size: the shares of what
    the user did that speak for the topic less those that speak against it, and their sum.
    """

    topic: str
    weight: float
    share: float
    events: tuple[BeliefEvent, ...]
    muted: bool = False


@dataclass(frozen=True, slots=True)
class UserProfile:
    """What the service believes about a user, strongest first, from ``n_events`` events."""

    beliefs: tuple[Belief, ...]
    muted_topics: tuple[str, ...] = ()
    n_events: int = 0
