"""``pack``: the packs that ship, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_reranker.cli import options
from edge_reranker.config import Config
from edge_reranker.errors import InvalidArgument
from edge_reranker.models import ModelCache, load_pack
from edge_reranker.models.cache import made_of
from edge_reranker.models.pack import MANIFEST_FILE

DEFAULT_PACK = "movielens-minilm"


def pack_folder(config: Config) -> Path:
    """The folder of the pack in use: the configured one, or one that ships, by its name.

    Raises InvalidArgument where there is neither: a name mistyped is no broken pack, to be served without.
    """
    if not config.pack:
        return _shipped() / DEFAULT_PACK
    chosen = Path(config.pack).expanduser()
    if len(chosen.parts) == 1 and not chosen.exists() and (_shipped() / chosen / MANIFEST_FILE).is_file():
        return _shipped() / chosen
    if not chosen.is_dir():
        raise InvalidArgument(
            "pack",
            f"{config.pack!r} is neither a folder nor the name of one that ships; "
            "see `edge-reranker pack list`",
        )
    return chosen


def _shipped() -> Path:
    return Path(str(resources.files("edge_reranker_packs")))


@click.group()
def pack() -> None:
    """Show the packs that ship.

    \b
    Example:
      edge-reranker pack list
    """


@pack.command("list")
@options.cache_dir
@options.as_json
def list_(as_json: bool, **flags: Any) -> None:
    """List the packs that ship, and the encoder that each needs.

    \b
    Example:
      edge-reranker pack list
    """
    cache = ModelCache(options.load_config(flags).cache_dir)
    here = {(file.name, file.made) for file in cache.files() if file.role == "encoder"}
    rows = []
    for folder in sorted(path.parent for path in _shipped().glob(f"*/{MANIFEST_FILE}")):
        found = load_pack(folder)
        encoder = found.manifest.encoder
        made = made_of(encoder.n_blocks, encoder.gguf_type)
        size_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        readable = cache.reads(encoder.model, encoder.n_blocks, encoder.gguf_type)
        is_here = any((encoder.model, each) in here for each in readable)
        is_default = folder.name == DEFAULT_PACK
        rows.append(
            {
                "name": folder.name,
                "id": found.id,
                "size_bytes": size_bytes,
                "encoder": encoder.model,
                "encoder_made": made,
                "encoder_here": is_here,
                "default": is_default,
            }
        )
        if not as_json:
            way = "" if is_here else f"; run `edge-reranker model pull {encoder.model}`"
            mark = "default" if is_default else ""
            size = f"{size_bytes / 1e3:4.0f} KB"
            click.echo(f"{found.id:<32} {size}  {mark:<7}  reads {encoder.model} ({made}){way}")
    if as_json:
        click.echo(msgspec.json.encode(rows).decode())
