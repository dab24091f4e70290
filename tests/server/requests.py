"""Good requests to start from."""

from __future__ import annotations

from edge_reranker.v1 import context_service_pb2, rerank_service_pb2, types_pb2

NOW_S = 1_700_000_000.0


def rerank(*ids: str) -> rerank_service_pb2.RerankRequest:
    return rerank_service_pb2.RerankRequest(
        candidates=[types_pb2.Candidate(id=each) for each in ids or ("a", "b")]
    )


def event(event_id: str = "e1", **fields: object) -> types_pb2.Event:
    message = types_pb2.Event(event_id=event_id, type=types_pb2.EVENT_TYPE_LIKE, item=types_pb2.Item(id="a"))
    message.MergeFrom(types_pb2.Event(**fields))  # type: ignore[arg-type]
    return message


def batch(*events: types_pb2.Event) -> context_service_pb2.RecordEventsRequest:
    return context_service_pb2.RecordEventsRequest(events=events or (event(),))
