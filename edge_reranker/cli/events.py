"""``record``, ``events`` and ``forget``: what the user did."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import click

from edge_reranker.cli import options, protojson
from edge_reranker.cli.plain import plain
from edge_reranker.errors import InvalidArgument
from edge_reranker.types import EventType
from edge_reranker.v1 import context_service_pb2, types_pb2
from edge_reranker_client import errors as client_errors
from edge_reranker_client import messages

_BATCH = 500
_BATCH_CHARACTERS = 16 * 1024 * 1024  # of at most four bytes each: it fits into one message of 64 MiB
_PAGE = 200  # at 217 KB, the most that the caps allow an event, it fits too


@click.command()
@options.input_file
@options.data_dir
@options.as_json
def record(file: TextIO, as_json: bool, **flags: Any) -> None:
    """Record events from FILE (- is standard input), one JSON event a line.

    Each batch of up to 500 lines is stored whole or not at all. A line without an eventId gets a new one:
    to send the file again records such lines again.

    \b
    Example:
      echo '{"type": "LIKE", "item": {"id": "1", "title": "Toy Story (1995)"}}' | edge-reranker record -
    """
    total = context_service_pb2.RecordEventsResponse()
    with options.connect(flags) as client:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        for batch in _batches(lines):
            request = context_service_pb2.RecordEventsRequest()
            for number, line in batch:
                event = protojson.parse(line, types_pb2.Event(), f"{file.name}, line {number}")
                event.event_id = event.event_id or str(uuid.uuid4())
                request.events.append(event)
            try:
                answer = client.record_message(request)
            except client_errors.InvalidArgument as error:
                raise _in_file(error, file.name, batch, total.recorded) from None
            total.recorded += answer.recorded
            total.duplicates += answer.duplicates
    if as_json:
        click.echo(protojson.dump(total))
    else:
        click.echo(f"{total.recorded} recorded, {total.duplicates} known already")


@click.command()
@options.data_dir
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many at most.")
@options.as_json
def events(limit: int, as_json: bool, **flags: Any) -> None:
    """List recorded events, newest first.

    \b
    Example:
      edge-reranker events --limit 5
    """
    left, page_token = limit, ""
    with options.connect(flags) as client:
        while left:
            page = client.events_message(
                context_service_pb2.ListEventsRequest(page_size=min(left, _PAGE), page_token=page_token)
            )
            for event in page.events:
                click.echo(protojson.dump(event) if as_json else _line(event))
            left -= len(page.events)
            page_token = page.next_page_token
            if not page_token:
                return


class _Moment(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A moment in ISO 8601; without a zone it is UTC, as ``events`` prints it."""

    name = "MOMENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The moment; fails for what is none."""
        try:
            return messages.timestamp(datetime.datetime.fromisoformat(value))
        except (ValueError, ArithmeticError):
            self.fail(f"{value!r} is no moment; write 2026-01-31 or 2026-01-31T12:00:00Z", param, ctx)


_TYPES = [kind.name for kind in EventType if kind is not EventType.UNSPECIFIED]


@click.command()
@options.data_dir
@click.option("--event-id", help="Forget the event with this id.")
@click.option("--item-id", help="Forget all events about this item.")
@click.option("--type", "kind", type=click.Choice(_TYPES, case_sensitive=False), help="All events of it.")
@click.option("--tag", help="Forget all events about items that had this tag then, in whatever case.")
@click.option("--from", "start", type=_Moment(), help="Forget all events from this moment on.")
@click.option("--to", "end", type=_Moment(), help="Forget all events before it; with --from, between.")
@click.option("--all", "everything", is_flag=True, help="Forget everything.")
@click.option("--all-namespaces", is_flag=True, help="Forget everything in every namespace.")
@click.option("--namespace", default="", help="In this namespace; default: the token's own.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def forget(namespace: str, dry_run: bool, yes: bool, as_json: bool, **flags: Any) -> None:
    """Remove events, and what only they needed, backups too; prints what went.

    \b
    Example:
      edge-reranker forget --item-id 1 --dry-run
      edge-reranker forget --from 2026-01-01 --to 2026-02-01
      edge-reranker forget --all --yes
    """
    request = _forget_request(flags)
    request.MergeFrom(messages.request(context_service_pb2.ForgetRequest, namespace=namespace))
    request.dry_run = dry_run
    if (request.all or request.all_namespaces) and not (yes or dry_run):
        whose = " in every namespace" if request.all_namespaces else ""
        click.confirm(f"Forget everything that was recorded{whose}?", abort=True, err=True)
    with options.connect(flags, owner=True) as client:
        receipt = client.forget_message(request)
    if as_json:
        click.echo(protojson.dump(receipt))
        return
    kinds = ("events", "items", "vectors", "rankings", "prefixes", "choices", "backups")
    counts = ", ".join(f"{getattr(receipt, kind)} {kind}" for kind in kinds)
    click.echo(f"{'would be forgotten' if dry_run else 'forgotten'}: {counts}")
    if receipt.remaining_digest:
        click.echo(f"{'would remain' if dry_run else 'remains'}: SHA-256 {receipt.remaining_digest}")


def _forget_request(flags: dict[str, Any]) -> context_service_pb2.ForgetRequest:
    """The selector among the flags, which are taken out. Raises InvalidArgument unless there is one."""
    names = ("event_id", "item_id", "kind", "tag", "start", "end", "everything", "all_namespaces")
    given = {name: value for name in names if (value := flags.pop(name)) is not None and value is not False}
    if len({"time_range" if name in ("start", "end") else name for name in given}) != 1:
        options_ = "--event-id, --item-id, --type, --tag, --from/--to, --all and --all-namespaces"
        raise InvalidArgument("forget", f"give exactly one of {options_}")
    kind = context_service_pb2.ForgetRequest
    match given:
        case {"kind": name}:
            return kind(type=messages.event_type(name))
        case {"everything": True}:
            return kind(all=True)
        case {"all_namespaces": True}:
            return kind(all_namespaces=True)
        case {"start": _} | {"end": _}:
            ends = {"from": given.get("start"), "to": given.get("end")}
            span = context_service_pb2.TimeRange(**{name: end for name, end in ends.items() if end})
            return kind(time_range=span)
    return messages.request(kind, **given)


def _batches(lines: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    size = 0
    for number, line in lines:
        if batch and (len(batch) == _BATCH or size + len(line) > _BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append((number, line))
        size += len(line)
    if batch:
        yield batch


def _in_file(
    error: client_errors.InvalidArgument, name: str, batch: list[tuple[int, str]], recorded: int
) -> InvalidArgument:
    """The service counts within a batch; the user counts lines."""
    found = re.match(r"events\[(\d+)\]\.?(.*)", str(error), re.DOTALL)
    if found is None:
        return InvalidArgument(name, str(error))
    number, _ = batch[int(found[1])]
    before = (
        f" ({recorded} recorded before it; give events an eventId to send them again)" if recorded else ""
    )
    return InvalidArgument(f"{name}, line {number}", found[2] + before)


def _line(event: types_pb2.Event) -> str:
    kind = types_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
    when = event.occurred_at.ToDatetime().isoformat(timespec="seconds")
    about = event.item.title or event.item.id or event.query
    return f"{when}  {kind:<10} {plain(about)}  ({plain(event.event_id)})"
