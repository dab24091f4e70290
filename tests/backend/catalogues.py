"""Catalogues, and what encodes them, for tests of what is around it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edge_reranker.backend.catalogue import Catalogue, Shard
from edge_reranker.backend.encoder import Batch, Float32
from edge_reranker.backend.files import Made
from edge_reranker.backend.run import Encoding
from edge_reranker.ranking.towers import Towers
from tests.parts import N_DIMS, N_EMBD, small_pack


def lines(n: int, *, first: int = 0) -> str:
    rows = ({"id": str(i), "title": f"Film {i}", "tags": ["Crime"]} for i in range(first, first + n))
    return "".join(json.dumps(row) + "\n" for row in rows)


def catalogue(folder: Path, text: str, name: str = "items.jsonl") -> Catalogue:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return Catalogue(path, name)


def encoding(items: Catalogue, *, shard: Shard | None = None, pack_id: str = "small-1") -> Encoding:
    made = Made(pack_id, "ab" * 32, N_DIMS)
    return Encoding(items, shard or Shard(), made, Towers.of(small_pack().head))


class Digests:
    """Hidden states that are a function of the text alone; keeps what it was asked for."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.texts: list[str] = []
        self._stop_after = stop_after

    def states(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Float32]]:
        for number, texts in batches:
            if self._stop_after is not None and number >= self._stop_after:
                raise KeyboardInterrupt
            self.texts += texts
            yield number, np.stack([_state(text) for text in texts])


def _state(text: str) -> Float32:
    if text == "Nothing but control strings":
        return np.full(N_EMBD, np.nan, np.float32)
    digest = hashlib.sha256(text.encode()).digest()[:N_EMBD]
    return np.frombuffer(digest, np.uint8).astype(np.float32) / 128 - 1
