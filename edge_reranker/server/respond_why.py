"""Answers out: why a ranking is as it is, and what is believed about a user."""

from __future__ import annotations

from edge_reranker.explained import Belief, BeliefEvent, Explained, Explanation, Reason, UserProfile
from edge_reranker.server.respond import moment
from edge_reranker.v1 import context_service_pb2, rerank_service_pb2


def explained(answer: Explained) -> rerank_service_pb2.ExplainResponse:
    """Why the candidates stand where they stand."""
    message = rerank_service_pb2.ExplainResponse(
        reasons_missing=int(answer.missing),  # type: ignore[arg-type]  # open enum: a number is fine
        degraded_reason=int(answer.degraded_reason),  # type: ignore[arg-type]
        reading_held=answer.reading_held,
    )
    for each in answer.explanations:
        _explanation(message.explanations.add(), each)
    for name, group, description in answer.features:
        message.features.add(name=name, group=group, description=description)
    return message


def _explanation(message: rerank_service_pb2.Explanation, each: Explanation) -> None:
    message.id, message.score, message.tier, message.title = each.id, each.score, each.tier, each.title
    for name in ("server_place", "place", "score_place"):
        if (place := getattr(each, name)) is not None:
            setattr(message, name, place)
    for feature, value in each.contributions:
        message.contributions.add(feature=feature, value=value)
    message.event_ids.extend(reason.event_id for reason in each.reasons)
    message.reasons.extend(_reason(reason) for reason in each.reasons)
    message.topics.extend(each.topics)


def _reason(reason: Reason) -> rerank_service_pb2.Reason:
    return rerank_service_pb2.Reason(
        event_id=reason.event_id,
        namespace=reason.namespace,
        type=int(reason.type),  # type: ignore[arg-type]  # open enum: a number is fine
        title=reason.title,
        item_id=reason.item_id,
        occurred_at=moment(reason.occurred_at),
        score_change=reason.score_change,
        place_change=reason.place_change,
        feature=reason.feature,
        text=reason.text,
    )


def profile(answer: UserProfile) -> context_service_pb2.GetProfileResponse:
    """What is believed about a user."""
    return context_service_pb2.GetProfileResponse(
        beliefs=[_belief(each) for each in answer.beliefs],
        muted_topics=answer.muted_topics,
        events=answer.n_events,
    )


def _belief(belief: Belief) -> context_service_pb2.Belief:
    return context_service_pb2.Belief(
        topic=belief.topic,
        weight=belief.weight,
        share=belief.share,
        muted=belief.muted,
        event_ids=[each.event_id for each in belief.events],
        events=[_event(each) for each in belief.events],
    )


def _event(event: BeliefEvent) -> context_service_pb2.BeliefEvent:
    return context_service_pb2.BeliefEvent(
        event_id=event.event_id,
        namespace=event.namespace,
        type=int(event.type),  # type: ignore[arg-type]  # open enum: a number is fine
        title=event.title,
        item_id=event.item_id,
        occurred_at=moment(event.occurred_at),
        weight=event.weight,
    )
