"""Lists as the service would see them: one server's candidates for one user at one moment.

Everything here calls the functions that serve; nothing is scored in a second way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import log
from edge_reranker.evaluation.log import Interaction
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.ranking import features, fusion, profile
from edge_reranker.ranking.towers import Towers
from edge_reranker.types import Context, Item, RerankQuery

NAMES = features.FEATURES


@dataclass(frozen=True, slots=True)
class Vectors:
    """Every item's vector by id, and the towers that made them."""

    towers: Towers
    of_item: Mapping[str, NDArray[np.float16]]

    @classmethod
    def make(cls, towers: Towers, items: Sequence[Item], hidden: NDArray[np.floating]) -> Vectors:
        """Vectors of ``items`` from their hidden states, aligned, [n_items, n_embd]."""
        if len(items) != len(hidden):
            raise ValueError(f"{len(items)} items but {len(hidden)} rows of hidden states")
        vectors = towers.item_vectors(hidden)
        return cls(towers, {item.id: vector for item, vector in zip(items, vectors, strict=True)})


@dataclass(frozen=True, slots=True)
class Listed:
    """A list and what was liked of it. ``targets`` are indices into the list, None when it lacks one."""

    cut: Cut
    matrix: NDArray[np.float64]
    targets: tuple[int | None, ...]

    def places(self, order: NDArray[np.intp]) -> list[int]:
        """Each target's place in ``order``, from 1; 0 when the list does not have it."""
        place_of = np.empty(len(order), np.int64)
        place_of[order] = np.arange(1, len(order) + 1)
        return [0 if at is None else int(place_of[at]) for at in self.targets]


@dataclass(frozen=True, slots=True)
class Lister:
    """Makes lists: a server's first ``n``, seen items left out, with all features."""

    server: PopularityServer
    items: Mapping[str, Item]
    taste: profile.Taste
    vectors: Vectors | None = None
    n: int = 100

    def listed(self, cut: Cut, *, known: Sequence[Interaction] | None = None) -> Listed:
        """The list at ``cut``; ``known`` replaces what the device knows (not what the server leaves out)."""
        candidates = self.server.candidates({each.item_id for each in cut.history}, self.n)
        query = RerankQuery(candidates)
        history = cut.history if known is None else known
        user = profile.profile(Context(log.events(history, self.items)), self.taste)
        matrix = features.features(user, query, now_s=cut.now_s, taste=self.taste)
        if self.vectors is not None and candidates:
            matrix = features.with_column(matrix, "towers", self._affinity(user, query))
        at = {candidate.id: index for index, candidate in enumerate(candidates)}
        return Listed(cut, matrix, tuple(at.get(target) for target in cut.targets))

    def _affinity(self, user: profile.Profile, query: RerankQuery) -> NDArray[np.float32]:
        assert self.vectors is not None  # noqa: S101  (callers checked; for the type checker)
        towers, of_item = self.vectors.towers, self.vectors.of_item
        history = [of_item[item.id] for item in user.items]
        vector = towers.user_vector(np.array(history), user.weights)
        return towers.scores(vector, np.stack([of_item[c.id] for c in query.candidates]))


def places(lists: Sequence[Listed], weights: fusion.Weights) -> NDArray[np.int64]:
    """Every case's place, cases in order of ``lists`` and targets, after fusion with ``weights``."""
    found: list[int] = []
    for listed in lists:
        found.extend(listed.places(fusion.order(fusion.fuse(listed.matrix, NAMES, weights))))
    return np.array(found, np.int64)


def server_places(lists: Sequence[Listed]) -> NDArray[np.int64]:
    """Every case's place in the server's own order."""
    return np.array([p for each in lists for p in each.places(np.arange(len(each.matrix)))], np.int64)


def users(lists: Sequence[Listed]) -> list[str]:
    """Every case's user."""
    return [listed.cut.user_id for listed in lists for _ in listed.targets]


def choices(lists: Sequence[Listed]) -> list[fusion.Choices]:
    """The lists as a choice model sees them; targets that a list does not have are no choices."""
    by_length: dict[int, list[Listed]] = {}
    for listed in lists:
        if any(at is not None for at in listed.targets):
            by_length.setdefault(len(listed.matrix), []).append(listed)
    result = []
    for n, group in sorted(by_length.items()):
        matrix = np.stack([listed.matrix for listed in group])
        counts = np.zeros((len(group), n))
        for row, listed in enumerate(group):
            for at in listed.targets:
                if at is not None:
                    counts[row, at] += 1
        offset = matrix[:, :, NAMES.index("server_rank")]
        result.append(fusion.Choices(matrix, counts, offset))
    return result
