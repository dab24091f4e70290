"""Why a ranking is as it is, and what is believed about the user: calls of the owner, in protos and back."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import grpc

from edge_reranker.v1 import (
    context_service_pb2,
    context_service_pb2_grpc,
    rerank_service_pb2,
    rerank_service_pb2_grpc,
    types_pb2,
)
from edge_reranker_client import explain, messages, records
from edge_reranker_client.transport import Transport


class Why:
    """What ``EdgeReranker.explain``, ``profile``, ``mute`` and ``unmute`` do, in protos. Owner only.

    All can be made again. ``timeout_s`` None is the client's.
    """

    def __init__(self, transport: Transport, channel: grpc.Channel) -> None:
        self._transport = transport
        self._rerank: Any = rerank_service_pb2_grpc.RerankServiceStub(channel)  # type: ignore[no-untyped-call]
        self._context: Any = context_service_pb2_grpc.ContextServiceStub(channel)  # type: ignore[no-untyped-call]

    def explain_message(
        self,
        ranking_id: str,
        ids: Iterable[str] = (),
        *,
        namespace: str = "",
        timeout_s: float | None = None,
    ) -> rerank_service_pb2.ExplainResponse:
        """``explain`` in protos."""
        kind = rerank_service_pb2.ExplainRequest
        request = messages.request(kind, ranking_id=ranking_id, namespace=namespace)
        for at, id_ in enumerate(messages.many("ids", ids)):
            try:
                request.ids.append(id_)
            except explain.ODD:
                raise explain.bad(f"ids[{at}]", id_, explain.TEXT) from None
        answer: rerank_service_pb2.ExplainResponse = self._call(self._rerank.Explain, request, timeout_s)
        return answer

    def profile_message(
        self, *, namespace: str = "", timeout_s: float | None = None
    ) -> context_service_pb2.GetProfileResponse:
        """``profile`` in protos."""
        request = messages.request(context_service_pb2.GetProfileRequest, namespace=namespace)
        answer: context_service_pb2.GetProfileResponse = self._call(
            self._context.GetProfile, request, timeout_s
        )
        return answer

    def mute_message(
        self, topic: str, *, namespace: str = "", timeout_s: float | None = None
    ) -> context_service_pb2.MuteTopicResponse:
        """``mute`` in protos."""
        request = messages.request(context_service_pb2.MuteTopicRequest, topic=topic, namespace=namespace)
        answer: context_service_pb2.MuteTopicResponse = self._call(
            self._context.MuteTopic, request, timeout_s
        )
        return answer

    def unmute_message(
        self, topic: str, *, namespace: str = "", timeout_s: float | None = None
    ) -> context_service_pb2.UnmuteTopicResponse:
        """``unmute`` in protos."""
        request = messages.request(context_service_pb2.UnmuteTopicRequest, topic=topic, namespace=namespace)
        answer: context_service_pb2.UnmuteTopicResponse = self._call(
            self._context.UnmuteTopic, request, timeout_s
        )
        return answer

    def _call(self, call: Any, request: Any, timeout_s: float | None) -> Any:
        return self._transport.call(call, request, timeout_s=timeout_s, idempotent=True)


def explained_of(message: rerank_service_pb2.ExplainResponse) -> records.Explained:
    """The record of an answer."""
    return records.Explained(
        tuple(map(_explanation_of, message.explanations)),
        tuple(records.Feature(each.name, each.group, each.description) for each in message.features),
        messages.enum_name(rerank_service_pb2.ReasonsMissing, message.reasons_missing),
        messages.enum_name(rerank_service_pb2.DegradedReason, message.degraded_reason),
        message.reading_held,
    )


def profile_of(message: context_service_pb2.GetProfileResponse) -> records.Profile:
    """The record of what is believed."""
    beliefs = tuple(
        records.Belief(
            each.topic, each.weight, each.share, each.muted, tuple(map(_belief_event_of, each.events))
        )
        for each in message.beliefs
    )
    return records.Profile(beliefs, tuple(message.muted_topics), message.events)


def _explanation_of(message: rerank_service_pb2.Explanation) -> records.Explanation:
    return records.Explanation(
        id=message.id,
        score=message.score,
        tier=message.tier,
        server_place=message.server_place if message.HasField("server_place") else None,
        place=message.place if message.HasField("place") else None,
        score_place=message.score_place if message.HasField("score_place") else None,
        contributions={each.feature: each.value for each in message.contributions},
        reasons=tuple(map(_reason_of, message.reasons)),
        title=message.title,
        topics=tuple(message.topics),
    )


def _reason_of(message: rerank_service_pb2.Reason) -> records.Reason:
    return records.Reason(
        message.event_id,
        message.namespace,
        messages.enum_name(types_pb2.EventType, message.type),
        message.title,
        message.item_id,
        message.occurred_at.ToDatetime(tzinfo=datetime.UTC),
        message.score_change,
        message.place_change,
        message.feature,
        message.text,
    )


def _belief_event_of(message: context_service_pb2.BeliefEvent) -> records.BeliefEvent:
    return records.BeliefEvent(
        message.event_id,
        message.namespace,
        messages.enum_name(types_pb2.EventType, message.type),
        message.title,
        message.item_id,
        message.occurred_at.ToDatetime(tzinfo=datetime.UTC),
        message.weight,
    )
