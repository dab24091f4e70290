"""NamespaceService: validate, ask the core, map."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc.aio

from edge_reranker.errors import NotAvailableYet
from edge_reranker.server.core import Core
from edge_reranker.server.workers import Workers
from edge_reranker.v1 import namespace_service_pb2 as pb
from edge_reranker.v1 import namespace_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class NamespaceServicer(namespace_service_pb2_grpc.NamespaceServiceServicer):
    """Makes namespaces and ends them, and lets one be read by another."""

    def __init__(self, core: Core, workers: Workers) -> None:
        self._core = core
        self._workers = workers

    async def ListNamespaces(
        self, request: pb.ListNamespacesRequest, context: _Context
    ) -> pb.ListNamespacesResponse:
        """Comes with a later version."""
        raise _later("ListNamespaces")

    async def CreateNamespace(
        self, request: pb.CreateNamespaceRequest, context: _Context
    ) -> pb.CreateNamespaceResponse:
        """Comes with a later version."""
        raise _later("CreateNamespace")

    async def DeleteNamespace(
        self, request: pb.DeleteNamespaceRequest, context: _Context
    ) -> pb.DeleteNamespaceResponse:
        """Comes with a later version."""
        raise _later("DeleteNamespace")

    async def GrantAccess(self, request: pb.GrantAccessRequest, context: _Context) -> pb.GrantAccessResponse:
        """Comes with a later version."""
        raise _later("GrantAccess")

    async def RevokeAccess(
        self, request: pb.RevokeAccessRequest, context: _Context
    ) -> pb.RevokeAccessResponse:
        """Comes with a later version."""
        raise _later("RevokeAccess")


def _later(rpc: str) -> NotAvailableYet:
    return NotAvailableYet(f"{rpc} is not available in this version")
