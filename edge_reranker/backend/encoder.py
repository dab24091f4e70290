"""Texts to hidden states, by one worker here or by many elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapter, WorkerEngine
from edge_reranker.errors import EngineError
from edge_reranker.prompt import item_pieces
from edge_reranker.scoring.vectors import MAX_ITEM_TOKENS
from edge_reranker.types import Item, Piece

# About two seconds' work: so much is lost by a kill.
BATCH = 128
_LOAD_MS = 120_000

Float32 = npt.NDArray[np.float32]
Batch = tuple[int, Sequence[str]]
"""A number of the caller's, and texts."""


class Encoders(Protocol):
    """Whoever makes hidden states."""

    def states(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Float32]]:
        """Hidden states float32 [n_texts, n_embd] of each batch, in any order, each text in a decode of its
        own; a row of NaN for a text without tokens.
        """


def texts_of(items: Sequence[Item], prefix: str) -> list[str]:
    """What the encoder reads of each item."""
    return ["".join(piece.text for piece in item_pieces(item, prefix)) for item in items]


def without_tokens(states: Float32) -> int | None:
    """The first row that no text made; None when there is none."""
    empty = np.isnan(states).all(axis=1)
    return int(empty.argmax()) if empty.any() else None


class ItemEncoder:
    """A worker that makes hidden states of texts."""

    def __init__(self, engine: WorkerEngine, adapter: Adapter | None = None) -> None:
        """Waits until the engine has loaded its model, and closes it if that fails. Raises EngineError."""
        self._engine = engine
        self._adapter = adapter
        try:
            if not engine.wait_ready(Deadline.after_ms(_LOAD_MS)):
                raise EngineError(
                    engine.problem or "the model's worker did not start; see `edge-reranker doctor`"
                )
            if adapter is not None:
                engine.load_adapter(adapter.path, Deadline())
        except BaseException:
            engine.close()
            raise

    def encode(self, texts: Sequence[str]) -> Float32:
        """See Encoders. Raises EngineError when the worker ends in between."""
        ids = self.token_ids(texts)
        some = [row for row, tokens in enumerate(ids) if tokens]
        encoded = self._engine.encode([ids[row] for row in some], Deadline(), adapter=self._adapter)
        if len(encoded.vectors) < len(some):
            raise EngineError(f"the model stopped while encoding the catalogue: {encoded.stop}")
        states = np.full((len(texts), encoded.vectors.shape[1]), np.nan, np.float32)
        states[some] = encoded.vectors
        return states

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model reads of each text."""
        ids = self._engine.tokenize([[Piece(text)] for text in texts], Deadline())
        return [tokens[:MAX_ITEM_TOKENS] for tokens in ids]

    def close(self) -> None:
        """Stops the worker. Idempotent."""
        self._engine.close()


Start = Callable[[], ItemEncoder]


class Here(AbstractContextManager["Here"]):
    """One worker on this machine, started when there is something to encode."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._encoder: ItemEncoder | None = None

    def states(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Float32]]:
        """See Encoders; in the order given, one batch in memory at a time."""
        for number, texts in batches:
            if self._encoder is None:
                self._encoder = self._start()
            yield number, self._encoder.encode(texts)

    def __exit__(self, *_: object) -> None:
        """Stops the worker."""
        if self._encoder is not None:
            self._encoder.close()
