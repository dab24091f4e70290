"""Hidden states of a catalogue, made by the encoder that serves, and kept for the next time."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence

import click
import numpy as np
import numpy.typing as npt

from edge_reranker.cli.wiring import encoder_engine
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import STATES, Adapter
from edge_reranker.errors import EngineError, InvalidArgument
from edge_reranker.models import ModelCache
from edge_reranker.models.pack import Encoder
from edge_reranker.models.pull import atomic
from edge_reranker.prompt import item_pieces, item_text
from edge_reranker.scoring.vectors import MAX_ITEM_TOKENS
from edge_reranker.types import Item

_CHUNK = 32


def hidden_states(
    config: Config, encoder: Encoder, items: Sequence[Item], adapter: Adapter | None = None
) -> npt.NDArray[np.float32]:
    """Mean-pooled hidden states float32 [n_items, n_embd], made exactly as the service makes them.

    ``adapter`` is the pack's for its encoder.

    Raises Missing, ModelInvalid, EngineError, and InvalidArgument for an item that has no tokens.
    """
    file, _ = ModelCache(config.cache_dir).open(encoder.model, "encoder")
    digest = hashlib.sha256(STATES.encode() + file.sha256.encode())
    if encoder.adapter is not None:
        digest.update(f"{encoder.adapter.sha256} {encoder.adapter.scale}".encode() + b"\0")
    for item in items:
        digest.update(item_text(item).encode() + b"\0")
    path = config.cache_dir / "hidden" / f"{digest.hexdigest()[:32]}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    states = _encode(config, encoder, items, adapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, states, allow_pickle=False)
    with atomic(path) as part:
        part.write_bytes(buffer.getvalue())
    return states


def _encode(
    config: Config, encoder: Encoder, items: Sequence[Item], adapter: Adapter | None
) -> npt.NDArray[np.float32]:
    worker = encoder_engine(config, encoder)
    try:
        if not worker.wait_ready(Deadline.after_ms(120_000)):
            raise EngineError(
                worker.problem or "the model's worker did not start; see `edge-reranker doctor`"
            )
        if adapter is not None:
            worker.load_adapter(adapter.path, Deadline())
        rows = []
        starts = range(0, len(items), _CHUNK)
        with click.progressbar(starts, label=f"encoding {len(items)} items", file=sys.stderr) as bar:
            for start in bar:
                chunk = items[start : start + _CHUNK]
                ids = worker.tokenize([item_pieces(item) for item in chunk], Deadline())
                for item, tokens in zip(chunk, ids, strict=True):
                    if not tokens:
                        raise InvalidArgument(f"item {item.id}", "its text is nothing but control strings")
                sequences = [tokens[:MAX_ITEM_TOKENS] for tokens in ids]
                encoded = worker.encode(sequences, Deadline(), adapter=adapter)
                if len(encoded.vectors) < len(chunk):
                    raise EngineError(f"the model stopped while encoding the catalogue: {encoded.stop}")
                rows.append(encoded.vectors)
        return np.concatenate(rows)
    finally:
        worker.close()
