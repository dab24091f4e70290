"""Which apps there are on this device, and who may go by whose events: calls of the owner."""

from __future__ import annotations

import datetime
from typing import Any

import grpc
from google.protobuf.message import Message

from edge_reranker.v1 import namespace_service_pb2 as pb
from edge_reranker.v1 import namespace_service_pb2_grpc
from edge_reranker_client import messages
from edge_reranker_client.records import Grant, Namespace
from edge_reranker_client.transport import Transport

_DELETE_S = 60.0  # much may have to go


class Namespaces:
    """Makes namespaces and ends them, and lets one's rankings go by another's events. Owner only.

    All can be made again. Those named ``_message`` answer in protos. ``timeout_s`` None is the client's.
    """

    def __init__(self, transport: Transport, channel: grpc.Channel) -> None:
        self._transport = transport
        self._stub: Any = namespace_service_pb2_grpc.NamespaceServiceStub(channel)  # type: ignore[no-untyped-call]

    def list(self, *, timeout_s: float | None = None) -> list[Namespace]:
        """The namespaces there are, by name."""
        return [_namespace_of(each) for each in self.list_message(timeout_s=timeout_s).namespaces]

    def create(self, name: str, *, timeout_s: float | None = None) -> Namespace:
        """Makes a namespace, or leaves it as it is; its app's token lies in ``token_file``."""
        return _namespace_of(self.create_message(name, timeout_s=timeout_s).namespace)

    def delete(self, name: str, *, timeout_s: float | None = _DELETE_S) -> int:
        """Takes the app's token back, then forgets everything in its namespace; how many events went."""
        return int(self.delete_message(name, timeout_s=timeout_s).events)

    def grant(self, *, source: str, reader: str, timeout_s: float | None = None) -> Grant:
        """Lets the reader's rankings go by the source's events, too, until it is revoked."""
        return _grant_of(self.grant_message(source=source, reader=reader, timeout_s=timeout_s).grant)

    def revoke(self, *, source: str, reader: str, timeout_s: float | None = None) -> None:
        """Ends a grant; what was derived by it goes."""
        self.revoke_message(source=source, reader=reader, timeout_s=timeout_s)

    def list_message(self, *, timeout_s: float | None = None) -> pb.ListNamespacesResponse:
        """``list`` in protos."""
        answer: pb.ListNamespacesResponse = self._call(
            "ListNamespaces", pb.ListNamespacesRequest(), timeout_s
        )
        return answer

    def create_message(self, name: str, *, timeout_s: float | None = None) -> pb.CreateNamespaceResponse:
        """``create`` in protos."""
        request = messages.request(pb.CreateNamespaceRequest, name=name)
        answer: pb.CreateNamespaceResponse = self._call("CreateNamespace", request, timeout_s)
        return answer

    def delete_message(self, name: str, *, timeout_s: float | None = _DELETE_S) -> pb.DeleteNamespaceResponse:
        """``delete`` in protos."""
        request = messages.request(pb.DeleteNamespaceRequest, name=name)
        answer: pb.DeleteNamespaceResponse = self._call("DeleteNamespace", request, timeout_s)
        return answer

    def grant_message(
        self, *, source: str, reader: str, timeout_s: float | None = None
    ) -> pb.GrantAccessResponse:
        """``grant`` in protos."""
        request = messages.request(pb.GrantAccessRequest, source=source, reader=reader)
        answer: pb.GrantAccessResponse = self._call("GrantAccess", request, timeout_s)
        return answer

    def revoke_message(
        self, *, source: str, reader: str, timeout_s: float | None = None
    ) -> pb.RevokeAccessResponse:
        """``revoke`` in protos."""
        request = messages.request(pb.RevokeAccessRequest, source=source, reader=reader)
        answer: pb.RevokeAccessResponse = self._call("RevokeAccess", request, timeout_s)
        return answer

    def _call(self, rpc: str, request: Message, timeout_s: float | None) -> Any:
        return self._transport.call(getattr(self._stub, rpc), request, timeout_s=timeout_s, idempotent=True)


def _namespace_of(message: pb.Namespace) -> Namespace:
    grants = tuple(_grant_of(each) for each in message.grants)
    return Namespace(message.name, message.events, message.token_file, grants)


def _grant_of(message: pb.Grant) -> Grant:
    granted_at = message.granted_at.ToDatetime(tzinfo=datetime.UTC)
    return Grant(message.source, message.reader, granted_at)
