"""Tier 1: the user's vector against each candidate's, and the query's."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import LEAST_CANDIDATES, LEAST_CHARACTERS, Deadline, Paces
from edge_reranker.ranking.affinity import Affinity, Column, Likes
from edge_reranker.ranking.profile import Profile
from edge_reranker.scoring.background import BackgroundEncoder
from edge_reranker.scoring.epochs import Epochs, Owner
from edge_reranker.scoring.plan import Plan
from edge_reranker.scoring.types import Columns, TierScores, User
from edge_reranker.scoring.vectors import Keyed, Vector, VectorCache
from edge_reranker.types import DegradedReason, Item, RerankQuery

# Encoding a few at a time lets a stream answer in between and costs nothing: one item is one decode.
_ENCODE_CHUNK = 8
# Room to spare beside what the columns after the last encoding are predicted to take.
_ROOM_MS = 1.0


@dataclass(frozen=True, slots=True)
class History:
    """What is known of a user, and the vectors by hash that it was made of."""

    likes: Likes
    vectors: Mapping[str, Vector]


class VectorScorer:
    """Two towers on the encoder's hidden states, what these say themselves (DESIGN chapter 5), and what the
    pack knows of items.
    """

    # The one that speaks of every candidate with a vector.
    column = "query_content"

    def __init__(
        self, vectors: VectorCache, affinity: Affinity, background: BackgroundEncoder, epochs: Epochs
    ) -> None:
        self._vectors = vectors
        self._affinity = affinity
        self._background = background
        self._epochs = epochs
        self._lock = threading.Lock()
        self._users: dict[str, tuple[int, History]] = {}
        self._look_up_paces = Paces(None, LEAST_CHARACTERS)
        self._columns_paces = Paces(None, LEAST_CANDIDATES)

    @property
    def reads_queries(self) -> bool:
        """Whether it compares candidates with the query."""
        return self._vectors.reads_queries

    @property
    def reads_lists(self) -> bool:
        """Whether what it says of a candidate depends on the others that were read: so it needs them all."""
        return self._affinity.centred == "list"

    def score(
        self,
        user: User,
        query: RerankQuery,
        order: Sequence[int],
        deadline: Deadline,
        plan: Plan | None = None,
    ) -> Iterator[TierScores]:
        """Vectors that are known first; then new items while time remains, as the ``plan`` has them.

        Without one, all from the top of ``order``.
        """
        candidates = query.candidates
        columns_ms = self._columns_paces.of(user.namespace).predict_ms(len(candidates))
        deadline = deadline.less_ms(_ROOM_MS + columns_ms)
        work = query.work
        look_up_pace = self._look_up_paces.of(user.namespace)
        if deadline.remaining_ms() < look_up_pace.predict_ms(work):
            look_up_pace.refused()
            self._background.read(user.owner, candidates)
            n = len(candidates)
            yield TierScores(np.zeros(n), np.zeros(n, dtype=np.bool_), DegradedReason.DEADLINE)
            return
        start = time.perf_counter()
        keyed = self._vectors.keyed([candidate.item for candidate in candidates])
        self._vectors.take_shipped(user.owner, candidates, keyed)
        found = self._vectors.known(user.owner, keyed)
        look_up_pace.measured(work, (time.perf_counter() - start) * 1000.0)
        history, reason = self._history(user, deadline)
        asked, query_reason = self._vectors.query(user.owner, query.query, deadline)
        reason = reason or query_reason
        missing = self._missing(user.owner, [keyed[index] for index in order], found)
        if not history.likes.has_vector and asked is None:
            # Nothing is known of this user's taste, so nothing is reached; the vectors still get made.
            self._background.schedule(user.owner, list(missing.values()))
            nothing = np.zeros(len(keyed), dtype=np.bool_)
            scored = self._scored(user, history, keyed, found, reason, asked)
            yield dataclasses.replace(scored, due=None if reason else nothing, left=None)
            return
        stop = self._vectors.without_encoder if missing else DegradedReason.UNSPECIFIED
        yield self._scored(user, history, keyed, found, stop or reason, asked)
        try:
            while not stop and (chunk := _next(keyed, missing, plan)):
                made, stop = self._vectors.encode(user.owner, chunk, deadline)
                found |= made
                for item in chunk:
                    if item.hash in made or not stop:
                        del missing[item.hash]
                yield self._scored(user, history, keyed, found, stop or reason, asked)
        finally:
            # Also when a stream's reader has left in between.
            self._background.schedule(user.owner, list(missing.values()))

    def forget(self, namespace: str) -> None:
        """Drops what is in memory of a namespace."""
        with self._lock:
            self._users.pop(namespace, None)

    def _missing(self, owner: Owner, items: Sequence[Keyed], found: dict[str, Vector]) -> dict[str, Keyed]:
        """Those that could have a vector and have none, by their text, in their order."""
        missing = {item.hash: item for item in items if item.hash not in found}
        return {name: item for name, item in missing.items() if self._vectors.encodable(owner, item)}

    def _history(self, user: User, deadline: Deadline) -> tuple[History, DegradedReason]:
        """Nothing when no history item has a vector; kept until the events change."""
        with self._lock:
            kept = self._users.get(user.namespace)
        if kept is not None and kept[0] == user.generation:
            return kept[1], DegradedReason.UNSPECIFIED
        history = self._vectors.keyed(user.profile.items)
        found: dict[str, Vector] = {}
        missing: list[tuple[Owner, list[Keyed]]] = []
        for owner, items in _by_keeper(user, history):
            found |= self._vectors.known(owner, items)
            if new := self._missing(owner, items, found):
                missing.append((owner, list(new.values())))
        reason = DegradedReason.UNSPECIFIED
        if missing:
            # Half of the time: a history without candidates would be worth as little as none.
            made, reason = self._encoded(missing, deadline.half())
            if not found and not made:
                # Half was not enough for one; without a single one, candidates' vectors are of no use.
                made, reason = self._encoded(missing, deadline)
            found |= made
            for owner, items in missing:
                left = [item for item in items if item.hash not in made]
                self._background.schedule(owner, left, first=True)
        made_of = History(self._likes(user.profile, [item.hash for item in history], found), found)
        if not reason:
            self._epochs.during(user.owner, lambda: self._remember(user, made_of))
        return made_of, reason

    def _likes(self, profile: Profile, names: Sequence[str], vectors: Mapping[str, Vector]) -> Likes:
        """``names`` are the hashes of the profile's items."""
        return self._affinity.likes(
            vectors,
            (names, profile.weights),
            (names[: len(profile.recent)], profile.recent_weights),
        )

    def _encoded(
        self, missing: Sequence[tuple[Owner, list[Keyed]]], deadline: Deadline
    ) -> tuple[dict[str, Vector], DegradedReason]:
        made: dict[str, Vector] = {}
        reason = DegradedReason.UNSPECIFIED
        for owner, items in missing:
            more, stop = self._vectors.encode(owner, items, deadline)
            made |= more
            reason = reason or stop
        return made, reason

    def _remember(self, user: User, history: History) -> None:
        with self._lock:
            self._users[user.namespace] = (user.generation, history)

    def _scored(
        self,
        user: User,
        history: History,
        keyed: Sequence[Keyed],
        found: dict[str, Vector],
        reason: DegradedReason,
        asked: npt.NDArray[np.float32] | None,
    ) -> TierScores:
        start = time.perf_counter()
        names = [item.hash for item in keyed]
        more = self._columns(history.likes, names, found, asked)
        scores, reached = more.pop(self.column)
        due = reached | np.array(
            [self._vectors.encodable(user.owner, item) for item in keyed], dtype=np.bool_
        )
        columns_ms = (time.perf_counter() - start) * 1000.0
        self._columns_paces.of(user.namespace).measured(len(keyed), columns_ms)

        def vectors(indices: Sequence[int]) -> npt.NDArray[np.floating]:
            return self._affinity.content([names[index] for index in indices], found)

        again = self._again(user, history.vectors, names, dict(found), asked)
        return TierScores(scores, reached, reason, due, due & ~reached, more, vectors, again)

    def _columns(
        self,
        likes: Likes,
        names: Sequence[str],
        found: Mapping[str, Vector],
        asked: npt.NDArray[np.float32] | None,
    ) -> dict[str, Column]:
        """Of candidates by hash; where nothing is known to compare them with, none is reached."""
        known = found if likes.has_vector or asked is not None else {}
        return self._affinity.columns(likes, names, known, asked)

    def _again(
        self,
        user: User,
        vectors: Mapping[str, Vector],
        names: Sequence[str],
        found: Mapping[str, Vector],
        asked: npt.NDArray[np.float32] | None,
    ) -> Callable[[Profile, Deadline], Columns]:
        hashes: dict[int, str] = {}  # by the item itself: the user's context holds on to it

        def hash_of(item: Item) -> str:
            return hashes.get(id(item)) or hashes.setdefault(id(item), self._vectors.keyed([item])[0].hash)

        def again(profile: Profile, deadline: Deadline) -> Columns:
            history = [Keyed(item, hash_of(item)) for item in profile.items]
            # Only what was no part of the history is looked up: what had no vector then has none now.
            then = {hash_of(item) for item in user.profile.items}
            new = [each for each in history if each.hash not in then]
            more: dict[str, Vector] = {}
            for owner, items in _by_keeper(user, new):
                more |= self._vectors.known(owner, items)
                if missing := self._missing(owner, items, more):
                    more |= self._vectors.encode(owner, list(missing.values()), deadline)[0]
            likes = self._likes(profile, [each.hash for each in history], {**more, **vectors})
            return self._columns(likes, names, found, asked)

        return again


def _next(keyed: Sequence[Keyed], missing: Mapping[str, Keyed], plan: Plan | None) -> list[Keyed]:
    """The items to encode next, of those ``missing``; none when that is enough."""
    if plan is None:
        return list(missing.values())[:_ENCODE_CHUNK]
    left = {index for index, item in enumerate(keyed) if item.hash in missing}
    names = dict.fromkeys(keyed[index].hash for index in plan.next(left))
    return [missing[name] for name in list(names)[:_ENCODE_CHUNK]]


def _by_keeper(user: User, history: Sequence[Keyed]) -> list[tuple[Owner, list[Keyed]]]:
    """The history's items by who keeps their vectors; the user's own come first."""
    kept_by: dict[Owner, list[Keyed]] = {user.owner: []}
    for each in history:
        kept_by.setdefault(user.keeper(each.item.id, each.hash), []).append(each)
    return list(kept_by.items())
