"""The records that every layer speaks in. Standard library only.

Those that a request has by the hundred are named tuples: made in a third of a frozen dataclass's time.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from edge_reranker.errors import InvalidArgument

NOTHING: Mapping[str, Any] = MappingProxyType({})

# Of a text's hidden states: the mean over tokens, the first token's, or the last one's.
Pooling = Literal["mean", "cls", "last"]


class EventType(enum.IntEnum):
    """What the user did; numbered as in the proto."""

    UNSPECIFIED = 0
    IMPRESSION = 1
    VIEW = 2
    CLICK = 3
    LIKE = 4
    DISLIKE = 5
    PURCHASE = 6
    SEARCH = 7
    SKIP = 8
    DWELL = 9
    SHARE = 10
    HIDE = 11


class DegradedReason(enum.IntEnum):
    """Why an answer is less than the service could give; numbered as in the proto."""

    UNSPECIFIED = 0
    NO_MODEL = 1
    MODEL_UNAVAILABLE = 2
    MODEL_BUSY = 3
    DEADLINE = 4
    PACK_INVALID = 5
    STORE_UNAVAILABLE = 6
    NO_HISTORY = 7
    SERVER_PREFERRED = 8


class Effort(enum.IntEnum):
    """How much of a list the model reads; numbered as in the proto."""

    UNSPECIFIED = 0
    SETTLED = 1
    FULL = 2


class DiversityMethod(enum.IntEnum):
    """How candidates are kept apart; numbered as in the proto."""

    UNSPECIFIED = 0
    MMR = 1
    DPP = 2


class ModelState(enum.IntEnum):
    """What a model is doing; numbered as in the proto."""

    UNSPECIFIED = 0
    AVAILABLE = 1
    LOADING = 2
    READY = 3
    FAILED = 4


class Item(NamedTuple):
    """An item's public content: what the user met, or what the backend proposes."""

    id: str
    title: str = ""
    text: str = ""
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = NOTHING


class Neighbour(NamedTuple):
    """A similar item by public knowledge; ``weight`` is finite and not negative."""

    id: str
    weight: float


class Candidate(NamedTuple):
    """One item that the backend proposes.

    ``published_at`` is in seconds since 1970 UTC; ``vector`` belongs to ``vector_space``.
    """

    item: Item
    server_score: float | None = None
    published_at: float | None = None
    features: Mapping[str, float] = NOTHING
    neighbours: tuple[Neighbour, ...] = ()
    vector: tuple[float, ...] = ()
    vector_space: str = ""

    @property
    def id(self) -> str:
        """The backend's identifier of the item."""
        return self.item.id


@dataclass(frozen=True, slots=True)
class Event:
    """One thing the user did. ``occurred_at`` is in seconds since 1970 UTC.

    ``context`` is what the app told of the device or the moment, by name.
    """

    event_id: str
    type: EventType
    occurred_at: float
    item: Item | None = None
    query: str = ""
    dwell_s: float = 0.0
    surface: str = ""
    session_id: str = ""
    ranking_id: str = ""
    position: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What the service knows about the user at one moment: recent events, oldest first.

    ``sources`` are the namespaces that were read beside the user's own, by grants; ``namespaces`` then says
    of each event whose it is. Both are empty without a grant.
    """

    events: tuple[Event, ...] = ()
    sources: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.events)


@dataclass(frozen=True, slots=True)
class Pin:
    """One candidate at one fixed, zero-based place."""

    id: str
    position: int


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``most`` of a kind within the first ``window`` places; exactly one kind is set.

    ``attribute``: candidates with the same value of it, each value for itself; ``tag``: those with this tag;
    ``each_tag``: those with the same tag, each tag for itself; ``max_age_days``: those published before. Who
    lacks the attribute, a tag or a date does not count.
    """

    most: int
    window: int
    attribute: str = ""
    tag: str = ""
    each_tag: bool = False
    max_age_days: float = math.nan


@dataclass(frozen=True, slots=True)
class Policy:
    """What the list must look like beyond its order; strengths are 0 (nothing changes) to 1."""

    blocked_tags: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    diversity: float = 0.0
    diversity_method: DiversityMethod = DiversityMethod.UNSPECIFIED
    calibration: float = 0.0
    exploration: float = 0.0
    caps: tuple[Cap, ...] = ()


@dataclass(frozen=True, slots=True)
class RerankQuery:
    """One request for an order: the proto's RerankRequest, validated."""

    candidates: tuple[Candidate, ...]
    query: str = ""
    surface: str = ""
    session_id: str = ""
    top_n: int = 0
    policy: Policy = Policy()
    context: Mapping[str, str] = field(default_factory=dict)
    effort: Effort = Effort.FULL
    work: int = field(init=False, compare=False)
    """How much there is to read, in characters; a candidate counts as 128 before its text."""

    def __post_init__(self) -> None:
        items = [candidate.item for candidate in self.candidates]
        work = sum([128 + len(item.title) + min(len(item.text), 512) for item in items])
        object.__setattr__(self, "work", work)


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
    """A complete order of a request's candidates: the proto's RerankResponse before ``top_n``.

    ``settled`` says that the model left some unread because they would hardly change the first places.
    ``blocked_ids`` are the candidates that the policy does not let be shown, in the server's order: with the
    results, they are all.
    """

    ranking_id: str
    results: tuple[Result, ...]
    coverage: float
    degraded_reason: DegradedReason = DegradedReason.UNSPECIFIED
    timings: Timings = Timings()
    model: str = ""
    pack: str = ""
    final: bool = True
    settled: bool = False
    blocked_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoggedRanking:
    """A ranking as it was logged; ``created_at`` is in seconds since 1970 UTC."""

    ranking: Ranking
    surface: str
    session_id: str
    created_at: float


@dataclass(frozen=True, slots=True)
class LoggedChoice:
    """What learning takes from the event ``event_id``, as it was stored; ``body`` is learning's own.

    ``newest_event_id`` is the newest of the namespace's events that were known when the list was ranked, ""
    for none, and ``sources`` are the other namespaces that it went by.
    """

    event_id: str
    body: bytes
    newest_event_id: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MutedTopic:
    """A topic that the owner muted, casefolded."""

    topic: str


Record = Event | LoggedRanking | LoggedChoice | MutedTopic
"""What an export has: all of a namespace that cannot be made again."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many events of a batch were new, and how many were known already."""

    recorded: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open span of time, ``from_s`` <= t < ``to_s``, in seconds since 1970 UTC."""

    from_s: float = -math.inf
    to_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Selector:
    """Which events to forget; exactly one of the fields is set, else InvalidArgument.

    ``tag`` selects the events whose item had the tag then, in whatever case. ``all_namespaces`` is everything
    of everybody, whatever namespace it is given with.
    """

    event_id: str = ""
    item_id: str = ""
    type: EventType | None = None
    tag: str = ""
    span: Span | None = None
    everything: bool = False
    all_namespaces: bool = False

    def __post_init__(self) -> None:
        given = (self.event_id, self.item_id, self.type, self.tag, self.span)
        if sum(map(bool, given)) + self.everything + self.all_namespaces != 1:
            names = "event_id, item_id, type, tag, time_range, all and all_namespaces"
            raise InvalidArgument("selector", f"needs exactly one of {names}")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The receipt of a forget: what was removed, by kind, and ``remaining_digest`` of what was not.

    See ``edge_reranker.store.digest`` for what that covers; it is empty after ``all_namespaces``.
    """

    events: int = 0
    items: int = 0
    vectors: int = 0
    rankings: int = 0
    prefixes: int = 0
    choices: int = 0
    backups: int = 0
    remaining_digest: str = ""


@dataclass(frozen=True, slots=True)
class TypeRetention:
    """How long events of one type are kept, where that is shorter than for all; 0: as for all."""

    type: EventType
    max_age_days: int = 0
    max_events: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the events of a namespace are kept, and how many, the newest; 0: no limit."""

    max_age_days: int = 0
    max_events: int = 0
    by_type: tuple[TypeRetention, ...] = ()

    def __bool__(self) -> bool:
        return self != Retention()


@dataclass(frozen=True, slots=True)
class RetentionStatus:
    """The rule in force, and how far it is.

    ``reckoned_to_s`` (s since 1970) is the moment that ages are counted to; ``sweeping`` says that events
    over the rule are being removed.
    """

    retention: Retention
    reckoned_to_s: float
    sweeping: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for ``reader``'s rankings to go by ``source``'s events, since ``granted_at`` (s since 1970)."""

    source: str
    reader: str
    granted_at: float


@dataclass(frozen=True, slots=True)
class Namespace:
    """One app's part of the store: how many events it has, and whose others its rankings go by."""

    name: str
    n_events: int = 0
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """One model file on this device. ``role`` is "encoder", "scorer" or "ranker".

    ``tokens_per_s`` is what its last self-test measured; 0 when it had none.
    """

    name: str
    sha256: str
    size_bytes: int
    role: str
    state: ModelState
    license: str
    tokens_per_s: float = 0.0


class KnownPair(NamedTuple):
    """Two texts of which a sound model prefers ``near`` to ``far`` after, or beside, ``text``.

    ``margin`` is by how much when it was recorded: a difference of logits of the first tokens (scorer) or of
    cosines (encoder).
    """

    text: str
    near: str
    far: str
    margin: float


class PrefixState(NamedTuple):
    """A model's state behind the first tokens of a prompt.

    ``fingerprint`` names all that it depends on besides the tokens: model, adapter, template, version.
    ``first_event`` is the oldest event among the tokens, ``token_ids`` are little-endian int32.
    """

    namespace: str
    fingerprint: str
    first_event: str
    token_ids: bytes
    state: bytes


class Piece(NamedTuple):
    """A stretch of a prompt: ``structure`` comes from a template, the rest is data.

    Only structure may become control tokens; data never does.
    """

    text: str
    structure: bool = False
