"""Questions about rankings and beliefs in: which ranking, which candidates, which topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks, limits

if TYPE_CHECKING:
    from edge_reranker.v1 import rerank_service_pb2


def explanation(message: rerank_service_pb2.ExplainRequest) -> tuple[str, tuple[str, ...]]:
    """The ranking and the candidates to explain, checked; raises InvalidArgument."""
    if not message.ranking_id:
        raise InvalidArgument("ranking_id", "is empty; RerankResponse has it")
    ranking_id = checks.name("ranking_id", message.ranking_id)
    checks.few("ids", len(message.ids), limits.MAX_CANDIDATES)
    return ranking_id, tuple(checks.identifier(f"ids[{at}]", id_) for at, id_ in enumerate(message.ids))


def topic(value: str) -> str:
    """A topic, as tags are kept: without control characters, cut at the cap. Raises InvalidArgument."""
    kept = checks.text(value, limits.MAX_TAG)
    if not kept.strip():
        raise InvalidArgument("topic", "is empty; give a tag")
    return kept
