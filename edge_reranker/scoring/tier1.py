"""Tier 1: the user's vector against each candidate's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline, Pace
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring.background import BackgroundEncoder
from edge_reranker.scoring.epochs import Epochs
from edge_reranker.scoring.types import TierScores, User
from edge_reranker.scoring.vectors import Keyed, Vector, VectorCache
from edge_reranker.types import DegradedReason, RerankQuery

# Encoding a few at a time lets a stream answer in between and costs nothing: one item is one decode.
_ENCODE_CHUNK = 8
# What the dot products and the fusion after the last encoding take, with room to spare.
_AFTERWARDS_MS = 2.0


_Column = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]


@dataclass(frozen=True, slots=True)
class _Taste:
    """What is known of a user: vectors, float32 [width], of the history and of its newest items, and what
    the pack's map of items says of the newest, float64 [n_items].
    """

    whole: npt.NDArray[np.float32]
    recent: npt.NDArray[np.float32]
    together: npt.NDArray[np.float64]


class VectorScorer:
    """Two towers on the encoder's hidden states (DESIGN chapter 5), and what the pack knows of items."""

    column = "towers"

    def __init__(
        self,
        vectors: VectorCache,
        towers: Towers,
        background: BackgroundEncoder,
        epochs: Epochs,
        item_to_item: ItemToItem | None = None,
    ) -> None:
        self._vectors = vectors
        self._towers = towers
        self._background = background
        self._epochs = epochs
        self._item_to_item = item_to_item
        self._lock = threading.Lock()
        self._users: dict[str, tuple[int, _Taste]] = {}
        self._look_up_pace = Pace()

    def score(
        self, user: User, query: RerankQuery, order: Sequence[int], deadline: Deadline
    ) -> Iterator[TierScores]:
        """Vectors that are known first; then new items from the top of ``order`` while time remains."""
        deadline = deadline.less_ms(_AFTERWARDS_MS)
        candidates = query.candidates
        work = query.work
        if deadline.remaining_ms() < self._look_up_pace.predict_ms(work):
            self._look_up_pace.refused()
            self._background.read(user.owner, candidates)
            n = len(candidates)
            yield TierScores(np.zeros(n), np.zeros(n, dtype=np.bool_), DegradedReason.DEADLINE)
            return
        start = time.perf_counter()
        keyed = self._vectors.keyed([candidate.item for candidate in candidates])
        self._vectors.take_shipped(user.owner, candidates, keyed)
        found = self._vectors.known(user.owner, keyed)
        self._look_up_pace.measured(work, (time.perf_counter() - start) * 1000.0)
        taste, history_reason = self._taste(user, deadline)
        more = self._liked_together(taste, keyed)
        missing = self._missing([keyed[index] for index in order], found)
        if not taste.whole.any():
            # Nothing is known of this user's taste, so nothing is reached; the vectors still get made.
            self._background.schedule(user.owner, missing)
            nothing = np.zeros(len(keyed), dtype=np.bool_)
            due = None if history_reason else nothing
            yield TierScores(np.zeros(len(keyed)), nothing, history_reason, due, more)
            return
        stop = self._vectors.without_encoder if missing else DegradedReason.UNSPECIFIED
        yield self._scored(taste, keyed, found, stop or history_reason, more)
        try:
            while missing and not stop:
                chunk, missing = missing[:_ENCODE_CHUNK], missing[_ENCODE_CHUNK:]
                made, stop = self._vectors.encode(user.owner, chunk, deadline)
                found |= made
                if stop:
                    missing = [item for item in chunk if item.hash not in made] + missing
                yield self._scored(taste, keyed, found, stop or history_reason, more)
        finally:
            # Also when a stream's reader has left in between.
            self._background.schedule(user.owner, missing)

    def forget(self, namespace: str) -> None:
        """Drops what is in memory of a namespace."""
        with self._lock:
            self._users.pop(namespace, None)

    def _missing(self, items: Sequence[Keyed], found: dict[str, Vector]) -> list[Keyed]:
        """Those that could have a vector and have none, each text once, in their order."""
        missing = {item.hash: item for item in items if item.hash not in found}
        return [item for item in missing.values() if self._vectors.encodable(item)]

    def _liked_together(self, taste: _Taste, candidates: Sequence[Keyed]) -> dict[str, _Column]:
        """What the pack knows of items that the same people like; no column without such a map."""
        if self._item_to_item is None:
            return {}
        hashes = [item.hash for item in candidates]
        return {"item_to_item": (self._item_to_item.scores(taste.together, hashes), None)}

    def _taste(self, user: User, deadline: Deadline) -> tuple[_Taste, DegradedReason]:
        """Zero when no history item has a vector; kept until the events change."""
        with self._lock:
            kept = self._users.get(user.namespace)
        if kept is not None and kept[0] == user.generation:
            return kept[1], DegradedReason.UNSPECIFIED
        history = self._vectors.keyed(user.profile.items)
        found = self._vectors.known(user.owner, history)
        missing = self._missing(history, found)
        reason = DegradedReason.UNSPECIFIED
        if missing:
            # Half of the time: a history without candidates would be worth as little as none.
            made, reason = self._vectors.encode(user.owner, missing, deadline.half())
            if not found and not made:
                # Half was not enough for one; without a single one, candidates' vectors are of no use.
                made, reason = self._vectors.encode(user.owner, missing, deadline)
            found |= made
            self._background.schedule(
                user.owner, [item for item in missing if item.hash not in made], first=True
            )
        newest = history[: len(user.profile.recent)]
        weights = user.profile.recent_weights
        together = np.zeros(0)
        if self._item_to_item is not None:
            together = self._item_to_item.user([item.hash for item in newest], weights)
        taste = _Taste(
            self._user_vector(found, history, user.profile.weights),
            self._user_vector(found, newest, weights),
            together,
        )
        if not reason:
            self._epochs.during(user.owner, lambda: self._remember(user, taste))
        return taste, reason

    def _user_vector(
        self, found: dict[str, Vector], items: Sequence[Keyed], weights: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """float32 [width] of the items that have a vector."""
        pairs = [
            (found[item.hash], weight)
            for item, weight in zip(items, weights, strict=True)
            if item.hash in found
        ]
        if not pairs:
            return np.zeros(self._towers.n_dims, dtype=np.float32)
        return self._towers.user_vector(
            np.stack([vector for vector, _ in pairs]), np.array([weight for _, weight in pairs])
        )

    def _remember(self, user: User, taste: _Taste) -> None:
        with self._lock:
            self._users[user.namespace] = (user.generation, taste)

    def _scored(
        self,
        taste: _Taste,
        keyed: Sequence[Keyed],
        found: dict[str, Vector],
        reason: DegradedReason,
        more: Mapping[str, _Column],
    ) -> TierScores:
        reached = np.array([item.hash in found for item in keyed], dtype=np.bool_)
        scores, recent = np.zeros((2, len(keyed)))
        if reached.any():
            rows = np.stack([found[item.hash] for item in keyed if item.hash in found])
            scores[reached] = self._towers.scores(taste.whole, rows)
            recent[reached] = self._towers.scores(taste.recent, rows)
        due = reached | np.array([self._vectors.encodable(item) for item in keyed], dtype=np.bool_)
        return TierScores(scores, reached, reason, due, {**more, "towers_recent": (recent, reached)})
