"""Hidden states of a catalogue, made by the encoder that serves; those of a data set are kept."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from edge_reranker.cli.encoders import RayPool, encoders
from edge_reranker.config import Config
from edge_reranker.engine import STATES, Adapter
from edge_reranker.errors import InvalidArgument
from edge_reranker.models import ModelCache
from edge_reranker.models.pack import Encoder
from edge_reranker.models.pull import atomic
from edge_reranker.prompt import item_text
from edge_reranker.types import Item

_MAX_KEPT = 4  # of 4 MB each for MovieLens-100K and the default model: one per encoder that was measured
_DIGEST_BYTES = hashlib.sha256().digest_size

Float32 = npt.NDArray[np.float32]


def kept_hidden_states(
    config: Config,
    encoder: Encoder,
    items: Sequence[Item],
    adapter: Adapter | None = None,
    ray: RayPool | None = None,
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
        states = hidden_states(config, encoder, items, adapter, ray)
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
    ray: RayPool | None = None,
) -> Float32:
    """Pooled hidden states float32 [n_items, n_embd], made exactly as the service makes them.

    ``adapter`` is the pack's for its encoder.

    Raises Missing, ModelInvalid, EngineError, and InvalidArgument for an item that has no tokens.
    """
    from edge_reranker.backend.encoder import BATCH, texts_of, without_tokens

    starts = range(0, len(items), BATCH)
    batches = ((start, texts_of(items[start : start + BATCH], encoder.prefix)) for start in starts)
    made: dict[int, Float32] = {}
    label = f"encoding {len(items)} items"
    with (
        encoders(config, encoder, adapter, ray) as found,
        click.progressbar(length=len(items), label=label, file=sys.stderr) as bar,
    ):
        for start, states in found.states(batches):
            row = without_tokens(states)
            if row is not None:
                item = items[start + row]
                raise InvalidArgument(f"item {item.id}", "its text is nothing but control strings")
            made[start] = states
            bar.update(len(states))
    return np.concatenate([made[start] for start in starts])
