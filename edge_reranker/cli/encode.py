"""``encode``: vectors of public items, for a backend to ship with its candidates."""

from __future__ import annotations

from typing import Any, TextIO

import click

from edge_reranker.cli import options, protojson
from edge_reranker.errors import InvalidArgument
from edge_reranker.models import load_pack
from edge_reranker.types import Item
from edge_reranker.v1 import types_pb2


@click.command()
@options.input_file
@options.cache_dir
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
def encode(file: TextIO, **flags: Any) -> None:
    """Turn items from FILE (- is standard input), one JSON candidate a line, into candidates with vectors.

    Prints one JSON candidate a line: id, vector and vectorSpace, to send with the candidate. It needs no
    service and no user: run it once over a catalogue, anywhere.

    \b
    Example:
      echo '{"id": "1", "title": "Heat (1995)", "tags": ["Crime"]}' | edge-reranker encode -
    """
    from edge_reranker.cli.hidden import hidden_states
    from edge_reranker.cli.tiers import adapter_of
    from edge_reranker.cli.wiring import pack_folder
    from edge_reranker.prompt import item_text
    from edge_reranker.ranking.towers import Towers

    config = options.load_config(flags)
    pack = load_pack(pack_folder(config))
    items = []
    for number, line in enumerate(file, start=1):
        if line.strip():
            where = f"{file.name}, line {number}"
            sent = protojson.parse(line, types_pb2.Candidate(), where)
            item = Item(sent.id, sent.title, sent.text, tuple(sent.tags))
            if not item.id or not item_text(item):
                raise InvalidArgument(where, "needs an id, and a title, tags or a text to encode")
            items.append(item)
    if not items:
        return
    encoder = pack.manifest.encoder
    hidden = hidden_states(config, encoder, items, adapter_of(pack, "encoder"))
    for item, vector in zip(items, Towers.of(pack.head).item_vectors(hidden), strict=True):
        found = types_pb2.Candidate(id=item.id, vector=vector.tolist(), vector_space=pack.id)
        click.echo(protojson.dump(found))
