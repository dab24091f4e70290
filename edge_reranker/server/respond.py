"""Answers out: core types to protos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from edge_reranker.types import (
    Event,
    Forgotten,
    Grant,
    Item,
    Model,
    Namespace,
    Ranking,
    Recorded,
    Retention,
    RetentionStatus,
    Timings,
)
from edge_reranker.v1 import (
    context_service_pb2,
    model_service_pb2,
    namespace_service_pb2,
    rerank_service_pb2,
    types_pb2,
)

_TIMINGS = tuple(field.name for field in dataclasses.fields(Timings))


def ranking(answer: Ranking, top_n: int) -> rerank_service_pb2.RerankResponse:
    """The first ``top_n`` results (0: all), all that is blocked, and what is known about the order."""
    results = answer.results[:top_n] if top_n else answer.results
    message = rerank_service_pb2.RerankResponse(
        ranking_id=answer.ranking_id,
        coverage=answer.coverage,
        degraded_reason=int(answer.degraded_reason),  # type: ignore[arg-type]  # open enum: a number is fine
        model=answer.model,
        pack=answer.pack,
        final=answer.final,
        settled=answer.settled,
        blocked_ids=answer.blocked_ids,
    )
    add = message.results.add
    for result in results:
        each = add()
        each.id, each.tier = result
    for name in _TIMINGS:
        setattr(message.timings, name, getattr(answer.timings, name))
    return message


def recorded(answer: Recorded) -> context_service_pb2.RecordEventsResponse:
    """How many events were new and how many known."""
    return context_service_pb2.RecordEventsResponse(recorded=answer.recorded, duplicates=answer.duplicates)


def imported(answer: Recorded) -> context_service_pb2.ImportResponse:
    """How many events were new and how many known."""
    return context_service_pb2.ImportResponse(recorded=answer.recorded, duplicates=answer.duplicates)


def events(page: Sequence[Event], next_page_token: str) -> context_service_pb2.ListEventsResponse:
    """A page of events in the order given."""
    return context_service_pb2.ListEventsResponse(
        events=[event(each) for each in page], next_page_token=next_page_token
    )


def event(record: Event) -> types_pb2.Event:
    """One event; its time is exact to the microsecond."""
    message = types_pb2.Event(
        event_id=record.event_id,
        type=int(record.type),  # type: ignore[arg-type]  # open enum: a number is fine
        query=record.query,
        dwell_s=record.dwell_s,
        occurred_at=moment(record.occurred_at),
        surface=record.surface,
        session_id=record.session_id,
        ranking_id=record.ranking_id,
        position=record.position,
        context=record.context,
    )
    if record.item is not None:
        message.item.CopyFrom(item(record.item))
    return message


def item(record: Item) -> types_pb2.Item:
    """One item's public content."""
    return types_pb2.Item(
        id=record.id, title=record.title, text=record.text, tags=record.tags, attributes=record.attributes
    )


def forgotten(receipt: Forgotten) -> context_service_pb2.ForgetResponse:
    """The receipt of a forget."""
    return context_service_pb2.ForgetResponse(**dataclasses.asdict(receipt))


def retention(rule: Retention) -> context_service_pb2.Retention:
    """A rule."""
    message = context_service_pb2.Retention(max_age_days=rule.max_age_days, max_events=rule.max_events)
    for each in rule.by_type:
        message.by_type.add(
            type=int(each.type),
            max_age_days=each.max_age_days,
            max_events=each.max_events,
        )
    return message


def retention_status(status: RetentionStatus) -> context_service_pb2.GetRetentionResponse:
    """The rule in force, and how far it is."""
    return context_service_pb2.GetRetentionResponse(
        retention=retention(status.retention),
        reckoned_to=moment(status.reckoned_to_s),
        sweeping=status.sweeping,
    )


def model(record: Model) -> model_service_pb2.Model:
    """One model file."""
    return model_service_pb2.Model(
        name=record.name,
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        role=record.role,
        state=int(record.state),  # type: ignore[arg-type]  # open enum: a number is fine
        license=record.license,
        tokens_per_s=record.tokens_per_s,
    )


def namespace(record: Namespace, token_file: Path) -> namespace_service_pb2.Namespace:
    """One namespace, and where its app finds its token."""
    return namespace_service_pb2.Namespace(
        name=record.name,
        events=record.n_events,
        token_file=str(token_file),
        grants=[grant(each) for each in record.grants],
    )


def grant(record: Grant) -> namespace_service_pb2.Grant:
    """One grant; its time is exact to the microsecond."""
    return namespace_service_pb2.Grant(
        source=record.source, reader=record.reader, granted_at=moment(record.granted_at)
    )


def moment(at_s: float) -> Timestamp:
    """Seconds since 1970, exact to the microsecond."""
    micros = round(at_s * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)
