"""Item vectors: remembered, stored, or made by the encoder, each item text once."""

from __future__ import annotations

import threading
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
from edge_reranker.scoring.kept import Kept
from edge_reranker.scoring.types import REASONS
from edge_reranker.store import Store
from edge_reranker.types import Candidate, DegradedReason, Item, Piece

Vector = npt.NDArray[np.float16]

# About 60 ms on two laptop cores; what follows seldom changes what an item is.
MAX_ITEM_TOKENS = 96
_F16_MAX = float(np.finfo(np.float16).max)
# With the dictionary's share, 200 bytes a vector more, about 20 MB.
_MAX_REMEMBERED_BYTES = 10 * 1024 * 1024
_MAX_QUERIES = 64
_MAX_WITHOUT_TOKENS = 10_000


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
        self._without_tokens: Kept[str, bool] = Kept(_MAX_WITHOUT_TOKENS)
        self._remembered: Kept[str, Vector] = Kept(_MAX_REMEMBERED_BYTES // (2 * towers.n_dims))
        self._queries: Kept[str, Vector] = Kept(_MAX_QUERIES)

    @property
    def space(self) -> str:
        """The pack whose vectors these are."""
        return self._space

    @property
    def without_encoder(self) -> DegradedReason:
        """Why no new item can be encoded; UNSPECIFIED when it can."""
        return self._without_encoder if self._encoder is None else DegradedReason.UNSPECIFIED

    @property
    def reads_queries(self) -> bool:
        """Whether a query's vector says anything: only the content part is about texts."""
        return self._towers.n_learned < self._towers.n_dims

    def keyed(self, items: Sequence[Item]) -> list[Keyed]:
        """Items with the names of their texts."""
        return [Keyed(item, content_hash(item)) for item in items]

    def encodable(self, owner: Owner, item: Keyed) -> bool:
        """Whether the item can have a vector: no text, or nothing but control strings, gives none.

        The latter turns out when the owner's item is tried: what another met says nothing here.
        """
        return item.hash != NO_TEXT and not self._without_tokens.get(owner.namespace, item.hash)

    def known(self, owner: Owner, items: Sequence[Keyed]) -> dict[str, Vector]:
        """Vectors by hash, of those items that have one already."""
        namespace = owner.namespace
        found: dict[str, Vector] = {}
        missing: list[str] = []
        with self._lock:
            for item in items:
                vector = self._remembered.get(namespace, item.hash)
                if vector is None:
                    missing.append(item.hash)
                else:
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
        distinct = {item.hash: item for item in items}.values()
        wanted = [item for item in distinct if self.encodable(owner, item)]
        vectors, reason = self._made(
            [item_pieces(item.item, self._prefix) for item in wanted], deadline, background=background
        )
        empty = [wanted[at].hash for at, vector in vectors.items() if not vector.size]
        self._epochs.during(owner, lambda: self._remember_empty(owner.namespace, empty))
        made = [(wanted[at], vector) for at, vector in vectors.items() if vector.size]
        if made:
            self.take(owner, [item for item, _ in made], [vector for _, vector in made])
        return {item.hash: vector for item, vector in made}, reason

    def _made(
        self, texts: Sequence[Sequence[Piece]], deadline: Deadline, *, background: bool = False
    ) -> tuple[dict[int, Vector], DegradedReason]:
        """Vectors by the texts' indices, as far as time allows; an empty one for a text without a token."""
        if self._encoder is None:
            return {}, self._without_encoder
        try:
            sequences = self._encoder.tokenize(texts, deadline)
        except EngineBusy:
            return {}, DegradedReason.MODEL_BUSY
        except EngineDied:
            return {}, DegradedReason.MODEL_UNAVAILABLE
        found = {at: np.zeros(0, np.float16) for at, ids in enumerate(sequences) if not ids}
        telling = [at for at, ids in enumerate(sequences) if ids]
        encoded: Encoded = self._encoder.encode(
            [sequences[at][:MAX_ITEM_TOKENS] for at in telling], deadline, background=background
        )
        if not len(encoded.vectors):
            return found, REASONS[encoded.stop]
        vectors = self._towers.item_vectors(encoded.vectors)
        return found | dict(zip(telling, vectors, strict=False)), REASONS[encoded.stop]

    def query(
        self, owner: Owner, text: str, deadline: Deadline
    ) -> tuple[npt.NDArray[np.float32] | None, DegradedReason]:
        """The vector of what the user asked for; None without a text, an encoder or time.

        It is a user's own words: it stays in memory, and goes with the next forget.
        """
        if not text or not self.reads_queries:
            return None, DegradedReason.UNSPECIFIED
        with self._lock:
            vector = self._queries.get(owner.namespace, text)
        if vector is not None:
            return vector.astype(np.float32), DegradedReason.UNSPECIFIED
        vectors, reason = self._made([item_pieces(Item("", text), self._prefix)], deadline)
        if 0 not in vectors or not vectors[0].size:
            return None, reason
        self._epochs.during(owner, lambda: self._remember_query(owner.namespace, text, vectors[0]))
        return vectors[0].astype(np.float32), DegradedReason.UNSPECIFIED

    def forget(self, namespace: str) -> None:
        """Drops what is in memory of a namespace."""
        with self._lock:
            self._remembered.forget(namespace)
            self._queries.forget(namespace)
            self._without_tokens.forget(namespace)

    def _remember_query(self, namespace: str, text: str, vector: Vector) -> None:
        with self._lock:
            self._queries.put(namespace, text, vector)

    def _remember_empty(self, namespace: str, hashes: Sequence[str]) -> None:
        with self._lock:
            for hash_ in hashes:
                self._without_tokens.put(namespace, hash_, True)

    def _remember(self, namespace: str, vectors: dict[str, Vector]) -> None:
        with self._lock:
            for hash_, vector in vectors.items():
                self._remembered.put(namespace, hash_, vector)
