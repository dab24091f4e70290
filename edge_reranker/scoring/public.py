"""Vectors in a backend's own spaces: kept from the lists they came with, for when the user picks an item."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline
from edge_reranker.errors import StoreError
from edge_reranker.ranking.profile import Profile
from edge_reranker.scoring.epochs import Epochs, Owner
from edge_reranker.scoring.kept import Kept
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Event, Item

Float32 = npt.NDArray[np.float32]

# Of each namespace. Lists come and go; only what an event names is stored. 2,000 vectors of 1,024 numbers
# are 8 MB.
_MAX_REMEMBERED = 2_000


class PublicVectors:
    """Per namespace, space and item id. Thread-safe.

    A candidate's vector is public; that the user picked the item is not, so it stays on the device.
    """

    def __init__(self, store: Store, own_space: str, epochs: Epochs) -> None:
        """``own_space`` is the pack's: its vectors have a place of their own."""
        self._store = store
        self._own_space = own_space
        self._epochs = epochs
        self._lock = threading.Lock()
        self._remembered: Kept[tuple[str, str], Float32] = Kept(_MAX_REMEMBERED, each=True)
        self._missing: dict[str, set[tuple[str, str]]] = {}

    def remember(self, owner: Owner, candidates: Sequence[Candidate], deadline: Deadline) -> frozenset[str]:
        """Keeps the candidates' vectors for a while, as many as time allows; returns their spaces."""
        spaces = set()
        for candidate in candidates:
            space = candidate.vector_space
            if not space or space == self._own_space or not candidate.vector:
                continue
            if deadline.passed:
                break
            spaces.add(space)
            self._keep(owner, (space, candidate.id), np.array(candidate.vector, np.float32))
        return frozenset(spaces)

    def picked(self, owner: Owner, events: Sequence[Event]) -> None:
        """Stores the vectors of the events' items, as far as they came with a list before."""
        ids = {event.item.id for event in events if event.item is not None}
        rows: dict[str, list[tuple[str, str, bytes]]] = {}
        with self._lock:
            self._missing.pop(owner.namespace, None)
            for (space, item_id), vector in self._remembered.items(owner.namespace):
                if item_id in ids:
                    rows.setdefault(space, []).append(
                        (_key(item_id), item_id, vector.astype("<f4").tobytes())
                    )

        def store() -> None:
            for space, found in rows.items():
                self._store.put_vectors(owner.namespace, space, found)

        self._epochs.during(owner, store)

    def history(
        self,
        owner: Owner,
        spaces: frozenset[str],
        profile: Profile,
        keeper: Callable[[Item], Owner] | None = None,
    ) -> dict[str, dict[str, Float32]]:
        """By space and item id, the vectors of the history's items that are known.

        ``keeper`` says in whose namespace an item's are; without it, they are all the owner's.
        """
        kept_by: dict[Owner, list[str]] = {}
        for item in profile.items:
            kept_by.setdefault(keeper(item) if keeper is not None else owner, []).append(item.id)
        return {
            space: {
                item_id: vector
                for each, item_ids in kept_by.items()
                for item_id, vector in self._known(each, space, item_ids).items()
            }
            for space in spaces
        }

    def forget(self, namespace: str) -> None:
        """Drops what is in memory of a namespace."""
        with self._lock:
            self._missing.pop(namespace, None)
            self._remembered.forget(namespace)

    def _known(self, owner: Owner, space: str, item_ids: Sequence[str]) -> dict[str, Float32]:
        namespace = owner.namespace
        found: dict[str, Float32] = {}
        wanted: dict[str, str] = {}
        with self._lock:
            missing = self._missing.get(namespace, set())
            for item_id in item_ids:
                vector = self._remembered.get(namespace, (space, item_id))
                if vector is not None:
                    found[item_id] = vector
                elif (space, item_id) not in missing:
                    wanted[_key(item_id)] = item_id
        if wanted:
            try:
                rows = self._store.vectors(namespace, space, list(wanted))
            except StoreError:
                rows = {}
            for key_, data in rows.items():
                vector = np.frombuffer(data, dtype="<f4")
                found[wanted[key_]] = vector
                self._keep(owner, (space, wanted[key_]), vector)
            with self._lock:
                missing = self._missing.setdefault(namespace, set())
                if len(missing) > _MAX_REMEMBERED:
                    missing.clear()
                missing.update((space, item_id) for key_, item_id in wanted.items() if key_ not in rows)
        return found

    def _keep(self, owner: Owner, key: tuple[str, str], vector: Float32) -> None:
        self._epochs.during(owner, lambda: self._put(owner.namespace, key, vector))

    def _put(self, namespace: str, key: tuple[str, str], vector: Float32) -> None:
        with self._lock:
            self._missing.get(namespace, set()).discard(key)
            self._remembered.put(namespace, key, vector)


def _key(item_id: str) -> str:
    return f"id:{item_id}"
