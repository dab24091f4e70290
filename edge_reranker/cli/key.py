"""``key``: the key of the store, changed, saved and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_reranker.cli import options, streams


@click.group()
def key() -> None:
    """The key that the store is encrypted with. It is never shown, and never an argument.

    \b
    Example:
      edge-reranker key export --out edge-reranker-key.age
    """


@key.command()
@options.data_dir
@options.config_file
@options.key_source
def rotate(config_file: Path | None, **flags: Any) -> None:
    """Encrypt the store with a new key; no service may run.

    Backups and quarantined stores under the old key are removed, and one new backup is made. Export the key
    again afterwards: an old export does not open the store any more.

    \b
    Example:
      edge-reranker key rotate
    """
    from edge_reranker.server import InstanceLock
    from edge_reranker.store import rotate as rotate_key

    config = options.load_config(flags, file=config_file)
    with InstanceLock(config.data_dir):
        gone = rotate_key(config.data_dir, source=config.key_source)
    click.echo(
        f"the store has a new key; removed under the old one: {gone.backups} backups, "
        f"{gone.quarantined} quarantined stores. Export the new key: `edge-reranker key export --out FILE`"
    )


@key.command()
@click.option("--out", required=True, type=options.Given(path_type=Path, dir_okay=False), help="A new file.")
@options.passphrase_file
@options.data_dir
@options.config_file
@options.key_source
def export(out: Path, passphrase_file: Path | None, config_file: Path | None, **flags: Any) -> None:
    """Write the key to a new file, encrypted with a passphrase (in age's format).

    Without key and export, nobody can read the store or its backups. Keep the file elsewhere.

    \b
    Example:
      edge-reranker key export --out edge-reranker-key.age
    """
    from edge_reranker.store import export_key

    config = options.load_config(flags, file=config_file)
    words = _passphrase(passphrase_file, new=True)
    export_key(config.data_dir, out, words, source=config.key_source)
    click.echo(f"wrote {out}")


@key.command("import")
@click.argument("file", type=options.Given(path_type=Path, dir_okay=False, exists=True))
@options.passphrase_file
@options.data_dir
@options.config_file
@options.key_source
def import_(file: Path, passphrase_file: Path | None, config_file: Path | None, **flags: Any) -> None:
    """Put back the key from a FILE that `key export` wrote; no service may run.

    \b
    Example:
      edge-reranker key import edge-reranker-key.age
    """
    from edge_reranker.server import InstanceLock
    from edge_reranker.store import import_key

    config = options.load_config(flags, file=config_file)
    words = _passphrase(passphrase_file, new=False)
    with InstanceLock(config.data_dir):
        kept = import_key(config.data_dir, file, words, source=config.key_source)
    click.echo(f"the key is in the {'OS keyring' if kept.location == 'keyring' else 'key file'} again")


def _passphrase(file: Path | None, *, new: bool) -> str:
    if file is not None:
        return streams.passphrase_in(file)
    typed: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True)
    return typed
