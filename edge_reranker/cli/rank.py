"""``rank``: one request, one order."""

from __future__ import annotations

from typing import Any, TextIO

import click

from edge_reranker.cli import options, protojson
from edge_reranker.cli.plain import plain
from edge_reranker.v1 import rerank_service_pb2


@click.command()
@options.input_file
@options.data_dir
@click.option(
    "--budget-ms",
    type=click.IntRange(min=1, max=2**32 - 1),
    help="Time it may take; overrides the request's.",
)
@options.as_json
def rank(file: TextIO, budget_ms: int | None, as_json: bool, **flags: Any) -> None:
    """Rerank the candidates of one JSON request from FILE (- is standard input).

    \b
    Example:
      edge-reranker rank request.json
      edge-reranker rank --json - < request.json
    """
    request = protojson.parse(file.read(), rerank_service_pb2.RerankRequest(), file.name)
    if budget_ms is not None:
        request.budget_ms = budget_ms
    with options.connect(flags) as client:
        answer = client.rerank_message(request)
    if as_json:
        click.echo(protojson.dump(answer))
        return
    titles = {candidate.id: candidate.title or candidate.id for candidate in request.candidates}
    before = {candidate.id: place for place, candidate in enumerate(request.candidates, start=1)}
    for place, result in enumerate(answer.results, start=1):
        click.echo(
            f"{place:>4}  (was {before[result.id]:>4}, tier {result.tier})  {plain(titles[result.id])}"
        )
    if answer.blocked_ids:
        click.echo(f"not shown: {', '.join(plain(titles[id_]) for id_ in answer.blocked_ids)}")
    click.echo(summary(answer), err=True)


def summary(answer: rerank_service_pb2.RerankResponse) -> str:
    """One line about how an answer came about."""
    reason = rerank_service_pb2.DegradedReason.Name(answer.degraded_reason).removeprefix("DEGRADED_REASON_")
    degraded = "" if reason == "UNSPECIFIED" else f", degraded: {reason}"
    if answer.settled:
        degraded += ", settled"
    spent = ", ".join(
        f"{name} {value:.1f}"
        for name in ("queue", "context", "tier0", "tier1", "tier2", "fusion")
        if (value := getattr(answer.timings, f"{name}_ms")) >= 0.05
    )
    return (
        f"{answer.timings.total_ms:.1f} ms in the service ({spent}); "
        f"coverage {answer.coverage:.0%}{degraded}; "
        f"model {answer.model or 'none'}, pack {answer.pack or 'none'}"
    )
