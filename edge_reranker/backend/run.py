"""A catalogue to a file of vectors, in parts: stopped at any moment, it goes on where it was."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_reranker.backend.catalogue import Catalogue, Shard
from edge_reranker.backend.encoder import BATCH, Batch, Encoders, Float32, texts_of, without_tokens
from edge_reranker.backend.files import Encoded, Float16, Made
from edge_reranker.backend.parts import Parts
from edge_reranker.engine import STATES
from edge_reranker.errors import FailedPrecondition, InvalidArgument
from edge_reranker.models.pull import atomic
from edge_reranker.ranking.towers import Towers

Write = Callable[[Path, Encoded], None]
Progress = Callable[[int], None]
"""Told how many more items have their vectors."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Which items, and how they become vectors; ``prefix`` stands before each text."""

    catalogue: Catalogue
    shard: Shard
    made: Made
    towers: Towers
    prefix: str = ""

    def vectors(self, encoders: Encoders) -> Encoded:
        """Of all items, in the catalogue's order, batch by batch; nothing is kept. Raises as ``fill``."""
        for number, items in enumerate(self.catalogue.batches(self.shard, BATCH)):
            for _, states in encoders.states([(number, texts_of(items, self.prefix))]):
                yield items, self._item_vectors(number, states)

    def parts(self, out: Path) -> Parts:
        """What there is of ``out`` so far. Raises as Parts does."""
        return Parts(out, f"{self.made.pack_id} {self.made.encoder_sha256} {STATES}")

    def fill(self, parts: Parts, encoders: Encoders, progress: Progress) -> None:
        """Makes the parts that are not there yet.

        Raises EngineError; InvalidArgument for an item whose text has no tokens; and what reading raises.
        """
        keys: dict[int, str] = {}

        def missing() -> Iterator[Batch]:
            for number, items in enumerate(self.catalogue.batches(self.shard, BATCH)):
                texts = texts_of(items, self.prefix)
                key = parts.key(texts)
                if parts.get(key) is None:
                    keys[number] = key
                    yield number, texts
                else:
                    progress(len(items))

        for number, states in encoders.states(missing()):
            vectors = self._item_vectors(number, states)
            parts.put(keys.pop(number), vectors.astype("<f2").tobytes())
            progress(len(vectors))

    def assemble(self, parts: Parts, out: Path, write: Write) -> None:
        """Writes the file from its parts: under its name it is whole or not there.

        Raises FailedPrecondition when the catalogue is no longer what the parts were made of, and OSError.
        """
        with atomic(out) as whole:
            whole.unlink()  # so that it gets the rights that the user's files get
            write(whole, self._from(parts))

    def _from(self, parts: Parts) -> Encoded:
        for items in self.catalogue.batches(self.shard, BATCH):
            data = parts.get(parts.key(texts_of(items, self.prefix)))
            if data is None:
                raise FailedPrecondition(
                    f"{self.catalogue.name}: changed while it was encoded; run the same command again"
                )
            yield items, np.frombuffer(data, "<f2").reshape(len(items), self.made.n_dims)

    def _item_vectors(self, number: int, states: Float32) -> Float16:
        row = without_tokens(states)
        if row is not None:
            batches = self.catalogue.batches(self.shard, BATCH)
            item = next(itertools.islice(batches, number, None))[row]
            problem = "its text is nothing but control strings; leave it out"
            raise InvalidArgument(f"{self.catalogue.name}, item {item.id!a}", problem)
        return self.towers.item_vectors(states)
