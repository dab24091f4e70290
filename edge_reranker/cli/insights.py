"""``insights``: what the user's own events say of the user, computed here and told nobody else."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_reranker.cli import options, streams
from edge_reranker.cli.plain import plain
from edge_reranker.errors import FailedPrecondition, InvalidArgument
from edge_reranker.types import Event

if TYPE_CHECKING:
    from edge_reranker.evaluation.table import Tables
    from edge_reranker.ranking.context import Informative
    from edge_reranker.ranking.insights import Insights, Share

# The newest: a store of a million would take a gigabyte and say the same.
_MOST_EVENTS = 20_000
_N_TOLD = 5


@click.command()
@options.data_dir
@options.namespace
@options.as_json
@click.option(
    "--plot",
    "plot_file",
    type=options.Given(path_type=Path, dir_okay=False),
    help="File the shares of the topics are drawn to, last week and before: .svg or .html, for you alone.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def insights(namespace: str, as_json: bool, plot_file: Path | None, force: bool, **flags: Any) -> None:
    """Show how broad your taste is, which context tells anything of it, and whether it is drifting.

    From what was recorded, up to the newest 20,000 events, on this device. "Used" is what the rankings go by;
    they look at your newest 200 events that say what you like.

    \b
    Example:
      edge-reranker insights
      edge-reranker insights --plot taste.svg
    """
    if plot_file is not None:
        if plot_file.suffix not in (".svg", ".html"):
            raise InvalidArgument("--plot", f"{plain(str(plot_file))} ends in neither .svg nor .html")
        streams.check_free(plot_file, force=force)
    found = _computed(flags, namespace)
    if as_json:
        click.echo(json.dumps(_plain(found), ensure_ascii=False))
    else:
        for line in _lines(found):
            click.echo(line)
    if plot_file is None:
        return
    if not found.topics:
        raise FailedPrecondition("there is nothing to draw: no event says what you like; record some first")
    _draw(found, plot_file, force)


def _computed(flags: dict[str, Any], namespace: str) -> Insights:
    from edge_reranker.ranking.insights import insights as compute
    from edge_reranker.server.read_lines import Lines

    now_s = time.time()
    events: deque[Event] = deque(maxlen=_MOST_EVENTS)
    with options.connect(flags, owner=True) as client:
        lines = Lines(now_s)
        for chunk in client.export(namespace=namespace):
            events.extend(record for _, record in lines.feed(chunk) if isinstance(record, Event))
        lines.finish()
    return compute(list(events), now_s)


def _lines(found: Insights) -> list[str]:
    if not found.n_telling:
        return [f"{found.n_events:,} events, and none of them says what you like"]
    most = ", ".join(f"{plain(each.topic)} {each.share:.0%}" for each in found.topics[:_N_TOLD])
    return [
        f"{found.n_events:,} events, {found.n_telling:,} of them say what you like",
        f"taste: {found.bits:.2f} bits, as of about {found.n_topics:.1f} topics: {most}",
        *_context_lines(found),
        *_drift_lines(found),
    ]


def _context_lines(found: Insights) -> list[str]:
    if not found.contexts:
        return ["context: nothing in it differs from event to event yet"]
    cells = [("context", "tells of", "bits", "p", "used")]
    cells += [
        (plain(each.name), each.about, f"{each.bits:.3f}", f"{each.p:.3f}", "yes" if each.used else "no")
        for each in found.contexts
    ]
    widths = [max(len(row[at]) for row in cells) for at in range(5)]
    result = ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)]
    for each in found.stands_out:
        value = f"{plain(each.name)} = {plain(each.value)}"
        told = f"{plain(each.topic)} {each.share:.0%}, usually {each.usual:.0%}"
        result.append(f"  {value} ({each.n_events:,} events): {told}")
    return [*result, ""]


def _drift_lines(found: Insights) -> list[str]:
    drift = found.drift
    spans = f"the last 7 days ({drift.n_now:,} events) and before ({drift.n_before:,})"
    if not drift.n_now or not drift.n_before:
        return [f"drift: nothing to compare between {spans}"]
    said = "your taste is drifting" if drift.is_drifting else "no more than chance"
    result = [f"drift: {drift.bits:.3f} bits between {spans}, p = {drift.p:.3f}: {said}"]
    if drift.is_drifting:
        result += [
            f"  {plain(now.topic)} {before.share:.0%} before, {now.share:.0%} now"
            for now, before in list(zip(drift.now, drift.before, strict=True))[:_N_TOLD]
        ]
    return result


def _plain(found: Insights) -> dict[str, Any]:
    drift = found.drift
    return {
        "events": found.n_events,
        "tellingEvents": found.n_telling,
        "tasteBits": found.bits,
        "aboutTopics": found.n_topics,
        "topics": [dataclasses.asdict(each) for each in found.topics],
        "contexts": [_context(each, found) for each in found.contexts],
        "drift": {
            "eventsLastWeek": drift.n_now,
            "eventsBefore": drift.n_before,
            "bits": drift.bits,
            "p": drift.p,
            "drifting": drift.is_drifting,
            "lastWeek": [dataclasses.asdict(each) for each in drift.now],
            "before": [dataclasses.asdict(each) for each in drift.before],
        },
    }


def _context(each: Informative, found: Insights) -> dict[str, Any]:
    about = [
        {
            "value": one.value,
            "topic": one.topic,
            "share": one.share,
            "usually": one.usual,
            "events": one.n_events,
        }
        for one in found.stands_out
        if one.name == each.name and (one.topic == "engaged") == (each.about == "engagement")
    ]
    return {
        "name": each.name,
        "tellsOf": each.about,
        "bits": each.bits,
        "p": each.p,
        "used": each.used,
        "groups": each.n_groups,
        "standsOut": about,
    }


def _draw(found: Insights, file: Path, force: bool) -> None:
    from edge_reranker.evaluation import report

    tables = _tables(found)
    text = report.picture(tables["sections"][0]) if file.suffix == ".svg" else report.html(tables, "Insights")
    with streams.private(file, force) as opened:
        opened.write(text.encode())
    click.echo(f"{plain(str(file))} written", err=True)


def _tables(found: Insights) -> Tables:
    drift = found.drift
    parts = [("last 7 days", drift.now), ("before", drift.before)] if drift.now else [("ever", found.topics)]
    return {
        "sections": [
            {
                "title": "What you like",
                "note": f"{found.bits:.2f} bits, as of about {found.n_topics:.1f} topics",
                "rows": [
                    {"topic": plain(each.topic), "share": _interval(each), "when": when}
                    for when, shares in parts
                    for each in shares
                ],
                "plot": {"x": "topic", "y": "share", "by": "when"},
            },
            {
                "title": "What the context tells",
                "note": "bits above chance; p counts how many features were looked at",
                "rows": [
                    {
                        "context": plain(each.name),
                        "tells of": each.about,
                        "bits": each.bits,
                        "p": each.p,
                        "used": "yes" if each.used else "no",
                    }
                    for each in found.contexts
                ],
                "plot": None,
            },
        ],
        "made": {"events": found.n_events, "drift in bits": drift.bits, "drift, p": drift.p},
    }


def _interval(share: Share) -> dict[str, float]:
    return {"mean": share.share, "low": share.low, "high": share.high}
