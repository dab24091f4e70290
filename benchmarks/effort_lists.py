"""Cold lists, read item by item, and their orders on the way: a simulation of the clock, of nothing else.

Scores, plans and orders come from the code that serves; only the encoder's time is reckoned, at so many
milliseconds an item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, log
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.models.pack import Pack
from edge_reranker.pipeline.reading import Reading
from edge_reranker.ranking import effort, features, fusion, profile
from edge_reranker.ranking.affinity import Likes
from edge_reranker.ranking.features import FEATURES, OF_THE_ENCODER
from edge_reranker.ranking.partly import Weighed, weighed
from edge_reranker.scoring import Plan, TierScores, User
from edge_reranker.scoring.epochs import Owner
from edge_reranker.types import Context, Effort, RerankQuery

FROM_THE_TOP = "from the top"
BY_GAIN = "by gain"
SETTLED = "until settled"
ARMS = (FROM_THE_TOP, BY_GAIN, SETTLED)

_CHUNK = 8  # as tier 1 encodes
_OF_THE_ENCODER = [FEATURES.index(name) for name in sorted(OF_THE_ENCODER)]
Order = NDArray[np.intp]
Orders = Callable[[Sequence[int]], Order]


@dataclass(frozen=True, slots=True)
class Cold:
    """One user's list of whose candidates none has a vector; ``targets`` as in Listed."""

    cut: Cut
    user: User
    query: RerankQuery
    matrix: NDArray[np.float64]
    likes: Likes
    targets: tuple[int | None, ...]

    def places(self, order: Order) -> list[int]:
        """See Listed.places."""
        return lists.Listed(self.cut, self.matrix, self.targets).places(order)


@dataclass(frozen=True, slots=True)
class Walk:
    """The candidates in the order in which they are read, and the list's order by how many were."""

    read: Sequence[int]
    orders: dict[int, Order]

    def at(self, n: int) -> tuple[int, Order]:
        """How many of ``n`` that there is time for are read, and the order then."""
        n = min(n, len(self.read))
        return n, self.orders[n]


class Reader:
    """Reads a pack's cold lists in three ways."""

    def __init__(self, pack: Pack, lister: lists.Lister) -> None:
        assert lister.learned is not None
        self._learned = lister.learned
        self._lister = lister
        self._ours = fusion.Weights.of(pack.manifest.fusion)
        self._without = fusion.Weights.of(pack.manifest.without_model)

    def cold(self, cut: Cut) -> Cold:
        """The server's list at ``cut``."""
        lister, learned = self._lister, self._learned
        seen = {each.item_id for each in cut.history}
        query = RerankQuery(tuple(lister.server.candidates(cut.history, seen, lister.n)))
        context = Context(log.events(cut.history, lister.items))
        user = profile.profile(context, lister.taste)
        likes = learned.affinity.likes(
            learned.vector_of,
            ([learned.hash_of[item.id] for item in user.items], user.weights),
            ([learned.hash_of[item.id] for item in user.recent], user.recent_weights),
        )
        matrix = features.features(user, query, now_s=cut.now_s, taste=lister.taste)
        at = {candidate.id: index for index, candidate in enumerate(query.candidates)}
        targets = tuple(at.get(target) for target in cut.targets)
        return Cold(cut, User(Owner("", 0), 0, context, user), query, matrix, likes, targets)

    def scores(self, cold: Cold) -> NDArray[np.float64]:
        """The fused scores before any is read."""
        matrix, _ = self._result(cold, self._mask(cold, []))
        return fusion.fuse(matrix, FEATURES, self._without)

    def walk(self, cold: Cold, arm: str, stops: Sequence[int], price: float = effort.PRICE) -> Walk:
        """One list read as ``arm`` says, with its orders after each of ``stops`` and at the end."""
        steps = self._from_the_top(cold) if arm == FROM_THE_TOP else self._planned(cold, arm, price)
        read: list[int] = []
        orders: dict[int, Order] = {}
        for chunk, order_of in steps:
            before = len(read)
            read += chunk
            orders |= {n: order_of(chunk[: n - before]) for n in stops if before <= n <= len(read)}
        orders.setdefault(len(read), order_of([]))  # by now it has taken in all that was read
        return Walk(read, orders)

    def _mask(self, cold: Cold, read: Sequence[int]) -> NDArray[np.bool_]:
        mask = np.zeros(len(cold.matrix), np.bool_)
        mask[list(read)] = True
        return mask

    def _result(self, cold: Cold, read: NDArray[np.bool_]) -> tuple[NDArray[np.float64], TierScores]:
        """What tier 1 says when these have vectors, as ``VectorScorer`` has it."""
        hashes = [self._learned.hash_of[candidate.id] for candidate in cold.query.candidates]
        found = {hashes[index]: self._learned.vector_of[hashes[index]] for index in np.flatnonzero(read)}
        more = self._learned.affinity.columns(cold.likes, hashes, found)
        matrix = features.with_columns(cold.matrix, more)
        scores, reached = more.pop("query_content")
        return matrix, TierScores(scores, reached, left=~reached, more=more)

    def _from_the_top(self, cold: Cold) -> Iterator[tuple[list[int], Orders]]:
        """As it was: tier 0's order until time is up; the weights with the model from the first vector on."""
        top = fusion.order(fusion.fuse(cold.matrix, FEATURES, self._without)).tolist()
        if not cold.likes.has_vector:
            top = []
        done: list[int] = []

        def order_of(more: Sequence[int]) -> Order:
            matrix, _ = self._result(cold, self._mask(cold, [*done, *more]))
            weights = self._ours if matrix[:, _OF_THE_ENCODER].any() else self._without
            return fusion.order(fusion.fuse(matrix, FEATURES, weights))

        yield [], order_of
        for start in range(0, len(top), _CHUNK):
            yield top[start : start + _CHUNK], order_of
            done += top[start : start + _CHUNK]

    def _planned(self, cold: Cold, arm: str, price: float) -> Iterator[tuple[list[int], Orders]]:
        """As the pipeline and tier 1 do it together."""
        query = replace(cold.query, effort=Effort.SETTLED if arm == SETTLED else Effort.FULL)
        whole = self._learned.affinity.centred == "list"
        plan = Plan(query, full=whole, price=price)
        reading = Reading(self._ours, cold.user, query, plan)
        done: list[int] = []

        def took(more: Sequence[int]) -> Weighed:
            read = self._mask(cold, [*done, *more])
            matrix, result = self._result(cold, read)
            found = weighed(matrix, FEATURES, read, self._ours, self._without).single()
            reading.took(1, found, result)
            return found

        def order_of(more: Sequence[int]) -> Order:
            return fusion.order(took(more).scores)

        chunk: list[int] = []
        while True:
            yield chunk, order_of
            done += chunk
            took([])
            left = set(range(len(cold.matrix))) - set(done)
            chunk = plan.next(left)[:_CHUNK] if cold.likes.has_vector else []
            if not chunk:
                return
