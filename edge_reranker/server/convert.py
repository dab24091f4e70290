"""Requests in: protos to core types, with every check and cap. Nothing behind this has to check again.

Texts (title, text, query, tags, attribute values) lose their control characters (C0 except newline and
tab) and are cut at the proto's cap; ids, names, numbers, enums and times outside theirs raise
InvalidArgument with the field's path, the value and the limit. Control strings of a model's template are
left as they are: the prompt layer makes them harmless.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from edge_reranker.errors import InvalidArgument, NotAvailableYet
from edge_reranker.server import limits
from edge_reranker.types import (
    NOTHING,
    Candidate,
    Event,
    EventType,
    Item,
    Neighbour,
    Pin,
    Policy,
    RerankQuery,
)

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from edge_reranker.v1 import context_service_pb2, rerank_service_pb2, types_pb2

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
_EVENT_TYPES = {int(kind): kind for kind in EventType if kind is not EventType.UNSPECIFIED}
_NO_POLICY = Policy()
_MIN_TIMESTAMP_S = -62_135_596_800  # 0001-01-01T00:00:00Z
_MAX_TIMESTAMP_S = 253_402_300_799  # 9999-12-31T23:59:59Z


class _ItemFields(Protocol):
    """The fields that the protos Item and Candidate share."""

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def tags(self) -> Sequence[str]: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...


def rerank_query(message: rerank_service_pb2.RerankRequest) -> RerankQuery:
    """The request for an order, checked; raises InvalidArgument or NotAvailableYet."""
    candidates = message.candidates
    n = len(candidates)
    if not 1 <= n <= limits.MAX_CANDIDATES:
        raise InvalidArgument("candidates", f"{n:,} given; 1 to {limits.MAX_CANDIDATES:,} are allowed")
    places: dict[str, int] = {}
    converted = []
    for index, candidate in enumerate(candidates):
        try:
            converted.append(_candidate(candidate))
        except InvalidArgument as error:
            raise inside(f"candidates[{index}]", error) from None
        first = places.setdefault(candidate.id, index)
        if first != index:
            problem = (
                f'"{echo(candidate.id)}" appears twice, first as candidates[{first}]; ids must be unique'
            )
            raise InvalidArgument(f"candidates[{index}].id", problem)
    return RerankQuery(
        candidates=tuple(converted),
        query=_text(message.query, limits.MAX_QUERY),
        surface=_name("surface", message.surface),
        session_id=_name("session_id", message.session_id),
        top_n=message.top_n,
        policy=_policy(message.policy, places) if message.HasField("policy") else _NO_POLICY,
    )


def events(message: context_service_pb2.RecordEventsRequest, now_s: float) -> tuple[Event, ...]:
    """The batch of events, checked; ``now_s`` (seconds since 1970) dates those without a time.

    Raises InvalidArgument for the first bad event.
    """
    n = len(message.events)
    if not 1 <= n <= limits.MAX_EVENTS:
        raise InvalidArgument("events", f"{n:,} given; 1 to {limits.MAX_EVENTS:,} are allowed")
    converted = []
    for index, each in enumerate(message.events):
        try:
            converted.append(_event(each, now_s))
        except InvalidArgument as error:
            raise inside(f"events[{index}]", error) from None
    return tuple(converted)


def page(message: context_service_pb2.ListEventsRequest) -> tuple[int, str]:
    """The page's size and token, checked; raises InvalidArgument."""
    if message.page_size > limits.MAX_PAGE:
        raise InvalidArgument(
            "page_size", f"{message.page_size} is too many; at most {limits.MAX_PAGE:,} are allowed"
        )
    if len(message.page_token) > limits.MAX_PAGE_TOKEN:
        raise InvalidArgument(
            "page_token", f'"{echo(message.page_token)}" is none of ours; pass next_page_token as it came'
        )
    return message.page_size or limits.DEFAULT_PAGE, message.page_token


def forget_selector(message: context_service_pb2.ForgetRequest) -> tuple[str, str, bool]:
    """The event id, the item id and whether all goes: exactly one is set.

    Raises InvalidArgument, or NotAvailableYet for the selectors of a later version.
    """
    selector = message.WhichOneof("selector")
    if selector == "event_id":
        return _id("event_id", message.event_id), "", False
    if selector == "item_id":
        return "", _id("item_id", message.item_id), False
    if selector == "all":
        if not message.all:
            raise InvalidArgument("all", "false selects nothing; set it to true, or choose another selector")
        return "", "", True
    if selector is None:
        raise InvalidArgument("selector", "nothing is selected; set event_id, item_id or all")
    raise NotAvailableYet(
        f"Forget by {selector} is not available in this version; use event_id, item_id or all"
    )


def echo(value: str) -> str:
    """A caller's own value, safe and short enough to stand in an error about it."""
    shown = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[: limits.ECHO_CHARACTERS]
    )
    return shown + "…" if len(value) > limits.ECHO_CHARACTERS else shown


def inside(path: str, error: InvalidArgument) -> InvalidArgument:
    """The same error, with the path of the message that the field is in."""
    return InvalidArgument(f"{path}.{error.field}", error.problem)


def _candidate(message: types_pb2.Candidate) -> Candidate:
    item = _item(message)
    server_score = None
    if message.HasField("server_score"):
        server_score = _finite("server_score", message.server_score)
    features = dict(message.features) if message.features else NOTHING
    if features:
        _few("features", len(features), limits.MAX_FEATURES)
        for name, value in features.items():
            _finite(f'features["{echo(_name("features", name))}"]', value)
    return Candidate(
        item=item,
        server_score=server_score,
        published_at=_time("published_at", message.published_at)
        if message.HasField("published_at")
        else None,
        features=features,
        neighbours=_neighbours(message.neighbours) if message.neighbours else (),
        vector=_vector(message) if message.vector else (),
        vector_space=_name("vector_space", message.vector_space) if message.vector_space else "",
    )


def _neighbours(messages: Iterable[types_pb2.Neighbour]) -> tuple[Neighbour, ...]:
    converted = []
    for index, message in enumerate(messages):
        path = f"neighbours[{index}]"
        weight = _finite(f"{path}.weight", message.weight)
        if weight < 0:
            raise InvalidArgument(f"{path}.weight", f"{weight:g} is negative; 0 or more is allowed")
        converted.append(Neighbour(_id(f"{path}.id", message.id), weight))
    _few("neighbours", len(converted), limits.MAX_NEIGHBOURS)
    return tuple(converted)


def _vector(message: types_pb2.Candidate) -> tuple[float, ...]:
    if not message.vector_space:
        raise InvalidArgument("vector_space", "is empty; it must say what the vector is")
    _few("vector", len(message.vector), limits.MAX_VECTOR)
    vector = tuple(message.vector)
    # Sums of 4,096 float32 cannot overflow a double, so a sum that is not finite means a number that is not.
    if not math.isfinite(sum(vector)):
        index = next(i for i, value in enumerate(vector) if not math.isfinite(value))
        _finite(f"vector[{index}]", vector[index])
    return vector


def _item(message: _ItemFields) -> Item:
    tags = message.tags
    attributes: Mapping[str, str] = message.attributes
    return Item(
        id=_id("id", message.id),
        title=_text(message.title, limits.MAX_TITLE),
        text=_text(message.text, limits.MAX_TEXT),
        tags=_tags("tags", tags, limits.MAX_TAGS) if tags else (),
        attributes=_attributes(attributes) if attributes else NOTHING,
    )


def _tags(path: str, tags: Sequence[str], most: int) -> tuple[str, ...]:
    given = tuple(tags[:])  # a slice is copied in C, and twice as fast as iterating
    _few(path, len(given), most)
    joined = "".join(given)
    if joined.isprintable() and len(joined) <= limits.MAX_TAG and all(given):
        return given  # the usual few short tags need no look at each
    return tuple(tag for tag in (_text(tag, limits.MAX_TAG) for tag in given) if tag)


def _attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    _few("attributes", len(attributes), limits.MAX_ATTRIBUTES)
    # Protobuf's items() is twice as slow as looking each name up.
    return {
        _name("attributes", name): _text(attributes[name], limits.MAX_ATTRIBUTE_VALUE) for name in attributes
    }


def _event(message: types_pb2.Event, now_s: float) -> Event:
    event_id = _id("event_id", message.event_id)
    kind = _EVENT_TYPES.get(message.type)
    if kind is None:
        problem = f"{int(message.type)} is not a type that this version knows; see EventType"
        raise InvalidArgument("type", problem)
    item = None
    if message.HasField("item"):
        try:
            item = _item(message.item)
        except InvalidArgument as error:
            raise inside("item", error) from None
    elif kind is not EventType.SEARCH:
        raise InvalidArgument("item", f"is not set; a {kind.name} event needs one")
    query = _text(message.query, limits.MAX_QUERY)
    if kind is EventType.SEARCH and not query.strip():
        raise InvalidArgument("query", "is empty; a SEARCH event needs one")
    dwell_s = _finite("dwell_s", message.dwell_s)
    if not 0 <= dwell_s <= limits.MAX_DWELL_S:
        raise InvalidArgument("dwell_s", f"{dwell_s:g} is outside 0 to {limits.MAX_DWELL_S:,.0f}")
    return Event(
        event_id=event_id,
        type=kind,
        occurred_at=_occurred_at(message.occurred_at, now_s) if message.HasField("occurred_at") else now_s,
        item=item,
        query=query,
        dwell_s=dwell_s,
        surface=_name("surface", message.surface),
        session_id=_name("session_id", message.session_id),
        ranking_id=_name("ranking_id", message.ranking_id),
        position=message.position if message.HasField("position") else None,
    )


def _occurred_at(message: Timestamp, now_s: float) -> float:
    at_s = _time("occurred_at", message)
    if not limits.EARLIEST_S <= at_s <= now_s + limits.MAX_AHEAD_S:
        problem = (
            f"{_shown(at_s)} is outside {_shown(limits.EARLIEST_S)} to one day after now ({_shown(now_s)})"
        )
        raise InvalidArgument("occurred_at", problem)
    return at_s


def _policy(message: rerank_service_pb2.Policy, places: Mapping[str, int]) -> Policy:
    for name in ("diversity", "calibration", "exploration"):
        value = _finite(f"policy.{name}", getattr(message, name))
        if not 0 <= value <= 1:
            raise InvalidArgument(f"policy.{name}", f"{value:g} is outside 0 to 1")
        if value:
            raise NotAvailableYet(
                f"policy.{name} other than 0 is not available in this version; leave it unset"
            )
    return Policy(
        blocked_tags=_tags("policy.blocked_tags", message.blocked_tags, limits.MAX_BLOCKED_TAGS)
        if message.blocked_tags
        else (),
        pins=_pins(message.pins, places),
    )


def _pins(messages: Iterable[rerank_service_pb2.Pin], places: Mapping[str, int]) -> tuple[Pin, ...]:
    pins: list[Pin] = []
    ids: set[str] = set()
    taken: set[int] = set()
    for index, message in enumerate(messages):
        path = f"policy.pins[{index}]"
        if message.id not in places:
            raise InvalidArgument(f"{path}.id", f'"{echo(message.id)}" is not the id of a candidate')
        if message.position >= len(places):
            problem = f"{message.position} is past the end; less than {len(places)} is allowed"
            raise InvalidArgument(f"{path}.position", problem)
        if message.id in ids:
            raise InvalidArgument(f"{path}.id", f'"{echo(message.id)}" is pinned twice; once is allowed')
        if message.position in taken:
            raise InvalidArgument(f"{path}.position", f"{message.position} is taken by another pin")
        ids.add(message.id)
        taken.add(message.position)
        pins.append(Pin(message.id, message.position))
    return tuple(pins)


def _id(path: str, value: str) -> str:
    if not value:
        raise InvalidArgument(path, f"is empty; 1 to {limits.MAX_ID_BYTES} bytes are allowed")
    # A character takes at most four bytes, so most ids need no encoding to be seen as short enough.
    if len(value) * 4 > limits.MAX_ID_BYTES:
        size = len(value.encode())
        if size > limits.MAX_ID_BYTES:
            problem = f'"{echo(value)}" has {size:,} bytes; 1 to {limits.MAX_ID_BYTES} are allowed'
            raise InvalidArgument(path, problem)
    return value


def _name(path: str, value: str) -> str:
    if len(value) > limits.MAX_NAME:
        problem = f'"{echo(value)}" has {len(value):,} characters; at most {limits.MAX_NAME} are allowed'
        raise InvalidArgument(path, problem)
    return value


def _text(value: str, most: int) -> str:
    # isprintable is one pass in C and true of nearly every title; the pattern is for the rest.
    if not value.isprintable():
        value = _CONTROL.sub("", value)
    return value[:most] if len(value) > most else value


def _few(path: str, n: int, most: int) -> None:
    if n > most:
        raise InvalidArgument(path, f"{n:,} given; at most {most:,} are allowed")


def _finite(path: str, value: float) -> float:
    if not math.isfinite(value):
        raise InvalidArgument(path, f"{value} is not a finite number")
    return value


def _time(path: str, message: Timestamp) -> float:
    seconds, nanos = message.seconds, message.nanos
    if not (_MIN_TIMESTAMP_S <= seconds <= _MAX_TIMESTAMP_S and 0 <= nanos <= 999_999_999):
        raise InvalidArgument(path, f"seconds {seconds}, nanos {nanos} is not a moment from year 1 to 9999")
    return seconds + nanos / 1e9


def _shown(at_s: float) -> str:
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=math.floor(at_s))
    return f"{moment.isoformat()}Z"
