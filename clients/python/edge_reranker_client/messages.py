"""Records to protos and back.

Bad values are left to the service to judge; what no proto can carry, and a lone thing where a list is
meant, raises InvalidArgument here.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from edge_reranker.v1 import context_service_pb2, model_service_pb2, rerank_service_pb2, types_pb2
from edge_reranker_client import explain, records
from edge_reranker_client.errors import InvalidArgument

T = TypeVar("T")

CandidateLike = records.Candidate | Mapping[str, Any] | types_pb2.Candidate
EventLike = records.Event | Mapping[str, Any] | types_pb2.Event
Moment = datetime.datetime | float
RetentionLike = records.Retention | Mapping[str, Any] | context_service_pb2.Retention
PolicyLike = records.Policy | Mapping[str, Any] | rerank_service_pb2.Policy

_LONE = explain.LONE
_PIECE_BYTES = 256 * 1024
_PIECES = "bytes in pieces, or an open binary file"
_TIMINGS = tuple(field.name for field in dataclasses.fields(records.Timings))


def add_candidates(message: rerank_service_pb2.RerankRequest, given: Iterable[CandidateLike]) -> None:
    """Adds candidates to a request; raises InvalidArgument for the first bad one."""
    things = many("candidates", given)
    # Written where they belong at once: made first and copied then, they take twice as long.
    add = message.candidates.add
    try:
        for each in things:
            _write_candidate(add(), each)
    except explain.ODD:
        raise explain.several("candidates", records.Candidate, things, _CONVERTERS) from None


def add_context(message: rerank_service_pb2.RerankRequest, given: Mapping[str, str]) -> None:
    """Adds a context to a request; raises InvalidArgument for what is no mapping of texts."""
    try:
        message.context.update(given)
    except explain.ODD:
        raise explain.texts("context", given) from None


def events(given: Iterable[EventLike]) -> list[types_pb2.Event]:
    """A list of events; raises InvalidArgument for the first bad one."""
    things = many("events", given)
    try:
        return [event(each) for each in things]
    except explain.ODD:
        raise explain.several("events", records.Event, things, _CONVERTERS) from None


def pieces(given: Iterable[bytes] | BinaryIO) -> Iterator[bytes]:
    """Bytes as they come, large ones in parts; raises InvalidArgument for what is none."""
    read = getattr(given, "read", None)
    if read is not None:
        # Not line by line: a line can have any length.
        given = iter(lambda: read(_PIECE_BYTES), b"")
    if isinstance(given, _LONE) or not isinstance(given, Iterable):
        raise explain.bad("chunks", given, _PIECES)
    for piece in given:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise explain.bad("chunks", piece, _PIECES)
        for start in range(0, len(piece), _PIECE_BYTES):
            yield bytes(piece[start : start + _PIECE_BYTES])


def policy(given: PolicyLike) -> rerank_service_pb2.Policy:
    """A policy from a record, a mapping or a message as it is; raises InvalidArgument for a bad one."""
    try:
        return _policy(given)
    except explain.ODD:
        raise explain.record("policy", records.Policy, given, _CONVERTERS) from None


def retention(given: RetentionLike) -> context_service_pb2.Retention:
    """A rule from a record, a mapping or a message as it is; raises InvalidArgument for a bad one."""
    try:
        return _retention(given)
    except explain.ODD:
        raise explain.record("retention", records.Retention, given, _CONVERTERS) from None


def request(kind: type[T], **fields: object) -> T:
    """A message of texts and whole numbers; raises InvalidArgument that names the bad field."""
    try:
        # Today's protobuf takes True for 1 with a warning.
        if bool not in map(type, fields.values()):
            return kind(**fields)
    except explain.ODD:
        pass
    raise explain.message(kind, fields)


def forget_request(
    selector: Mapping[str, Any], *, namespace: str, dry_run: bool
) -> context_service_pb2.ForgetRequest:
    """A request with the one thing in ``selector`` that is given; raises InvalidArgument unless it is one."""
    for name in ("all", "all_namespaces"):
        if not isinstance(selector[name], bool):
            raise explain.bad(name, selector[name], "True or False")
    if not isinstance(dry_run, bool):
        raise explain.bad("dry_run", dry_run, "True or False")
    given = {name: value for name, value in selector.items() if value not in (None, "", False)}
    if len(given) != 1:
        *first, last = selector
        raise InvalidArgument(f"forget: give exactly one of {', '.join(first)} and {last}")
    kind = context_service_pb2.ForgetRequest
    made = request(kind, namespace=namespace)
    made.dry_run = dry_run
    [(name, value)] = given.items()
    if name == "type":
        try:
            made.type = event_type(value)
        except (*explain.ODD, AttributeError):
            raise explain.bad("type", value, 'an event\'s type, such as "LIKE"') from None
    elif name == "time_range":
        made.time_range.CopyFrom(_time_range(value))
    elif isinstance(value, bool):
        setattr(made, name, value)
    else:
        made.MergeFrom(request(kind, **{name: value}))
    return made


def _time_range(value: Any) -> context_service_pb2.TimeRange:
    try:
        start, end = value
        given = {"from": start, "to": end}
        return context_service_pb2.TimeRange(
            **{name: timestamp(moment) for name, moment in given.items() if moment is not None}
        )
    except (*explain.ODD, ArithmeticError):
        allowed = "two moments, each a datetime, seconds since 1970, or None"
        raise explain.bad("time_range", value, allowed) from None


def candidate(given: CandidateLike) -> types_pb2.Candidate:
    """A candidate from a record, a mapping with a record's field names, or a message (copied)."""
    message = types_pb2.Candidate()
    _write_candidate(message, given)
    return message


def _write_candidate(message: types_pb2.Candidate, given: CandidateLike) -> None:
    if isinstance(given, types_pb2.Candidate):
        message.CopyFrom(given)
        return
    record = _record(records.Candidate, given)
    if isinstance(record.tags, _LONE):
        raise TypeError
    message.id = record.id
    message.title = record.title
    message.tags.extend(record.tags)
    # What is seldom there is looked for first; to set an empty map takes three times as long as all the rest.
    if record.text != "":
        message.text = record.text
    if record.server_score is not None:
        message.server_score = record.server_score
    if record.vector_space != "":
        message.vector_space = record.vector_space
    for name, value in record.attributes.items():
        message.attributes[name] = value
    for name, number in record.features.items():
        message.features[name] = number
    if len(record.vector):
        if isinstance(record.vector, _LONE):
            raise TypeError
        message.vector.extend(record.vector)
    if record.published_at is not None:
        message.published_at.CopyFrom(timestamp(record.published_at))
    for each in record.neighbours:
        neighbour = _record(records.Neighbour, each)
        message.neighbours.add(id=neighbour.id, weight=neighbour.weight)


def event(given: EventLike) -> types_pb2.Event:
    """An event from a record, a mapping or a message (copied); one without an id gets one."""
    if isinstance(given, types_pb2.Event):
        message = types_pb2.Event()
        message.CopyFrom(given)
        message.event_id = message.event_id or str(uuid.uuid4())
        return message
    record = _record(records.Event, given)
    message = types_pb2.Event(
        event_id=record.event_id or str(uuid.uuid4()),
        type=event_type(record.type),
        query=record.query,
        dwell_s=record.dwell_s,
        surface=record.surface,
        session_id=record.session_id,
        ranking_id=record.ranking_id,
        position=record.position,
        context=record.context,
    )
    if record.item is not None:
        message.item.CopyFrom(_item(record.item))
    if record.occurred_at is not None:
        message.occurred_at.CopyFrom(timestamp(record.occurred_at))
    return message


def event_type(name: str) -> types_pb2.EventType:
    """The type with this name, with or without its prefix; raises ValueError."""
    full = name.upper() if name.upper().startswith("EVENT_TYPE_") else f"EVENT_TYPE_{name.upper()}"
    number: Any = types_pb2.EventType.Value(full)
    value: types_pb2.EventType = number
    return value


def timestamp(moment: Moment) -> Timestamp:
    """A moment, exact to the microsecond; a datetime without a zone is UTC."""
    if isinstance(moment, datetime.datetime):
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        micros = since // datetime.timedelta(microseconds=1)
    else:
        micros = round(moment * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def ranking_of(message: rerank_service_pb2.RerankResponse) -> records.Ranking:
    """The record of an answer."""
    return records.Ranking(
        ranking_id=message.ranking_id,
        results=tuple(records.Result(each.id, each.tier) for each in message.results),
        coverage=message.coverage,
        degraded_reason=enum_name(rerank_service_pb2.DegradedReason, message.degraded_reason),
        timings=records.Timings(*(getattr(message.timings, name) for name in _TIMINGS)),
        model=message.model,
        pack=message.pack,
        final=message.final,
        settled=message.settled,
        blocked_ids=tuple(message.blocked_ids),
    )


def effort(name: str) -> rerank_service_pb2.Effort:
    """The effort with this name, "" for the service's choice; raises InvalidArgument."""
    number: Any = rerank_service_pb2.EFFORT_UNSPECIFIED
    if name:
        try:
            number = rerank_service_pb2.Effort.Value(f"EFFORT_{name.upper().removeprefix('EFFORT_')}")
        except (AttributeError, ValueError):
            raise explain.bad("effort", name, '"SETTLED", "FULL" or ""') from None
    value: rerank_service_pb2.Effort = number
    return value


def event_of(message: types_pb2.Event) -> records.Event:
    """The record of a stored event; its time is an aware datetime in UTC."""
    item = None
    if message.HasField("item"):
        item = records.Item(
            id=message.item.id,
            title=message.item.title,
            text=message.item.text,
            tags=tuple(message.item.tags),
            attributes=dict(message.item.attributes),
        )
    occurred_at = None
    if message.HasField("occurred_at"):
        occurred_at = message.occurred_at.ToDatetime(tzinfo=datetime.UTC)
    return records.Event(
        type=enum_name(types_pb2.EventType, message.type),
        item=item,
        event_id=message.event_id,
        query=message.query,
        dwell_s=message.dwell_s,
        occurred_at=occurred_at,
        surface=message.surface,
        session_id=message.session_id,
        ranking_id=message.ranking_id,
        position=message.position if message.HasField("position") else None,
        context=dict(message.context),
    )


def forgotten_of(message: context_service_pb2.ForgetResponse) -> records.Forgotten:
    """The record of a receipt."""
    return records.Forgotten(
        *(getattr(message, field.name) for field in dataclasses.fields(records.Forgotten))
    )


def retention_of(message: context_service_pb2.Retention) -> records.Retention:
    """The record of a rule."""
    by_type = tuple(
        records.TypeRetention(enum_name(types_pb2.EventType, each.type), each.max_age_days, each.max_events)
        for each in message.by_type
    )
    return records.Retention(message.max_age_days, message.max_events, by_type)


def retention_status_of(message: context_service_pb2.GetRetentionResponse) -> records.RetentionStatus:
    """The record of a rule in force; its time is an aware datetime in UTC."""
    reckoned_to = message.reckoned_to.ToDatetime(tzinfo=datetime.UTC)
    return records.RetentionStatus(retention_of(message.retention), reckoned_to, message.sweeping)


def model_of(message: model_service_pb2.Model) -> records.Model:
    """The record of a model."""
    return records.Model(
        name=message.name,
        sha256=message.sha256,
        size_bytes=message.size_bytes,
        role=message.role,
        state=enum_name(model_service_pb2.ModelState, message.state),
        license=message.license,
        tokens_per_s=message.tokens_per_s,
    )


def many(path: str, given: Iterable[T]) -> list[T]:
    """The things given, as a list; raises InvalidArgument for a lone one, easily passed by mistake."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise explain.bad(path, given, f"a list of {path}")
    return list(given)


def _item(given: records.Item | Mapping[str, Any]) -> types_pb2.Item:
    record = _record(records.Item, given)
    if isinstance(record.tags, _LONE):
        raise TypeError
    return types_pb2.Item(
        id=record.id, title=record.title, text=record.text, tags=record.tags, attributes=record.attributes
    )


def _neighbour(given: records.Neighbour | Mapping[str, Any]) -> types_pb2.Neighbour:
    record = _record(records.Neighbour, given)
    return types_pb2.Neighbour(id=record.id, weight=record.weight)


def _policy(given: PolicyLike) -> rerank_service_pb2.Policy:
    if isinstance(given, rerank_service_pb2.Policy):
        return given
    record = _record(records.Policy, given)
    if isinstance(record.blocked_tags, _LONE) or isinstance(record.caps, _LONE):
        raise TypeError
    return rerank_service_pb2.Policy(
        diversity=record.diversity,
        calibration=record.calibration,
        exploration=record.exploration,
        blocked_tags=record.blocked_tags,
        pins=[_pin(each) for each in record.pins],
        diversity_method=_diversity_method(record.diversity_method),
        caps=[_cap(each) for each in record.caps],
    )


def _diversity_method(name: str) -> rerank_service_pb2.DiversityMethod:
    full = name.upper() or "UNSPECIFIED"
    if not full.startswith("DIVERSITY_METHOD_"):
        full = f"DIVERSITY_METHOD_{full}"
    number: Any = rerank_service_pb2.DiversityMethod.Value(full)
    value: rerank_service_pb2.DiversityMethod = number
    return value


def _cap(given: records.Cap | Mapping[str, Any]) -> rerank_service_pb2.Cap:
    record = _record(records.Cap, given)
    kinds = {
        "attribute": record.attribute,
        "tag": record.tag,
        "each_tag": record.each_tag,
        "max_age_days": record.max_age_days,
    }
    chosen: Any = {name: value for name, value in kinds.items() if value is not None}
    if len(chosen) > 1:
        raise ValueError  # the last would win without a word
    return rerank_service_pb2.Cap(most=record.most, window=record.window, **chosen)


def _pin(given: records.Pin | Mapping[str, Any]) -> rerank_service_pb2.Pin:
    record = _record(records.Pin, given)
    return rerank_service_pb2.Pin(id=record.id, position=record.position)


def _retention(given: RetentionLike) -> context_service_pb2.Retention:
    if isinstance(given, context_service_pb2.Retention):
        return given
    record = _record(records.Retention, given)
    if isinstance(record.by_type, _LONE):
        raise TypeError
    return context_service_pb2.Retention(
        max_age_days=record.max_age_days,
        max_events=record.max_events,
        by_type=[_type_retention(each) for each in record.by_type],
    )


def _type_retention(given: records.TypeRetention | Mapping[str, Any]) -> context_service_pb2.TypeRetention:
    record = _record(records.TypeRetention, given)
    return context_service_pb2.TypeRetention(
        type=event_type(record.type), max_age_days=record.max_age_days, max_events=record.max_events
    )


_CONVERTERS: Final[explain.Converters] = {
    records.Candidate: candidate,
    records.Cap: _cap,
    records.Event: event,
    records.Item: _item,
    records.Neighbour: _neighbour,
    records.Pin: _pin,
    records.Policy: _policy,
    records.Retention: _retention,
    records.TypeRetention: _type_retention,
}


def _record(kind: type[T], given: object) -> T:
    if isinstance(given, kind):
        return given
    if isinstance(given, Mapping):
        return kind(**given)
    raise TypeError  # whoever catches it asks `explain` what to say


def enum_name(enum: Any, value: int) -> str:
    """The value's name without its prefix; "" for 0, the number for one that is newer than this client."""
    if value == 0:
        return ""
    if value not in enum.values():
        return str(value)
    prefix: str = enum.Name(0).removesuffix("UNSPECIFIED")
    name: str = enum.Name(value)
    return name.removeprefix(prefix)
