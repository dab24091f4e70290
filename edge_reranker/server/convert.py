"""Requests in: protos to core types, with every check and cap. Nothing behind this has to check again.

Texts (title, text, query, tags, attribute values) lose their control characters (C0 except newline and
tab) and are cut at the proto's cap; ids, names, numbers, enums and times outside theirs raise
InvalidArgument with the field's path, the value and the limit. Control strings of a model's template are
left as they are: the prompt layer makes them harmless.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks, convert_policy, limits
from edge_reranker.types import (
    NOTHING,
    Candidate,
    Effort,
    Event,
    EventType,
    Item,
    Neighbour,
    Policy,
    RerankQuery,
    Selector,
    Span,
)

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from edge_reranker.v1 import context_service_pb2, rerank_service_pb2, types_pb2


_EVENT_TYPES = {int(kind): kind for kind in EventType if kind is not EventType.UNSPECIFIED}
_EFFORTS = {int(effort): effort for effort in Effort if effort is not Effort.UNSPECIFIED}
_NO_POLICY = Policy()


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
    """The request for an order, checked; raises InvalidArgument."""
    n = len(message.candidates)
    if not 1 <= n <= limits.MAX_CANDIDATES:
        raise InvalidArgument("candidates", f"{n:,} given; 1 to {limits.MAX_CANDIDATES:,} are allowed")
    candidates = _candidates(list(message.candidates))
    query = checks.text(message.query, limits.MAX_QUERY)
    return RerankQuery(
        candidates=candidates,
        query=query if query.strip() else "",
        surface=checks.name("surface", message.surface),
        session_id=checks.name("session_id", message.session_id),
        top_n=message.top_n,
        policy=convert_policy.policy(message.policy, [candidate.id for candidate in candidates])
        if message.HasField("policy")
        else _NO_POLICY,
        context=checks.context("context", message.context),
        effort=_effort(message),
    )


def _effort(message: rerank_service_pb2.RerankRequest) -> Effort:
    # Who names a budget has said what the request is worth.
    return _EFFORTS.get(message.effort) or (Effort.FULL if message.budget_ms else Effort.SETTLED)


def events(message: context_service_pb2.RecordEventsRequest, now_s: float) -> tuple[Event, ...]:
    """The batch of events, checked; ``now_s`` (seconds since 1970) dates those without a time.

    Raises InvalidArgument for the first bad event.
    """
    n = len(message.events)
    if not 1 <= n <= limits.MAX_EVENTS:
        raise InvalidArgument("events", f"{n:,} given; 1 to {limits.MAX_EVENTS:,} are allowed")
    return tuple(checks.each("events[{}]", message.events, partial(event, now_s=now_s)))


def page(message: context_service_pb2.ListEventsRequest) -> tuple[int, str]:
    """The page's size and token, checked; raises InvalidArgument."""
    if message.page_size > limits.MAX_PAGE:
        raise InvalidArgument(
            "page_size", f"{message.page_size} is too many; at most {limits.MAX_PAGE:,} are allowed"
        )
    if len(message.page_token) > limits.MAX_PAGE_TOKEN:
        raise InvalidArgument(
            "page_token",
            f'"{checks.echo(message.page_token)}" is none of ours; pass next_page_token as it came',
        )
    return message.page_size or limits.DEFAULT_PAGE, message.page_token


def forget_selector(message: context_service_pb2.ForgetRequest) -> tuple[str, Selector]:
    """The namespace ("": the token's own) and what to forget in it, checked; raises InvalidArgument."""
    namespace = checks.name("namespace", message.namespace)
    match message.WhichOneof("selector"):
        case "event_id":
            selector = Selector(event_id=checks.identifier("event_id", message.event_id))
        case "item_id":
            selector = Selector(item_id=checks.identifier("item_id", message.item_id))
        case "type":
            selector = Selector(type=_event_type(message.type))
        case "tag":
            selector = Selector(tag=checks.tag("tag", message.tag))
        case "time_range":
            selector = Selector(span=_span(message.time_range))
        case "all":
            selector = Selector(everything=_true("all", message.all))
        case "all_namespaces":
            if namespace:
                problem = f'"{checks.echo(namespace)}" is one; leave it empty, or set all instead'
                raise InvalidArgument("namespace", f"all_namespaces means every one, and {problem}")
            selector = Selector(all_namespaces=_true("all_namespaces", message.all_namespaces))
        case _:
            names = "event_id, item_id, type, tag, time_range, all or all_namespaces"
            raise InvalidArgument("selector", f"nothing is selected; set {names}")
    return namespace, selector


def _event_type(number: int) -> EventType:
    kind = _EVENT_TYPES.get(number)
    if kind is None:
        raise InvalidArgument("type", f"{int(number)} is not a type that this version knows; see EventType")
    return kind


def _span(message: context_service_pb2.TimeRange) -> Span:
    if not (message.HasField("from") or message.HasField("to")):
        raise InvalidArgument("time_range", "neither from nor to is set; set one, or select all instead")
    start = getattr(message, "from")  # a keyword of Python
    from_s = checks.time("time_range.from", start) if message.HasField("from") else -math.inf
    to_s = checks.time("time_range.to", message.to) if message.HasField("to") else math.inf
    if not from_s < to_s:
        problem = f"{checks.shown(to_s)} is not after {checks.shown(from_s)}, which is from"
        raise InvalidArgument("time_range.to", problem)
    return Span(from_s, to_s)


def _true(name: str, value: bool) -> bool:
    if not value:
        raise InvalidArgument(name, "false selects nothing; set it to true, or choose another selector")
    return value


# Candidates are taken in field by field, each field of all of them at once: it is one look that finds nearly
# always that nobody has the field, or that everybody's is as it should be. (One candidate after the other
# takes twice as long.)


def _candidates(messages: Sequence[types_pb2.Candidate]) -> tuple[Candidate, ...]:
    path = "candidates[{}]"
    items = _items(path, messages)
    _distinct([item.id for item in items])
    scores = [message.server_score if message.HasField("server_score") else None for message in messages]
    moments = [message.published_at if message.HasField("published_at") else None for message in messages]
    with_vector = [message if message.vector else None for message in messages]
    columns = (
        items,
        scores if _all_finite(scores) else checks.each(path, scores, _server_score),
        checks.column(path, moments, _published_at),
        checks.column(path, [message.features for message in messages], _features),
        checks.column(path, [message.neighbours for message in messages], _neighbours),
        checks.column(path, with_vector, _vector),
        checks.column(
            path, [message.vector_space for message in messages], partial(checks.name, "vector_space")
        ),
    )
    return tuple(map(Candidate._make, zip(*columns, strict=True)))


def _items(path: str, messages: Sequence[_ItemFields]) -> list[Item]:
    columns = (
        _ids(path, [message.id for message in messages]),
        checks.texts([message.title for message in messages], limits.MAX_TITLE),
        checks.texts([message.text for message in messages], limits.MAX_TEXT),
        _all_tags(path, [tuple(message.tags[:]) for message in messages]),
        checks.column(path, [message.attributes for message in messages], _attributes),
    )
    return list(map(Item._make, zip(*columns, strict=True)))


def _ids(path: str, ids: Sequence[str]) -> Sequence[str]:
    # A character takes at most four bytes, so most ids need no encoding to be seen as short enough.
    if all(ids) and max(map(len, ids)) * 4 <= limits.MAX_ID_BYTES:
        return ids
    return checks.each(path, ids, partial(checks.identifier, "id"))


def _distinct(ids: Sequence[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    places: dict[str, int] = {}
    for index, each in enumerate(ids):
        first = places.setdefault(each, index)
        if first != index:
            problem = f'"{checks.echo(each)}" appears twice, first as candidates[{first}]; ids must be unique'
            raise InvalidArgument(f"candidates[{index}].id", problem)


def _all_finite(scores: Iterable[float | None]) -> bool:
    return all(score is None or math.isfinite(score) for score in scores)


def _server_score(score: float | None) -> float | None:
    return None if score is None else checks.finite("server_score", score)


def _published_at(moment: Timestamp | None) -> float | None:
    return None if moment is None else checks.time("published_at", moment)


def _features(features: Mapping[str, float]) -> Mapping[str, float]:
    checks.few("features", len(features), limits.MAX_FEATURES)
    for name, value in features.items():
        checks.finite(f'features["{checks.echo(checks.name("features", name))}"]', value)
    return dict(features) if features else NOTHING


def _neighbours(messages: Iterable[types_pb2.Neighbour]) -> tuple[Neighbour, ...]:
    converted = []
    for index, message in enumerate(messages):
        path = f"neighbours[{index}]"
        weight = checks.not_negative(f"{path}.weight", message.weight)
        converted.append(Neighbour(checks.identifier(f"{path}.id", message.id), weight))
    checks.few("neighbours", len(converted), limits.MAX_NEIGHBOURS)
    return tuple(converted)


def _vector(message: types_pb2.Candidate | None) -> tuple[float, ...]:
    if message is None:
        return ()
    if not message.vector_space:
        raise InvalidArgument("vector_space", "is empty; it must say what the vector is")
    checks.few("vector", len(message.vector), limits.MAX_VECTOR)
    vector = tuple(message.vector)
    # Sums of 4,096 float32 cannot overflow a double, so a sum that is not finite means a number that is not.
    if not math.isfinite(sum(vector)):
        index = next(i for i, value in enumerate(vector) if not math.isfinite(value))
        checks.finite(f"vector[{index}]", vector[index])
    return vector


def _all_tags(path: str, tags: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    if max(map(len, tags)) <= limits.MAX_TAGS and checks.usual([*chain.from_iterable(tags)], limits.MAX_TAG):
        return tags
    return checks.each(path, tags, partial(checks.tags, "tags", most=limits.MAX_TAGS))


def _attributes(attributes: Mapping[str, str]) -> Mapping[str, str]:
    if not attributes:
        return NOTHING
    checks.few("attributes", len(attributes), limits.MAX_ATTRIBUTES)
    # Protobuf's items() is twice as slow as looking each name up.
    return {
        checks.name("attributes", name): checks.text(attributes[name], limits.MAX_ATTRIBUTE_VALUE)
        for name in attributes
    }


def event(message: types_pb2.Event, now_s: float) -> Event:
    """One event, checked as ``events`` does; raises InvalidArgument."""
    event_id = checks.identifier("event_id", message.event_id)
    kind = _event_type(message.type)
    item = None
    if message.HasField("item"):
        item = _items("item", [message.item])[0]
    elif kind is not EventType.SEARCH:
        raise InvalidArgument("item", f"is not set; a {kind.name} event needs one")
    query = checks.text(message.query, limits.MAX_QUERY)
    if kind is EventType.SEARCH and not query.strip():
        raise InvalidArgument("query", "is empty; a SEARCH event needs one")
    dwell_s = checks.finite("dwell_s", message.dwell_s)
    if not 0 <= dwell_s <= limits.MAX_DWELL_S:
        raise InvalidArgument("dwell_s", f"{dwell_s:g} is outside 0 to {limits.MAX_DWELL_S:,.0f}")
    return Event(
        event_id=event_id,
        type=kind,
        occurred_at=moment("occurred_at", message.occurred_at, now_s)
        if message.HasField("occurred_at")
        else now_s,
        item=item,
        query=query,
        dwell_s=dwell_s,
        surface=checks.name("surface", message.surface),
        session_id=checks.name("session_id", message.session_id),
        ranking_id=checks.name("ranking_id", message.ranking_id),
        position=message.position if message.HasField("position") else None,
        context=checks.context("context", message.context),
    )


def moment(path: str, message: Timestamp, now_s: float) -> float:
    """When something happened, in seconds since 1970: from 1990 to one day after ``now_s``."""
    at_s = checks.time(path, message)
    if not limits.EARLIEST_S <= at_s <= now_s + limits.MAX_AHEAD_S:
        earliest, now = checks.shown(limits.EARLIEST_S), checks.shown(now_s)
        problem = f"{checks.shown(at_s)} is outside {earliest} to one day after now ({now})"
        raise InvalidArgument(path, problem)
    return at_s
