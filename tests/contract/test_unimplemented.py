"""No rpc of the contract is unimplemented, and each opens to the tokens of its scope only."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf.descriptor import MethodDescriptor

from edge_reranker.server.access import SCOPES, Scope
from edge_reranker.v1 import (
    context_service_pb2,
    model_service_pb2,
    namespace_service_pb2,
    rerank_service_pb2,
)
from tests.server.fixtures import Running


def every_rpc() -> Iterator[MethodDescriptor]:
    for module in (rerank_service_pb2, context_service_pb2, model_service_pb2, namespace_service_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path_of(rpc: MethodDescriptor) -> str:
    return f"/{rpc.containing_service.full_name}/{rpc.name}"


def answer_to_nothing(served: Running, rpc: MethodDescriptor, scope: str) -> tuple[grpc.StatusCode, str]:
    """The status and message of a call with an empty message and the token of ``scope`` ("": none)."""
    arity = ("stream" if rpc.client_streaming else "unary", "stream" if rpc.server_streaming else "unary")
    with served.channel() as channel:
        call = getattr(channel, "_".join(arity))(path_of(rpc))
        request = iter([b""]) if rpc.client_streaming else b""
        try:
            answer = call(request, metadata=served.bearer(scope) if scope else (), timeout=5)
            if rpc.server_streaming:
                list(answer)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


def test_an_empty_message_never_makes_an_rpc_fail_inside_or_find_nobody(served: Running) -> None:
    allowed = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    answers = {path_of(rpc): answer_to_nothing(served, rpc, "owner")[0] for rpc in every_rpc()}
    assert {path: code for path, code in answers.items() if code not in allowed} == {}


def test_every_rpc_has_a_scope() -> None:
    ours = {path for path in SCOPES if path.startswith("/edge_reranker.v1.")}
    assert ours == {path_of(rpc) for rpc in every_rpc()}
    assert Scope.NONE not in {SCOPES[path] for path in ours}


def test_no_rpc_answers_without_a_token(served: Running) -> None:
    codes = {answer_to_nothing(served, rpc, "")[0] for rpc in every_rpc()}
    assert codes == {grpc.StatusCode.UNAUTHENTICATED}


def test_app_token_opens_exactly_the_rpcs_of_its_scope(served: Running) -> None:
    denied = {
        rpc.name
        for rpc in every_rpc()
        if answer_to_nothing(served, rpc, "app")[0] is grpc.StatusCode.PERMISSION_DENIED
    }
    assert denied == {rpc.name for rpc in every_rpc()} - {
        "Rerank",
        "RerankStream",
        "RecordEvents",
        "ListEvents",
    }
