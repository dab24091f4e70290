"""What a client's arguments mean: whose token is read, and what is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from edge_reranker.v1 import rerank_service_pb2
from edge_reranker_client import discovery, explain, messages
from edge_reranker_client.errors import InvalidArgument


def scope(owner: bool, namespace: str | None, *, environment: bool) -> str:
    """Whose token file is read; raises InvalidArgument."""
    if owner and namespace is not None:
        raise InvalidArgument("namespace: is for an app; the owner's calls name the namespace they are about")
    if owner:
        return "owner"
    if namespace is None and environment:
        namespace = os.environ.get(discovery.NAMESPACE_VARIABLE) or None
    if namespace is None:
        return "app"
    if not discovery.is_namespace(namespace):
        raise explain.bad("namespace", namespace, "1 to 64 of a-z, 0-9, - and _, beginning with a letter")
    return discovery.scope_of(namespace)


def expect(kind: type, request: object) -> None:
    """Raises InvalidArgument unless ``request`` is a message of this kind."""
    if not isinstance(request, kind):
        raise explain.bad("request", request, f"a {kind.__name__}")


def rerank(
    candidates: Iterable[messages.CandidateLike],
    query: str,
    surface: str,
    session_id: str,
    top_n: int,
    budget_ms: int,
    policy: messages.PolicyLike | None,
    context: Mapping[str, str] | None,
    effort: str,
) -> rerank_service_pb2.RerankRequest:
    """The request for an order; raises InvalidArgument."""
    request = messages.request(
        rerank_service_pb2.RerankRequest,
        query=query,
        surface=surface,
        session_id=session_id,
        top_n=top_n,
        budget_ms=budget_ms,
        policy=None if policy is None else messages.policy(policy),
        effort=messages.effort(effort),
    )
    if context is not None:
        messages.add_context(request, context)
    messages.add_candidates(request, candidates)
    return request
