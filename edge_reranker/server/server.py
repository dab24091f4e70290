"""The gRPC server on its unix socket."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edge_reranker.errors import FailedPrecondition
from edge_reranker.server import limits
from edge_reranker.server.access import Access
from edge_reranker.server.call import Budget
from edge_reranker.server.context import ContextServicer
from edge_reranker.server.core import Core
from edge_reranker.server.interceptor import Gate
from edge_reranker.server.listen import (
    InstanceLock,
    address,
    prepare_socket,
    private_umask,
    remove_socket,
    socket_inode,
)
from edge_reranker.server.models import ModelServicer
from edge_reranker.server.namespaces import NamespaceServicer
from edge_reranker.server.rerank import RerankServicer
from edge_reranker.server.transfers import Transfers
from edge_reranker.server.workers import Workers
from edge_reranker.v1 import (
    context_service_pb2,
    context_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    namespace_service_pb2,
    namespace_service_pb2_grpc,
    rerank_service_pb2,
    rerank_service_pb2_grpc,
)

SERVICES = (
    rerank_service_pb2.DESCRIPTOR.services_by_name["RerankService"].full_name,
    context_service_pb2.DESCRIPTOR.services_by_name["ContextService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    namespace_service_pb2.DESCRIPTOR.services_by_name["NamespaceService"].full_name,
)

_FLUSH_S = 0.2

_OPTIONS = (
    ("grpc.max_receive_message_length", limits.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.MAX_MESSAGE_BYTES),
)


class Server:
    """Serves one core to the apps of one user.

    ``default_budget_ms`` is what a request gets that asks for nothing; ``margin_ms`` is kept of a budget
    for the way back. A ``lock`` that is held already (so that the caller could open the store under it)
    is used and left to the caller; without one the server takes and releases its own.
    """

    def __init__(
        self,
        core: Core,
        *,
        data_dir: Path,
        socket_path: Path,
        default_budget_ms: float = 200.0,
        margin_ms: float = 3.0,
        reflection: bool = False,
        max_rerank_calls: int = 40,
        lock: InstanceLock | None = None,
    ) -> None:
        self._core = core
        self._data_dir = data_dir
        self._socket_path = socket_path
        self._budget = Budget(default_ms=default_budget_ms, margin_ms=margin_ms)
        self._reflection = reflection
        self._max_rerank_calls = max_rerank_calls
        self._lock = lock or InstanceLock(data_dir)
        self._owns_lock = lock is None
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._gate: Gate | None = None
        self._workers: list[Workers] = []
        self._transfers = Transfers(core)
        self._inode: tuple[int, int] | None = None

    async def start(self) -> None:
        """Takes the lock, makes tokens and socket, and begins to answer.

        Raises AlreadyRunning, or FailedPrecondition when the socket or a token file cannot be used;
        nothing is left behind then.
        """
        self._lock.acquire()
        try:
            access = Access.open(self._data_dir)
            prepare_socket(self._socket_path, self._data_dir)
            self._server = self._build(access)
            self._bind(self._server)
            for service in SERVICES:
                await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
            await self._server.start()
        except BaseException:
            await self.stop(0)
            raise

    async def serve(self) -> None:
        """Waits until the server is stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Turns health to NOT_SERVING, lets calls finish within ``grace_s`` seconds, removes the socket.

        Calls that take longer are cancelled. Idempotent.
        """
        server, self._server = self._server, None
        if server is not None:
            await self._health.enter_graceful_shutdown()
            if self._gate is not None:
                await self._gate.drain(grace_s)
            # Answers that were just given are on their way out; idle clients need not hang up first.
            await server.stop(min(grace_s, _FLUSH_S))
        for workers in self._workers:
            workers.close()
        self._workers.clear()
        self._transfers.close()
        if self._inode is not None:
            remove_socket(self._socket_path, self._inode)
            self._inode = None
        if self._owns_lock:
            self._lock.release()

    def _build(self, access: Access) -> grpc.aio.Server:
        # Rerank calls wait for the model, context calls for the disk (many at once share one commit), and
        # a warm-up takes seconds: one never takes another's thread.
        rerank = Workers("rerank", self._max_rerank_calls)
        context = Workers("context", 64)
        models = Workers("models", 4)
        namespaces = Workers("namespaces", 4)
        self._workers = [rerank, context, models, namespaces]
        self._gate = Gate(access)
        server = grpc.aio.server(interceptors=[self._gate], options=_OPTIONS)
        add = rerank_service_pb2_grpc.add_RerankServiceServicer_to_server
        add(RerankServicer(self._core, rerank, self._budget), server)  # type: ignore[no-untyped-call]
        add = context_service_pb2_grpc.add_ContextServiceServicer_to_server
        add(ContextServicer(self._core, context, self._transfers), server)  # type: ignore[no-untyped-call]
        add = model_service_pb2_grpc.add_ModelServiceServicer_to_server
        add(ModelServicer(self._core, models, self._budget), server)  # type: ignore[no-untyped-call]
        add = namespace_service_pb2_grpc.add_NamespaceServiceServicer_to_server
        add(NamespaceServicer(self._core, namespaces), server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._reflection:
            from grpc_reflection.v1alpha import reflection

            reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME), server)
        return server

    def _bind(self, server: grpc.aio.Server) -> None:
        with private_umask():
            try:
                server.add_insecure_port(address(self._socket_path))
            except RuntimeError:
                raise FailedPrecondition(
                    f"{self._socket_path}: the socket cannot be made here; choose another --socket"
                ) from None
        self._socket_path.chmod(0o600)
        self._inode = socket_inode(self._socket_path)
