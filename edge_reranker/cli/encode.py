"""``encode``: vectors of public items, for a backend to ship with its candidates."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_reranker.cli import options, protojson
from edge_reranker.cli.encoders import encoders, ray_options, ray_pool
from edge_reranker.config import Config
from edge_reranker.errors import InvalidArgument
from edge_reranker.models import ModelCache, Pack, load_pack
from edge_reranker.v1 import types_pb2

if TYPE_CHECKING:
    from edge_reranker.backend.catalogue import Catalogue, Shard
    from edge_reranker.backend.encoder import Encoders
    from edge_reranker.backend.files import Encoded
    from edge_reranker.backend.run import Encoding

_MOST_SHARDS = 65_536
_SUFFIXES = (".parquet", ".jsonl")


@click.command()
@click.argument("catalogue", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@options.cache_dir
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@click.option(
    "--out",
    type=options.Given(path_type=Path, dir_okay=False),
    help="File for the vectors, .parquet or .jsonl; what is done is kept when it is interrupted.",
)
@click.option("--shard", "shard_text", metavar="I/N", help="Only this one of N shares; ids tell which.")
@ray_options
def encode(
    catalogue: str,
    out: Path | None,
    shard_text: str | None,
    on_ray: bool,
    ray_workers: int | None,
    **flags: Any,
) -> None:
    """Turn the items in CATALOGUE (- is standard input) into vectors to send with the candidates.

    CATALOGUE has id, title, text and tags: one JSON candidate a line, or Parquet. Without --out it prints one
    JSON candidate a line: id, vector and vectorSpace. It needs no service and no user. After an interruption
    the same command goes on where it stopped.

    \b
    Example:
      echo '{"id": "1", "title": "Heat (1995)", "tags": ["Crime"]}' | edge-reranker encode -
      edge-reranker encode items.parquet --out vectors.parquet
      edge-reranker encode items.jsonl --shard 2/8 --out vectors-2.parquet
    """
    from edge_reranker.cli.packs import pack_folder
    from edge_reranker.cli.tiers import adapter_of

    config = options.load_config(flags)
    shard = _shard(shard_text)
    if out is not None:
        _check_out(out, catalogue)
    elif on_ray:
        raise InvalidArgument("--ray", "needs --out FILE, where what is done is kept")
    pool = ray_pool(on_ray, ray_workers)
    pack = load_pack(pack_folder(config))
    with _opened(catalogue) as items:
        if items is None:
            return
        n_items = items.check(shard)
        encoding = _encoding(config, pack, items, shard)
        with encoders(config, pack.manifest.encoder, adapter_of(pack, "encoder"), pool) as found:
            if out is None:
                for line in _lines(encoding.vectors(found), pack.id):
                    click.echo(line)
            else:
                _to_file(encoding, found, out, n_items)


def _to_file(encoding: Encoding, encoders: Encoders, out: Path, n_items: int) -> None:
    from edge_reranker.backend import files

    about = {"n_items": str(n_items), "shard": str(encoding.shard)}

    def write(path: Path, encoded: Encoded) -> None:
        if out.suffix == ".parquet":
            files.write_parquet(path, encoded, encoding.made, about)
        else:
            with path.open("w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in _lines(encoded, encoding.made.pack_id))

    n_done = 0
    with encoding.parts(out) as parts:
        try:
            label = f"encoding {n_items} items"
            with click.progressbar(length=n_items, label=label, file=sys.stderr) as bar:

                def progress(n: int) -> None:
                    nonlocal n_done
                    n_done += n
                    bar.update(n)

                encoding.fill(parts, encoders, progress)
            encoding.assemble(parts, out, write)
        except KeyboardInterrupt:
            click.echo(
                f"\nstopped: {n_done} of {n_items} items are kept in {parts.folder}; "
                "the same command goes on from there",
                err=True,
            )
            raise
    click.echo(f"{out}: vectors of {n_items} items in the space {encoding.made.pack_id}", err=True)


def _encoding(config: Config, pack: Pack, items: Catalogue, shard: Shard) -> Encoding:
    from edge_reranker.backend.files import Made
    from edge_reranker.backend.run import Encoding
    from edge_reranker.ranking.towers import Towers

    encoder = pack.manifest.encoder
    file, _ = ModelCache(config.cache_dir).open(encoder.model, "encoder")
    made = Made(pack.id, file.sha256, pack.n_dims)
    return Encoding(items, shard, made, Towers.of(pack.head), encoder.prefix)


def _lines(encoded: Encoded, space: str) -> Iterator[str]:
    for items, vectors in encoded:
        for item, vector in zip(items, vectors, strict=True):
            found = types_pb2.Candidate(id=item.id, vector=vector.tolist(), vector_space=space)
            yield protojson.dump(found)


@contextmanager
def _opened(catalogue: str) -> Iterator[Catalogue | None]:
    """The file; standard input goes to one first, for it is read more than once. None for an empty input."""
    from edge_reranker.backend.catalogue import Catalogue

    if catalogue != "-":
        yield Catalogue(Path(catalogue), Path(catalogue).name)
        return
    with tempfile.NamedTemporaryFile(prefix="er-encode-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.seek(0)  # which also writes out what is buffered
        empty = not any(line.strip() for line in file)
        yield None if empty else Catalogue(Path(file.name), "<stdin>")


def _shard(text: str | None) -> Shard:
    from edge_reranker.backend.catalogue import Shard

    if text is None:
        return Shard()
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    index, n = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= index <= n <= _MOST_SHARDS:
        raise InvalidArgument("--shard", f"{text!a}; must be I/N, such as 2/8, N at most {_MOST_SHARDS}")
    return Shard(index, n)


def _check_out(out: Path, catalogue: str) -> None:
    if out.suffix not in _SUFFIXES:
        raise InvalidArgument("--out", f"{str(out)!a}; must end in {' or '.join(_SUFFIXES)}")
    if not out.parent.is_dir():
        raise InvalidArgument("--out", f"{out.parent} is not a folder; make it first")
    if catalogue != "-" and out.exists() and Path(catalogue).exists() and out.samefile(catalogue):
        raise InvalidArgument("--out", f"{out} is the catalogue itself; give another name")
    if out.suffix == ".parquet":
        from edge_reranker.backend.arrow import require_arrow

        require_arrow(f"--out {out.name}", "write to a .jsonl file")
