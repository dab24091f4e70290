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
    datetime (naive: UTC) or seconds since 1970; None means now.
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


@dataclass(frozen=True, slots=True)
class Pin:
    """One candidate at one fixed, zero-based place."""

    id: str
    position: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What the list must look like beyond its order; see the proto for what is available."""

    diversity: float = 0.0
    calibration: float = 0.0
    exploration: float = 0.0
    blocked_tags: Sequence[str] = ()
    pins: Sequence[Pin] = ()


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
    """The candidates in this user's order.

    ``degraded_reason`` is "" or, in a final answer, a name such as "DEADLINE"; ``coverage`` is the share of
    candidates that the deepest tier due has reached. ``model`` and ``pack`` are "" where they had no say.
    """

    ranking_id: str
    results: tuple[Result, ...]
    coverage: float
    degraded_reason: str
    timings: Timings
    model: str
    pack: str
    final: bool

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
