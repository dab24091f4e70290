"""What an answer's scores were made of, so that they can be made again without some of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline
from edge_reranker.prompt import content_hash
from edge_reranker.ranking.context import Contexts
from edge_reranker.ranking.features import FEATURES, features, with_columns
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.partly import Weighed, weighed
from edge_reranker.ranking.profile import Profile
from edge_reranker.scoring import Tiers, TierScores, User
from edge_reranker.scoring.epochs import Owner
from edge_reranker.scoring.types import Columns
from edge_reranker.types import Item, RerankQuery

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one tier above 0 said, and what it would say of another profile; None: it is taken as it was."""

    columns: Columns
    again: Callable[[Profile, Deadline], Columns] | None = None


@dataclass(frozen=True, slots=True)
class Basis:
    """A request, the user it was answered for, and what each tier said: ``columns`` [n, k].

    ``weights`` are for where the encoder says something, ``without_model`` for where it does not: it takes
    over part of the rest. ``now_s`` is in seconds since 1970 UTC, ``spaces`` are the list's own vector spaces
    and ``vectors`` the history's in them, by item id. ``read`` [n] says which candidates tier 1 has reached,
    ``found`` is what all of it comes to.
    """

    tiers: Tiers
    weights: Weights
    without_model: Weights
    user: User
    query: RerankQuery
    now_s: float
    spaces: frozenset[str]
    vectors: Mapping[str, Mapping[str, Float32]]
    columns: Float64
    read: npt.NDArray[np.bool_]
    found: Weighed
    layers: tuple[Layer, ...] = ()

    @classmethod
    def of(
        cls,
        tiers: Tiers,
        weights: tuple[Weights, Weights],
        user: User,
        query: RerankQuery,
        now_s: float,
        deadline: Deadline,
    ) -> Basis:
        """With tier 0 alone; as many of the list's own vectors are kept as time allows."""
        spaces: frozenset[str] = frozenset()
        vectors: Mapping[str, Mapping[str, Float32]] = {}
        if tiers.public is not None:
            spaces = tiers.public.remember(user.owner, query.candidates, deadline)
            vectors = tiers.public.history(user.owner, spaces, user.profile, _keeper(user))
        columns = features(
            user.profile,
            query,
            now_s=now_s,
            taste=tiers.taste,
            named=tiers.named,
            history_vectors=vectors,
            contexts=user.contexts,
        )
        read = np.zeros(len(columns), np.bool_)
        found = _weighed(tiers, columns, read, *weights)
        return cls(tiers, *weights, user, query, now_s, spaces, vectors, columns, read, found)

    @property
    def reading_held(self) -> bool:
        """Whether a tier's columns stay as they are whatever the profile, and say something."""
        return any(
            layer.again is None and np.any(scores)
            for layer in self.layers
            for scores, _ in layer.columns.values()
        )

    @property
    def with_model(self) -> bool:
        """Whether the weights are those of a pack with its encoder."""
        return self.found.weights is not self.without_model

    def above(self, tier: int, column: str, result: TierScores) -> Basis:
        """With what the next tier says, of which ``column`` is the first."""
        said = {column: (result.scores, result.reached), **result.more}
        columns = with_columns(self.columns, said)
        read = result.reached if tier == 1 else self.read
        return dataclasses.replace(
            self,
            columns=columns,
            read=read,
            found=_weighed(self.tiers, columns, read, self.weights, self.without_model),
            layers=(*self.layers, Layer(said, result.again)),
        )

    def of_history(self, profile: Profile, contexts: Contexts, words: Float64, deadline: Deadline) -> Weighed:
        """What another history of the same user comes to, all else as it was, if there is time for it.

        ``words`` as in ``features``. Tiers that cannot tell keep their columns. Of a user of whom nothing is
        known they say nothing.
        """
        matrix = self._tier0(profile, contexts, words)
        for layer in self.layers:
            if layer.again is not None:
                matrix = with_columns(matrix, layer.again(profile, deadline))
            elif profile:
                matrix = with_columns(matrix, layer.columns)
        return _weighed(self.tiers, matrix, self.read, self.weights, self.without_model)

    def _tier0(self, profile: Profile, contexts: Contexts, words: Float64) -> Float64:
        return features(
            profile,
            self.query,
            now_s=self.now_s,
            taste=self.tiers.taste,
            named=self.tiers.named,
            history_vectors=self._vectors_of(profile),
            words=words,
            contexts=contexts,
        )

    def _vectors_of(self, profile: Profile) -> Mapping[str, Mapping[str, Float32]]:
        """The history's vectors in the list's own spaces; looked up only for what was no part of it."""
        known = {item.id for item in self.user.profile.items}
        new = tuple(item for item in profile.items if item.id not in known)
        if not new or self.tiers.public is None:
            return self.vectors
        asked = dataclasses.replace(profile, items=new)
        found = self.tiers.public.history(self.user.owner, self.spaces, asked, _keeper(self.user))
        return {space: {**found[space], **self.vectors[space]} for space in self.spaces}


def _weighed(
    tiers: Tiers, columns: Float64, read: npt.NDArray[np.bool_], ours: Weights, without: Weights
) -> Weighed:
    """Rounded to single precision: what is kept of a ranking is what it went by."""
    return weighed(columns, FEATURES + tiers.named, read, ours, without).single()


def _keeper(user: User) -> Callable[[Item], Owner]:
    def keeper(item: Item) -> Owner:
        return user.keeper(item.id, content_hash(item)) if user.lent else user.owner

    return keeper
