"""Hidden states of a catalogue, made by the encoder that serves; those of a data set are kept."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from edge_reranker.cli.wiring import encoder_engine
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import STATES, Adapter, WorkerEngine
from edge_reranker.errors import EngineError, InvalidArgument
from edge_reranker.models import ModelCache
from edge_reranker.models.pack import Encoder
from edge_reranker.models.pull import atomic
from edge_reranker.prompt import item_pieces, item_text
from edge_reranker.scoring.vectors import MAX_ITEM_TOKENS
from edge_reranker.types import Item

_CHUNK = 32
_MAX_KEPT = 4  # of 4 MB each for MovieLens-100K and the default model: one per encoder that was measured
_DIGEST_BYTES = hashlib.sha256().digest_size

Float32 = npt.NDArray[np.float32]


def kept_hidden_states(
    config: Config, encoder: Encoder, items: Sequence[Item], adapter: Adapter | None = None
) -> Float32:
    """``hidden_states`` from the cache if they are there and whole; else made, and kept if that works.

    Worth it for a data set that is measured again and again: MovieLens-100K takes 21 of the 25 seconds of
    `edge-reranker evaluate` on two cores.
    """
    file, _ = ModelCache(config.cache_dir).open(encoder.model, "encoder")
    key = hashlib.sha256(STATES.encode() + file.sha256.encode())
    if encoder.adapter is not None:
        key.update(f"{encoder.adapter.sha256} {encoder.adapter.scale}".encode() + b"\0")
    if (encoder.pooling, encoder.normalise, encoder.prefix) != ("mean", False, ""):
        key.update(f"{encoder.pooling} {encoder.normalise} {encoder.prefix}".encode() + b"\0")
    for item in items:
        key.update(item_text(item).encode() + b"\0")
    path = config.cache_dir / "hidden" / key.hexdigest()[:32]
    states = _kept(path)
    if states is None:
        states = hidden_states(config, encoder, items, adapter)
        try:
            _keep(path, states)
        except OSError as error:
            click.echo(f"{path.parent}: not kept for the next time: {error.strerror}", err=True)
    return states


def _kept(path: Path) -> Float32 | None:
    """What ``_keep`` wrote; None if nothing did, or if it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, array = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(array).digest() != digest:
        return None
    return np.asarray(np.load(io.BytesIO(array), allow_pickle=False), np.float32)


def _keep(path: Path, states: Float32) -> None:
    """Keeps them behind their digest; the oldest files beyond ``_MAX_KEPT`` go. Raises OSError."""
    array = io.BytesIO()
    np.save(array, states, allow_pickle=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_bytes(hashlib.sha256(array.getvalue()).digest() + array.getvalue())
    for old in sorted(path.parent.iterdir(), key=lambda kept: kept.stat().st_mtime)[:-_MAX_KEPT]:
        old.unlink(missing_ok=True)


def hidden_states(
    config: Config,
    encoder: Encoder,
    items: Sequence[Item],
    adapter: Adapter | None = None,
    *,
    path: Path | None = None,
) -> Float32:
    """Pooled hidden states float32 [n_items, n_embd], made exactly as the service makes them.

    ``adapter`` is the pack's for its encoder; ``path`` a file to read in place of the encoder's own.

    Raises Missing, ModelInvalid, EngineError, and InvalidArgument for an item that has no tokens.
    """
    with _worker(config, encoder, path) as worker:
        if adapter is not None:
            worker.load_adapter(adapter.path, Deadline())
        rows = []
        starts = range(0, len(items), _CHUNK)
        with click.progressbar(starts, label=f"encoding {len(items)} items", file=sys.stderr) as bar:
            for start in bar:
                ids = _ids(worker, encoder, items[start : start + _CHUNK])
                encoded = worker.encode(ids, Deadline(), adapter=adapter)
                if len(encoded.vectors) < len(ids):
                    raise EngineError(f"the model stopped while encoding the catalogue: {encoded.stop}")
                rows.append(encoded.vectors)
        return np.concatenate(rows)


def token_ids(config: Config, encoder: Encoder, items: Sequence[Item]) -> list[list[int]]:
    """What ``hidden_states`` has the model read of each item, without separators; raises as it does."""
    with _worker(config, encoder, None) as worker:
        starts = range(0, len(items), _CHUNK)
        return [ids for start in starts for ids in _ids(worker, encoder, items[start : start + _CHUNK])]


@contextmanager
def _worker(config: Config, encoder: Encoder, path: Path | None) -> Iterator[WorkerEngine]:
    worker = encoder_engine(config, encoder, path)
    try:
        if not worker.wait_ready(Deadline.after_ms(120_000)):
            raise EngineError(
                worker.problem or "the model's worker did not start; see `edge-reranker doctor`"
            )
        yield worker
    finally:
        worker.close()


def _ids(worker: WorkerEngine, encoder: Encoder, items: Sequence[Item]) -> list[list[int]]:
    found = worker.tokenize([item_pieces(item, encoder.prefix) for item in items], Deadline())
    for item, tokens in zip(items, found, strict=True):
        if not tokens:
            raise InvalidArgument(f"item {item.id}", "its text is nothing but control strings")
    return [tokens[:MAX_ITEM_TOKENS] for tokens in found]
