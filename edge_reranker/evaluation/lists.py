"""Lists as the service would see them: one server's candidates for one user at one moment.

Everything here calls the functions that serve; nothing is scored in a second way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import log
from edge_reranker.evaluation.log import Interaction
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.evaluation.servers import Server
from edge_reranker.models.pack import Pack
from edge_reranker.prompt import content_hash
from edge_reranker.ranking import features, fusion, profile
from edge_reranker.ranking.affinity import Affinity
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.towers import Towers
from edge_reranker.types import Candidate, Context, Item, RerankQuery

NAMES = features.FEATURES


@dataclass(frozen=True, slots=True)
class Learned:
    """What a pack has learned, looked up for a catalogue: every text's vector, every item's text.

    ``vector_of`` is by content hash, ``hash_of`` by the item's id.
    """

    affinity: Affinity
    vector_of: Mapping[str, NDArray[np.float16]]
    hash_of: Mapping[str, str]

    @classmethod
    def make(
        cls,
        towers: Towers,
        item_to_item: ItemToItem | None,
        items: Sequence[Item],
        hidden: NDArray[np.floating],
        texts: Sequence[Item] | None = None,
        *,
        centred: Literal["pack", "list"] = "pack",
    ) -> Learned:
        """For ``items`` with their hidden states, aligned, [n_items, n_embd].

        ``texts``, aligned as well, are the items whose texts the map takes theirs for; None: themselves.
        """
        if len(items) != len(hidden):
            raise ValueError(f"{len(items)} items but {len(hidden)} rows of hidden states")
        hashes = [content_hash(item) for item in texts or items]
        vectors = dict(zip(hashes, towers.item_vectors(hidden), strict=True))
        return cls(
            Affinity(towers, item_to_item, centred),
            vectors,
            {item.id: name for item, name in zip(items, hashes, strict=True)},
        )

    @classmethod
    def of(cls, pack: Pack, items: Sequence[Item], hidden: NDArray[np.floating]) -> Learned:
        """What ``pack`` has learned."""
        map_of = None if pack.item_to_item is None else ItemToItem.of(pack.item_to_item)
        return cls.make(Towers.of(pack.head), map_of, items, hidden, centred=pack.manifest.centred)

    def columns(
        self, matrix: NDArray[np.float64], user: profile.Profile, candidates: Sequence[str]
    ) -> NDArray[np.float64]:
        """``matrix`` with all that tier 1 says of the candidates, by their ids."""
        likes = self.affinity.likes(
            self.vector_of,
            ([self.hash_of[item.id] for item in user.items], user.weights),
            ([self.hash_of[item.id] for item in user.recent], user.recent_weights),
        )
        found = self.affinity.columns(likes, [self.hash_of[each] for each in candidates], self.vector_of)
        return features.with_columns(matrix, found)


@dataclass(frozen=True, slots=True)
class Listed:
    """A list and what was liked of it. ``targets`` are indices into the list, None when it lacks one.

    ``matrix`` has a row for each of ``items``, in the server's order; ``known`` is what the device knew.
    """

    cut: Cut
    matrix: NDArray[np.float64]
    targets: tuple[int | None, ...]
    items: tuple[Item, ...] = ()
    known: tuple[Interaction, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The items' ids."""
        return tuple(item.id for item in self.items)

    def places(self, order: NDArray[np.intp]) -> list[int]:
        """Each target's place in ``order``, from 1; 0 when the list does not have it."""
        place_of = np.empty(len(order), np.int64)
        place_of[order] = np.arange(1, len(order) + 1)
        return [0 if at is None else int(place_of[at]) for at in self.targets]


@dataclass(frozen=True, slots=True)
class Lister:
    """Makes lists: a server's first ``n``, seen items left out, with all features."""

    server: Server
    items: Mapping[str, Item]
    taste: profile.Taste
    learned: Learned | None = None
    n: int = 100

    def listed(self, cut: Cut, *, known: Sequence[Interaction] | None = None) -> Listed:
        """The list at ``cut``; ``known`` replaces what the device knows (not what the server leaves out)."""
        seen = {each.item_id for each in cut.history}
        return self.among(cut, self.server.candidates(cut.history, seen, self.n), known=known)

    def among(
        self, cut: Cut, candidates: Sequence[Candidate], *, known: Sequence[Interaction] | None = None
    ) -> Listed:
        """The list of ``candidates`` at ``cut``, in their order."""
        query = RerankQuery(tuple(candidates))
        history = cut.history if known is None else known
        ids = tuple(candidate.id for candidate in candidates)
        user = self._user(history)
        matrix = features.features(user, query, now_s=cut.now_s, taste=self.taste)
        if self.learned is not None:
            matrix = self.learned.columns(matrix, user, ids)
        at = {item_id: index for index, item_id in enumerate(ids)}
        targets = tuple(at.get(target) for target in cut.targets)
        return Listed(cut, matrix, targets, tuple(each.item for each in candidates), tuple(history))

    def knowing(self, listed: Listed, learned: Learned) -> Listed:
        """``listed`` as it would be had this been learned; cheaper than making it again."""
        return replace(listed, matrix=learned.columns(listed.matrix, self._user(listed.known), listed.ids))

    def _user(self, history: Sequence[Interaction]) -> profile.Profile:
        return profile.profile(Context(log.events(history, self.items)), self.taste)


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
