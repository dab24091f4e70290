"""``backup``: copies of the store, encrypted as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from edge_reranker.cli import options


@click.group()
def backup() -> None:
    """Copies of the store: made daily while the service runs, encrypted with its key, the newest kept.

    \b
    Example:
      edge-reranker backup list
      edge-reranker backup restore
    """


@backup.command()
@options.data_dir
@options.config_file
@options.key_source
def now(config_file: Path | None, **flags: Any) -> None:
    """Make one now; the service may run meanwhile.

    \b
    Example:
      edge-reranker backup now
    """
    from edge_reranker.store import make_backup

    config = options.load_config(flags, file=config_file)
    made = make_backup(config.data_dir, key_source=config.key_source, kept=config.backups)
    click.echo(f"made {made.path}")


@backup.command("list")
@options.data_dir
@options.config_file
@options.key_source
@options.as_json
def list_(config_file: Path | None, as_json: bool, **flags: Any) -> None:
    """List all there are, oldest first.

    \b
    Example:
      edge-reranker backup list
    """
    from edge_reranker.store import list_backups

    config = options.load_config(flags, file=config_file)
    found = list_backups(config.data_dir, key_source=config.key_source)
    if as_json:
        rows = [
            {"name": b.name, "made_at": b.when, "size_bytes": b.path.stat().st_size, "events": n}
            for b, n in found
        ]
        click.echo(msgspec.json.encode(rows).decode())
        return
    for one, n_events in found:
        size_mb = one.path.stat().st_size / 1e6
        content = "not under this key" if n_events is None else f"{n_events} events"
        click.echo(f"{one.name}  {one.when}  {size_mb:8.1f} MB  {content}")
    if not found:
        click.echo("none yet; the service makes one a day")


@backup.command()
@click.argument("name", default="")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.data_dir
@options.config_file
@options.key_source
def restore(name: str, yes: bool, config_file: Path | None, **flags: Any) -> None:
    """Put the backup NAME, or the newest sound one, in the store's place; no service may run.

    The store as it is now goes to `quarantine` in the data directory; what it has and the backup has not is
    missing afterwards.

    \b
    Example:
      edge-reranker backup restore
    """
    from edge_reranker.server import InstanceLock
    from edge_reranker.store import restore_backup

    config = options.load_config(flags, file=config_file)
    with InstanceLock(config.data_dir):
        if not yes:
            which = name or "the newest sound backup"
            click.confirm(
                f"Put {which} in the place of the store in {config.data_dir}?", abort=True, err=True
            )
        done = restore_backup(config.data_dir, name, key_source=config.key_source)
    click.echo(f"restored {done.backup} with {done.n_events} events; the store before it is in {done.folder}")
