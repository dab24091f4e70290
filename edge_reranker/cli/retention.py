"""``retention``: how long events are kept."""

from __future__ import annotations

import datetime
import re
from typing import Any

import click

from edge_reranker.cli import options, protojson
from edge_reranker.cli.plain import plain
from edge_reranker.errors import InvalidArgument
from edge_reranker.v1 import context_service_pb2, types_pb2
from edge_reranker_client import messages

_TYPE = re.compile(r"(?P<type>\w+):(?P<limits>.*)", re.DOTALL)
_LIMIT = re.compile(r"(days|events)=(\d+)", re.ASCII)
_MOST = 2**32 - 1
# Less of a difference is in the answer's way here.
_SAME_S = 90.0


def _namespace(command: Any) -> Any:
    return click.option("--namespace", default="", help="Whose events; without it, the token's own.")(command)


@click.group()
def retention() -> None:
    """Show or change how long events are kept.

    \b
    Example:
      edge-reranker retention set --max-age-days 90 --type IMPRESSION:days=7
      edge-reranker retention show
    """


@retention.command()
@options.data_dir
@_namespace
@options.as_json
def show(namespace: str, as_json: bool, **flags: Any) -> None:
    """Show how long events are kept, and whether some are being removed.

    \b
    Example:
      edge-reranker retention show
    """
    request = messages.request(context_service_pb2.GetRetentionRequest, namespace=namespace)
    with options.connect(flags, owner=True) as client:
        status = client.retention_message(request)
    if as_json:
        click.echo(protojson.dump(status))
        return
    _tell(status.retention, namespace)
    if status.sweeping:
        click.echo("events that are over the rule are being removed")
    reckoned_to = status.reckoned_to.ToDatetime(tzinfo=datetime.UTC)
    ahead_s = (datetime.datetime.now(datetime.UTC) - reckoned_to).total_seconds()
    if abs(ahead_s) > _SAME_S:
        which = "jumped ahead" if ahead_s > 0 else "is behind"
        click.echo(
            f"the clock {which}: ages are counted to {reckoned_to.isoformat(timespec='seconds')}"
            + (" until it has stood so for a week" if ahead_s > 0 else " until it is right again")
        )


@retention.command("set")
@options.data_dir
@_namespace
@click.option("--max-age-days", type=click.IntRange(1, _MOST), help="Days after which events go.")
@click.option("--max-events", type=click.IntRange(1, _MOST), help="Events kept, the newest.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE:LIMITS",
    help="Less for one type, such as IMPRESSION:days=7,events=5000; may be repeated.",
)
@click.option("--keep-all", is_flag=True, help="Keep every event: no rule.")
@options.as_json
def set_(
    namespace: str,
    max_age_days: int | None,
    max_events: int | None,
    types: tuple[str, ...],
    keep_all: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Change how long events are kept; what is not given has no limit. What the rule does not keep goes.

    \b
    Example:
      edge-reranker retention set --max-age-days 90 --max-events 100000
      edge-reranker retention set --max-age-days 90 --type IMPRESSION:days=7,events=5000
      edge-reranker retention set --keep-all
    """
    if keep_all == bool(max_age_days or max_events or types):
        problem = "give --max-age-days, --max-events or --type, or --keep-all alone"
        raise InvalidArgument("retention set", problem)
    request = messages.request(context_service_pb2.SetRetentionRequest, namespace=namespace)
    request.retention.max_age_days = max_age_days or 0
    request.retention.max_events = max_events or 0
    request.retention.by_type.extend(_of_type(each) for each in types)
    with options.connect(flags, owner=True) as client:
        answer = client.set_retention_message(request)
    if as_json:
        click.echo(protojson.dump(answer))
    else:
        _tell(answer.retention, namespace)


def _of_type(text: str) -> context_service_pb2.TypeRetention:
    found = _TYPE.fullmatch(text)
    limits = [_LIMIT.fullmatch(part) for part in found["limits"].split(",")] if found else []
    given = {limit[1]: int(limit[2]) for limit in limits if limit is not None}
    if found is None or None in limits or len(given) != len(limits) or max(given.values()) > _MOST:
        raise InvalidArgument("--type", f"{plain(text)} is not TYPE:days=N,events=N, or one of the two")
    try:
        kind = messages.event_type(found["type"])
    except ValueError:
        names = ", ".join(name.removeprefix("EVENT_TYPE_") for name in types_pb2.EventType.keys()[1:])
        raise InvalidArgument("--type", f"{plain(found['type'])} is not one of {names}") from None
    return context_service_pb2.TypeRetention(
        type=kind, max_age_days=given.get("days", 0), max_events=given.get("events", 0)
    )


def _tell(rule: context_service_pb2.Retention, namespace: str) -> None:
    whose = f" of {plain(namespace)}" if namespace else ""
    if rule == context_service_pb2.Retention():
        click.echo(f"every event{whose} is kept")
        return
    click.echo(f"events{whose} are kept {_limits(rule)}")
    for each in rule.by_type:
        click.echo(f"  {types_pb2.EventType.Name(each.type).removeprefix('EVENT_TYPE_')}: {_limits(each)}")


def _limits(rule: context_service_pb2.Retention | context_service_pb2.TypeRetention) -> str:
    said = []
    if rule.max_age_days:
        said.append(f"for {rule.max_age_days:,} day{'s' if rule.max_age_days > 1 else ''}")
    if rule.max_events:
        said.append(f"the newest {rule.max_events:,}")
    return ", ".join(said) or "for good, but for these types"
