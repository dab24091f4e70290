"""gRPC in front of the core: a unix socket, tokens, deadlines and fixed error messages."""

from edge_reranker.server.core import Core
from edge_reranker.server.listen import InstanceLock
from edge_reranker.server.server import Server

__all__ = ["Core", "InstanceLock", "Server"]
