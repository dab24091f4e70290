"""NamespaceService: validate, ask the core, keep the tokens in step, map."""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

import grpc.aio

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks, respond
from edge_reranker.server.access import DEFAULT_NAMESPACE, Access
from edge_reranker.server.core import Core
from edge_reranker.server.workers import Workers
from edge_reranker.v1 import namespace_service_pb2 as pb
from edge_reranker.v1 import namespace_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class NamespaceServicer(namespace_service_pb2_grpc.NamespaceServiceServicer):
    """Makes namespaces and ends them, and lets one be read by another.

    The store says which there are, and the token files follow: what a crash leaves undone in between, the
    next start does.
    """

    def __init__(self, core: Core, access: Access, workers: Workers) -> None:
        self._core = core
        self._access = access
        self._workers = workers
        # One that is made while it is being deleted would have a token and no row, or the other way round.
        self._one_at_a_time = threading.Lock()

    async def ListNamespaces(
        self, request: pb.ListNamespacesRequest, context: _Context
    ) -> pb.ListNamespacesResponse:
        """All namespaces, by name."""
        return await self._workers.run(self._list)

    async def CreateNamespace(
        self, request: pb.CreateNamespaceRequest, context: _Context
    ) -> pb.CreateNamespaceResponse:
        """Makes a namespace whose token is honoured at once."""
        return await self._workers.run(lambda: self._create(request))

    async def DeleteNamespace(
        self, request: pb.DeleteNamespaceRequest, context: _Context
    ) -> pb.DeleteNamespaceResponse:
        """Takes the token back at once, then forgets everything in the namespace."""
        return await self._workers.run(lambda: self._delete(request))

    async def GrantAccess(self, request: pb.GrantAccessRequest, context: _Context) -> pb.GrantAccessResponse:
        """Lets the reader's rankings go by the source's events, too."""
        return await self._workers.run(lambda: self._grant(request))

    async def RevokeAccess(
        self, request: pb.RevokeAccessRequest, context: _Context
    ) -> pb.RevokeAccessResponse:
        """Ends a grant; what was derived by it goes."""
        return await self._workers.run(lambda: self._revoke(request))

    def _list(self) -> pb.ListNamespacesResponse:
        found = [
            respond.namespace(each, self._access.token_file(each.name)) for each in self._core.namespaces()
        ]
        return pb.ListNamespacesResponse(namespaces=found)

    def _create(self, request: pb.CreateNamespaceRequest) -> pb.CreateNamespaceResponse:
        name = checks.namespace("name", request.name)
        with self._one_at_a_time:
            self._core.create_namespace(name)
            self._access.add(name)
            made = next(each for each in self._core.namespaces() if each.name == name)
        return pb.CreateNamespaceResponse(namespace=respond.namespace(made, self._access.token_file(name)))

    def _delete(self, request: pb.DeleteNamespaceRequest) -> pb.DeleteNamespaceResponse:
        name = checks.namespace("name", request.name)
        if name == DEFAULT_NAMESPACE:
            problem = f'"{name}" stays; forget everything in it instead'
            raise InvalidArgument("name", problem)
        with self._one_at_a_time:
            # First that it ends, so that no start makes a new token for it.
            self._core.begin_deletion(name)
            self._access.remove(name)
            return pb.DeleteNamespaceResponse(events=self._core.delete_namespace(name).events)

    def _grant(self, request: pb.GrantAccessRequest) -> pb.GrantAccessResponse:
        source, reader = _two(request)
        if source == reader:
            raise InvalidArgument("reader", "is the source itself, which goes by its own events anyway")
        return pb.GrantAccessResponse(grant=respond.grant(self._core.grant(source, reader)))

    def _revoke(self, request: pb.RevokeAccessRequest) -> pb.RevokeAccessResponse:
        self._core.revoke(*_two(request))
        return pb.RevokeAccessResponse()


def _two(request: pb.GrantAccessRequest | pb.RevokeAccessRequest) -> tuple[str, str]:
    return checks.namespace("source", request.source), checks.namespace("reader", request.reader)
