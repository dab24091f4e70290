"""Bad input gets INVALID_ARGUMENT with field and limit, the same in-process and over the socket."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import edge_reranker_client
from edge_reranker import errors
from edge_reranker.server import checks, convert, convert_retention, convert_why
from edge_reranker.types import EventType, Selector, Span
from edge_reranker.v1 import rerank_service_pb2, types_pb2
from edge_reranker_client import EdgeReranker
from tests.contract import bad_input
from tests.contract.bad_input import ALL, CANDIDATES, Case, Forget
from tests.server.fixtures import Running, running
from tests.server.requests import batch, event, rerank


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="er-") as folder, running(Path(folder) / "data") as it:
        yield it


@pytest.fixture(scope="module")
def client(shared: Running) -> Iterator[EdgeReranker]:
    with EdgeReranker(data_dir=shared.data_dir, owner=True) as it:
        yield it


def in_process(message: object) -> object:
    if isinstance(message, bad_input.Rerank):
        return convert.rerank_query(message)
    if isinstance(message, bad_input.Record):
        return convert.events(message, time.time())
    if isinstance(message, bad_input.Page):
        return convert.page(message)
    if isinstance(message, bad_input.SetRetention):
        checks.namespace("namespace", message.namespace, "own")
        return convert_retention.rule(message)
    if isinstance(message, bad_input.Explain | bad_input.Mute):
        checks.namespace("namespace", message.namespace, "own")
        if isinstance(message, bad_input.Mute):
            return convert_why.topic(message.topic)
        return convert_why.explanation(message)
    assert isinstance(message, bad_input.Forget)
    return convert.forget_selector(message)


def over_the_socket(client: EdgeReranker, message: object) -> object:
    if isinstance(message, bad_input.Rerank):
        return client.rerank_message(message)
    if isinstance(message, bad_input.Record):
        return client.record_message(message)
    if isinstance(message, bad_input.Page):
        return client.events_message(message)
    if isinstance(message, bad_input.SetRetention):
        return client.set_retention_message(message)
    if isinstance(message, bad_input.Explain):
        return client.explain(message.ranking_id, message.ids, namespace=message.namespace)
    if isinstance(message, bad_input.Mute):
        return client.mute(message.topic, namespace=message.namespace)
    assert isinstance(message, bad_input.Forget)
    return client.forget_message(message)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_conversion_refuses(case: Case) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        in_process(case.message)
    assert str(caught.value).startswith(case.says)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_client_is_told_and_nothing_reaches_the_core(
    shared: Running, client: EdgeReranker, case: Case
) -> None:
    with pytest.raises(edge_reranker_client.InvalidArgument) as caught:
        over_the_socket(client, case.message)
    assert str(caught.value).startswith(case.says)
    assert caught.value.status is grpc.StatusCode.INVALID_ARGUMENT
    assert shared.core.seen == []
    assert shared.core.stored == {}
    assert shared.core.rules == {}
    assert shared.core.muted == {}
    assert shared.core.explained == []


@pytest.mark.parametrize("case", CANDIDATES, ids=lambda case: case.name)
def test_stream_is_refused_alike_with_the_path_inside_its_request(client: EdgeReranker, case: Case) -> None:
    assert isinstance(case.message, bad_input.Rerank)
    with pytest.raises(edge_reranker_client.InvalidArgument) as caught:
        list(client.rerank_stream_message(case.message))
    assert str(caught.value).startswith(f"request.{case.says}")


@pytest.mark.parametrize(
    ("method", "good"),
    [
        ("RerankService/Rerank", rerank("marker").SerializeToString()),
        ("ContextService/RecordEvents", batch(event("marker")).SerializeToString()),
    ],
)
def test_invalid_utf8_is_refused_and_not_quoted(shared: Running, method: str, good: bytes) -> None:
    with shared.channel() as channel:
        call: Any = channel.unary_unary(f"/edge_reranker.v1.{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(good.replace(b"marker", b"mark\xff\xfe"), metadata=shared.bearer("app"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = caught.value.details() or ""
    assert "valid UTF-8" in details
    assert "mark" not in details


def test_bytes_that_are_no_message_are_refused(shared: Running) -> None:
    with shared.channel() as channel:
        call: Any = channel.unary_unary("/edge_reranker.v1.RerankService/Rerank")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\x0a\xff\xff\xff", metadata=shared.bearer("app"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_message_above_the_documented_size_is_refused_by_grpc(shared: Running, client: EdgeReranker) -> None:
    message = rerank("a")
    message.candidates[0].text = "x" * (65 * 1024 * 1024)
    with shared.channel() as channel:
        call: Any = channel.unary_unary(
            "/edge_reranker.v1.RerankService/Rerank",
            request_serializer=rerank_service_pb2.RerankRequest.SerializeToString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(message, metadata=shared.bearer("app"), timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(edge_reranker_client.InvalidArgument, match=r"at most 67,108,864 can be sent"):
        client.rerank_message(message)


FORGETS = {
    "event_id": (Forget(event_id="e"), Selector(event_id="e")),
    "item_id": (Forget(item_id="i"), Selector(item_id="i")),
    "type": (Forget(type=types_pb2.EVENT_TYPE_LIKE), Selector(type=EventType.LIKE)),
    "tag": (Forget(tag="Dra\0ma"), Selector(tag="Drama")),
    "from": (Forget(time_range={"from": Timestamp(seconds=5)}), Selector(span=Span(from_s=5.0))),
    "to": (Forget(time_range={"to": Timestamp(nanos=10**8)}), Selector(span=Span(to_s=0.1))),
    "all": (Forget(all=True), Selector(everything=True)),
    "all_namespaces": (Forget(all_namespaces=True), Selector(all_namespaces=True)),
}


@pytest.mark.parametrize("kind", FORGETS)
def test_every_selector_reaches_the_core(shared: Running, client: EdgeReranker, kind: str) -> None:
    message, selector = FORGETS[kind]
    client.forget_message(message)
    assert shared.core.forgets[-1] == ("default", selector, False)
    named = "" if kind == "all_namespaces" else "other"
    shared.core.names.add("other")
    message.namespace, message.dry_run = named, True
    client.forget_message(message)
    assert shared.core.forgets[-1] == (named or "default", selector, True)
