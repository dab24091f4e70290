"""``evaluate --mine``: the replay of this user's own choices; they come from the service and go nowhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_reranker.cli import options, streams
from edge_reranker.models import load_pack


def report(flags: dict[str, Any], namespace: str, *, as_json: bool, html_file: Path | None) -> None:
    """Prints the replay, and writes the page, readable for the user alone."""
    from edge_reranker.cli.packs import pack_folder
    from edge_reranker.evaluation import mine, simulated, table
    from edge_reranker.evaluation import report as pages

    start = simulated.started(load_pack(pack_folder(options.load_config(flags))))
    found = mine.replay(start, _choices(flags, namespace))
    sections = mine.tables(found)
    if as_json:
        click.echo(msgspec.json.encode(found.as_dict()).decode())
    elif found.gain is None:
        click.echo(found.in_words())
    else:
        click.echo(f"{table.as_text(sections)}\n\n{found.in_words()}")
    if html_file is not None:
        with streams.private(html_file, force=True) as file:
            file.write(pages.html(sections, "Does it help me?").encode())


def _choices(flags: dict[str, Any], namespace: str) -> list[Any]:
    """What the namespace has of choices, oldest first; the owner's token reads them from the service."""
    from edge_reranker.ranking.learning.feedback import Choice
    from edge_reranker.server.read_lines import Lines
    from edge_reranker.types import LoggedChoice

    found, n_unreadable = [], 0
    lines = Lines(time.time())
    with options.connect(flags, owner=True) as client:
        for chunk in client.export(namespace=namespace):
            for _, record in lines.feed(chunk):
                if isinstance(record, LoggedChoice):
                    try:
                        found.append(Choice.decode(record.body))
                    except ValueError:
                        n_unreadable += 1
    lines.finish()
    if n_unreadable:
        click.echo(f"{n_unreadable} choices of another version of the service are left out", err=True)
    return found
