"""What goes in and what comes out, as plain records (a named tuple where an answer has many)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Item:
    """An item's public content; only ``id`` is required."""

    id: str
    title: str = ""
    text: str = ""
    tags: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A similar item by the backend's public knowledge; ``weight`` is finite and not negative."""

    id: str
    weight: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One item that the backend proposes; only ``id`` is required.

    ``published_at`` is a datetime (naive: UTC) or seconds since 1970. ``vector`` belongs to
    ``vector_space``.
    """

    id: str
    title: str = ""
    text: str = ""
    tags: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    server_score: float | None = None
    published_at: datetime.datetime | float | None = None
    features: Mapping[str, float] = field(default_factory=dict)
    neighbours: Sequence[Neighbour] = ()
    vector: Sequence[float] = ()
    vector_space: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing the user did.

    ``type`` is a name such as "LIKE". ``event_id`` is made up when it is empty. ``occurred_at`` is a
    datetime (naive: UTC) or seconds since 1970; None means now. ``context`` is what the app tells of the
    device or the moment, such as {"network": "wifi"}.
    """

    type: str
    item: Item | None = None
    event_id: str = ""
    query: str = ""
    dwell_s: float = 0.0
    occurred_at: datetime.datetime | float | None = None
    surface: str = ""
    session_id: str = ""
    ranking_id: str = ""
    position: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pin:
    """One candidate at one fixed, zero-based place."""

    id: str
    position: int


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``most`` candidates of a kind within the first ``window`` places (0: 20).

    Exactly one kind: with the same value of ``attribute``, with ``tag``, with the same tag (``each_tag``), or
    published more than ``max_age_days`` ago.
    """

    most: int
    window: int = 0
    attribute: str | None = None
    tag: str | None = None
    each_tag: bool | None = None
    max_age_days: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the list must look like beyond its order; see the proto.

    Strengths are 0 to 1; 0 changes nothing. ``diversity_method`` is "MMR" or "DPP"; "" means MMR.
    """

    diversity: float = 0.0
    calibration: float = 0.0
    exploration: float = 0.0
    blocked_tags: Sequence[str] = ()
    pins: Sequence[Pin] = ()
    diversity_method: str = ""
    caps: Sequence[Cap] = ()


class Result(NamedTuple):
    """One candidate at its place, and the deepest tier (0, 1, 2) that had a say in it."""

    id: str
    tier: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds by stage; a stage that did not run is 0."""

    queue_ms: float = 0.0
    context_ms: float = 0.0
    tier0_ms: float = 0.0
    tier1_ms: float = 0.0
    tier2_ms: float = 0.0
    fusion_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The candidates in this user's order, and those that are not to be shown (``blocked_ids``).

    ``degraded_reason`` is "" or, in a final answer, a name such as "DEADLINE"; ``coverage`` is the share of
    candidates that the deepest tier due has reached. ``model`` and ``pack`` are "" where they had no say.
    ``settled`` says that the model left some unread because they would hardly change the first places.
    """

    ranking_id: str
    results: tuple[Result, ...]
    coverage: float
    degraded_reason: str
    timings: Timings
    model: str
    pack: str
    final: bool
    settled: bool = False
    blocked_ids: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The candidates' ids, best first."""
        return tuple(result.id for result in self.results)


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many events were new, and how many the service had already."""

    recorded: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The receipt of a forget: what was removed, by kind, and a digest (SHA-256, hex) of what remains."""

    events: int
    items: int
    vectors: int
    rankings: int
    prefixes: int = 0
    backups: int = 0
    remaining_digest: str = ""
    choices: int = 0


@dataclass(frozen=True, slots=True)
class TypeRetention:
    """How long events of one type ("LIKE") are kept, where that is shorter than for all; 0: as for all."""

    type: str
    max_age_days: int = 0
    max_events: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a namespace's events are kept, and how many, the newest; 0: no limit."""

    max_age_days: int = 0
    max_events: int = 0
    by_type: Sequence[TypeRetention] = ()


@dataclass(frozen=True, slots=True)
class RetentionStatus:
    """The rule in force, the moment that ages are counted to, and whether events over it are being removed.

    ``reckoned_to`` is the device's clock, unless that has jumped and is not believed yet.
    """

    retention: Retention
    reckoned_to: datetime.datetime
    sweeping: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for ``reader``'s rankings to go by ``source``'s events; ``granted_at`` is in UTC."""

    source: str
    reader: str
    granted_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Namespace:
    """One app's part of the store; ``grants`` name whose other events its rankings go by."""

    name: str
    events: int
    token_file: str
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A model file on the device; ``role`` is "encoder", "scorer" or "ranker", ``state`` such as "READY".

    ``tokens_per_s`` is what its last self-test measured; 0 when it had none.
    """

    name: str
    sha256: str
    size_bytes: int
    role: str
    state: str
    license: str
    tokens_per_s: float = 0.0


class Feature(NamedTuple):
    """One part of a score, in words; ``group`` is what it is about, such as "history"."""

    name: str
    group: str
    description: str


@dataclass(frozen=True, slots=True)
class Reason:
    """An event that moved a candidate; changes are against the same request without this one event.

    ``text`` says it in English: "because you liked Heat (1995) on Tuesday". Above 0, the changes of score and
    place are in the candidate's favour. ``EdgeReranker.forget_event`` takes the event back.
    """

    event_id: str
    namespace: str
    type: str
    title: str
    item_id: str
    occurred_at: datetime.datetime
    score_change: float
    place_change: int
    feature: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one candidate stands where it stands; ``contributions`` by feature sum to ``score``.

    Places are zero-based, by the server, in the answer, and by score alone; None: there is none, or not known
    any more. ``title`` and ``topics`` are empty then; a topic can be muted.
    """

    id: str
    score: float
    tier: int
    server_place: int | None
    place: int | None
    score_place: int | None
    contributions: Mapping[str, float]
    reasons: tuple[Reason, ...]
    title: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a past ranking is as it is; ``features`` are those that the explanations name.

    ``reasons_missing`` is "" or says why there are none or not all: "NOT_KEPT", "NOT_SCORED", "DEADLINE".
    ``reading_held``: what the model's reading added is taken as it was; else reasons are exact.
    """

    explanations: tuple[Explanation, ...]
    features: tuple[Feature, ...]
    reasons_missing: str
    degraded_reason: str
    reading_held: bool


@dataclass(frozen=True, slots=True)
class BeliefEvent:
    """An event behind a belief, and what it adds to the weight. ``forget_event`` takes it back."""

    event_id: str
    namespace: str
    type: str
    title: str
    item_id: str
    occurred_at: datetime.datetime
    weight: float


@dataclass(frozen=True, slots=True)
class Belief:
    """What the user is taken to think of a topic: ``weight`` from -1, disliked, to 1, liked.

    ``share`` is how much of what the user did is about it; 0 to 1.
    """

    topic: str
    weight: float
    share: float
    muted: bool
    events: tuple[BeliefEvent, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What the service believes about the user, strongest first, from ``n_events`` events."""

    beliefs: tuple[Belief, ...]
    muted_topics: tuple[str, ...]
    n_events: int
