"""``explain``, ``profile``, ``mute`` and ``unmute``: why a list is as it is, and what to do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import click

from edge_reranker.cli import options, protojson
from edge_reranker.cli.plain import plain
from edge_reranker.v1 import context_service_pb2, rerank_service_pb2

_GROUPS = {
    "server": "the server",
    "history": "what you did",
    "search": "what you search for",
    "freshness": "how new it is",
    "app": "the app's own numbers",
}
_MISSING = {
    rerank_service_pb2.REASONS_MISSING_NOT_KEPT: (
        "no events are named: the request is not in memory any more; rank again and explain that one"
    ),
    rerank_service_pb2.REASONS_MISSING_NOT_SCORED: "the server's order stands: no event had a say",
    rerank_service_pb2.REASONS_MISSING_DEADLINE: "not all events were looked at in time",
}
_MOST_EVENTS = 3
_LEAST_CHANGE = 0.005


@click.command()
@click.argument("ranking_id")
@click.option("--id", "ids", multiple=True, help="Candidate to explain; may be repeated. Default: all.")
@options.data_dir
@options.namespace
@options.as_json
def explain(ranking_id: str, ids: tuple[str, ...], namespace: str, as_json: bool, **flags: Any) -> None:
    """Say why the ranking RANKING_ID is as it is: which of your events moved what.

    The id is the rankingId that `rank --json` and the app's own calls give.

    \b
    Example:
      edge-reranker explain "$(edge-reranker rank --json request.json | jq -r .rankingId)"
      edge-reranker explain 9f86d081884c7d659a2feaa0 --id 42 --json
    """
    with options.connect(flags, owner=True) as client:
        answer = client.why.explain_message(ranking_id, ids, namespace=namespace)
    if as_json:
        click.echo(protojson.dump(answer))
        return
    group_of = {each.name: each.group for each in answer.features}
    for each in answer.explanations:
        for line in _explanation(each, group_of):
            click.echo(line)
    if answer.degraded_reason:
        reason = rerank_service_pb2.DegradedReason.Name(answer.degraded_reason)
        click.echo(f"degraded: {reason.removeprefix('DEGRADED_REASON_')}", err=True)
    if answer.reasons_missing:
        click.echo(_MISSING.get(answer.reasons_missing, "some events are missing"), err=True)
    if answer.reading_held:
        click.echo("what the model's reading added is taken as it was", err=True)
    if any(each.reasons for each in answer.explanations):
        click.echo("Next: `forget --event-id ID` or `mute TOPIC`, then rank again", err=True)


def _explanation(each: rerank_service_pb2.Explanation, group_of: Mapping[str, str]) -> Iterator[str]:
    place = f"{each.place + 1:>4}" if each.HasField("place") else " out"
    was = f"was {each.server_place + 1:>4}, " if each.HasField("server_place") else ""
    topics = f"  [{', '.join(map(plain, each.topics))}]" if each.topics else ""
    yield f"{place}  ({was}tier {each.tier})  {plain(each.title or each.id)}{topics}"
    parts: dict[str, float] = defaultdict(float)
    for part in each.contributions:
        parts[group_of.get(part.feature, "")] += part.value
    if parts:
        ordered = sorted(parts.items(), key=lambda part: -abs(part[1]))
        told = ", ".join(f"{_GROUPS.get(group, group or 'other')} {value:+.2f}" for group, value in ordered)
        yield f"      score {each.score:.2f}: {told}"
    for reason in each.reasons:
        moved = abs(reason.place_change)
        if abs(reason.score_change) < _LEAST_CHANGE and not moved:
            continue  # it would say 0.00
        way = "up" if reason.place_change > 0 else "down"
        places = f", {moved} place{'s' if moved > 1 else ''} {way}" if moved else ""
        event = plain(reason.event_id)
        yield f"      {plain(reason.text)} ({reason.score_change:+.2f}{places}; event {event})"


@click.command()
@options.data_dir
@options.namespace
@options.as_json
def profile(namespace: str, as_json: bool, **flags: Any) -> None:
    """Show what the service believes you like and dislike, and because of which events.

    \b
    Example:
      edge-reranker profile
      edge-reranker profile --json
    """
    with options.connect(flags, owner=True) as client:
        answer = client.why.profile_message(namespace=namespace)
    if as_json:
        click.echo(protojson.dump(answer))
        return
    for belief in answer.beliefs:
        muted = "  (muted)" if belief.muted else ""
        click.echo(f"{belief.weight:+.2f}  {plain(belief.topic)}{muted}: {_events(belief)}")
    if not answer.beliefs:
        click.echo("nothing is believed yet: no event that counts has a tag")
    if answer.muted_topics:
        click.echo(f"muted: {', '.join(map(plain, answer.muted_topics))}")


def _events(belief: context_service_pb2.Belief) -> str:
    # One of each item: somebody who comes back to it has many.
    of_item = {each.title: each for each in reversed(belief.events)}
    told = [
        f"{'not ' if each.weight < 0 else ''}{plain(each.title)} ({plain(each.event_id)})"
        for each in list(of_item.values())[::-1][:_MOST_EVENTS]
    ]
    more = len(belief.events) - len(told)
    return ", ".join(told) + (f", and {more} more" if more else "")


@click.command()
@click.argument("topic")
@options.data_dir
@options.namespace
@options.as_json
def mute(topic: str, namespace: str, as_json: bool, **flags: Any) -> None:
    """Keep candidates with the tag TOPIC out of every list, from the next one on.

    \b
    Example:
      edge-reranker mute Horror
    """
    with options.connect(flags, owner=True) as client:
        answer = client.why.mute_message(topic, namespace=namespace)
    _tell(answer, as_json)


@click.command()
@click.argument("topic")
@options.data_dir
@options.namespace
@options.as_json
def unmute(topic: str, namespace: str, as_json: bool, **flags: Any) -> None:
    """Let candidates with the tag TOPIC back into lists.

    \b
    Example:
      edge-reranker unmute Horror
    """
    with options.connect(flags, owner=True) as client:
        answer = client.why.unmute_message(topic, namespace=namespace)
    _tell(answer, as_json)


def _tell(
    answer: context_service_pb2.MuteTopicResponse | context_service_pb2.UnmuteTopicResponse, as_json: bool
) -> None:
    if as_json:
        click.echo(protojson.dump(answer))
    else:
        click.echo(f"muted: {', '.join(map(plain, answer.muted_topics)) or 'nothing'}")
