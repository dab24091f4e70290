"""Item vectors: remembered, stored, or made by the encoder, each item text once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Encoded, Engine
from edge_reranker.errors import EngineBusy, EngineDied, StoreError
from edge_reranker.prompt import NO_TEXT, content_hash, item_pieces
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring.epochs import Epochs, Owner
from edge_reranker.scoring.types import REASONS
from edge_reranker.store import Store
from edge_reranker.types import Candidate, DegradedReason, Item

Vector = npt.NDArray[np.float16]

# About 60 ms on two laptop cores; what follows seldom changes what an item is.
MAX_ITEM_TOKENS = 96
_F16_MAX = float(np.finfo(np.float16).max)
_MAX_REMEMBERED = 50_000  # 128 bytes each and the dictionary's share: about 20 MB


@dataclass(frozen=True, slots=True)
class Keyed:
    """An item and the name of its text."""

    item: Item
    hash: str


class VectorCache:
    """Vectors of one pack (its id is their space), per namespace. Thread-safe."""

    def __init__(
        self,
        store: Store,
        space: str,
        towers: Towers,
        encoder: Engine | None,
        epochs: Epochs,
        *,
        prefix: str = "",
        without_encoder: DegradedReason = DegradedReason.NO_MODEL,
    ) -> None:
        """``prefix`` stands before each item's text; ``without_encoder`` says why there is no encoder."""
        self._store = store
        self._space = space
        self._towers = towers
        self._encoder = encoder
        self._prefix = prefix
        self._epochs = epochs
        self._without_encoder = without_encoder
        self._lock = threading.Lock()
        self._without_tokens: set[str] = set()
        self._remembered: OrderedDict[tuple[str, str], Vector] = OrderedDict()

    @property
    def space(self) -> str:
        """The pack whose vectors these are."""
        return self._space

    @property
    def without_encoder(self) -> DegradedReason:
        """Why no new item can be encoded; UNSPECIFIED when it can."""
        return self._without_encoder if self._encoder is None else DegradedReason.UNSPECIFIED

    def keyed(self, items: Sequence[Item]) -> list[Keyed]:
        """Items with the names of their texts."""
        return [Keyed(item, content_hash(item)) for item in items]

    def encodable(self, item: Keyed) -> bool:
        """Whether the item can have a vector: no text, or nothing but control strings, gives none."""
        return item.hash != NO_TEXT and item.hash not in self._without_tokens

    def known(self, owner: Owner, items: Sequence[Keyed]) -> dict[str, Vector]:
        """Vectors by hash, of those items that have one already."""
        namespace = owner.namespace
        found: dict[str, Vector] = {}
        missing: list[str] = []
        with self._lock:
            for item in items:
                key = (namespace, item.hash)
                vector = self._remembered.get(key)
                if vector is None:
                    missing.append(item.hash)
                else:
                    self._remembered.move_to_end(key)
                    found[item.hash] = vector
        if missing:
            try:
                rows = self._store.vectors(namespace, self._space, missing)
            except StoreError:
                # Vectors can be made again; the caller's context read reports a store that is down.
                rows = {}
            loaded = {
                hash_: np.frombuffer(data, dtype="<f2")
                for hash_, data in rows.items()
                if len(data) == 2 * self._towers.n_dims
            }
            self._epochs.during(owner, lambda: self._remember(namespace, loaded))
            found |= loaded
        return found

    def take(self, owner: Owner, items: Sequence[Keyed], vectors: Sequence[Vector]) -> None:
        """Keeps vectors: in memory at once, in the store soon; nothing if the owner's epoch is over."""
        by_hash = {item.hash: vector for item, vector in zip(items, vectors, strict=True)}
        rows = [
            (item.hash, item.item.id, vector.astype("<f2").tobytes())
            for item, vector in zip(items, vectors, strict=True)
        ]

        def keep() -> None:
            self._remember(owner.namespace, by_hash)
            self._store.put_vectors(owner.namespace, self._space, rows)

        self._epochs.during(owner, keep)

    def take_shipped(self, owner: Owner, candidates: Sequence[Candidate], keyed: Sequence[Keyed]) -> None:
        """Keeps vectors that came with the candidates, if this pack made them: they save the work."""
        shipped = [
            (key, np.clip(np.array(candidate.vector, np.float32), -_F16_MAX, _F16_MAX).astype(np.float16))
            for candidate, key in zip(candidates, keyed, strict=True)
            if candidate.vector_space == self._space and len(candidate.vector) == self._towers.n_dims
        ]
        if not shipped:
            return
        known = self.known(owner, [key for key, _ in shipped])
        new = [(key, vector) for key, vector in shipped if key.hash not in known]
        if new:
            self.take(owner, [key for key, _ in new], [vector for _, vector in new])

    def encode(
        self, owner: Owner, items: Sequence[Keyed], deadline: Deadline, *, background: bool = False
    ) -> tuple[dict[str, Vector], DegradedReason]:
        """Makes vectors in the order given while time remains, and keeps them."""
        if self._encoder is None:
            return {}, self._without_encoder
        wanted = [item for item in {item.hash: item for item in items}.values() if self.encodable(item)]
        try:
            texts = [item_pieces(item.item, self._prefix) for item in wanted]
            sequences = self._encoder.tokenize(texts, deadline)
        except EngineBusy:
            return {}, DegradedReason.MODEL_BUSY
        except EngineDied:
            return {}, DegradedReason.MODEL_UNAVAILABLE
        pairs = []
        for item, ids in zip(wanted, sequences, strict=True):
            if ids:
                pairs.append((item, ids[:MAX_ITEM_TOKENS]))
            else:
                self._without_tokens.add(item.hash)
        encoded: Encoded = self._encoder.encode([ids for _, ids in pairs], deadline, background=background)
        done = [item for item, _ in pairs[: len(encoded.vectors)]]
        if not done:
            return {}, REASONS[encoded.stop]
        vectors = list(self._towers.item_vectors(encoded.vectors))
        self.take(owner, done, vectors)
        return dict(zip((item.hash for item in done), vectors, strict=True)), REASONS[encoded.stop]

    def forget(self, namespace: str) -> None:
        """Drops what is in memory of a namespace."""
        with self._lock:
            for key in [key for key in self._remembered if key[0] == namespace]:
                del self._remembered[key]

    def _remember(self, namespace: str, vectors: dict[str, Vector]) -> None:
        with self._lock:
            for hash_, vector in vectors.items():
                self._remembered[namespace, hash_] = vector
            while len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
