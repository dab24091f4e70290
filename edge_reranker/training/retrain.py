"""What the full evaluation trains anew: towers on fewer users or items, and a prior behind another server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.models.pack import Head, TasteSettings
from edge_reranker.ranking import fusion
from edge_reranker.ranking.towers import Towers
from edge_reranker.training import prior, recipe
from edge_reranker.training.head import Recipe, train_head
from edge_reranker.types import Item


@dataclass(frozen=True, slots=True)
class Trainer:
    """The training that makes a pack, in the form that ``evaluation.full`` asks for."""

    taste: TasteSettings
    recipe: Recipe = field(default_factory=Recipe)

    def towers(
        self,
        items: Sequence[Item],
        hidden: NDArray[np.floating],
        users: Sequence[Sequence[Interaction]],
        seed: int,
    ) -> Towers:
        """Towers from ``users``' interactions with ``items``, whose hidden states are [n_items, n_embd].

        Rounded as a pack stores them. Interactions with other items are left out, as if they had not been.
        """
        ids = {item.id for item in items}
        kept = (each for past in users for each in past if each.item_id in ids)
        of_user = dict(Log.of(items, kept).of_users())
        # In the order given: the training's random numbers fall to users by their place.
        names = dict.fromkeys(past[0].user_id for past in users if past)
        histories = [recipe.history(of_user[name], self.taste) for name in names if name in of_user]
        arrays = train_head(hidden, histories, self.recipe, seed=seed)
        return Towers.of(Head(**{f.name: getattr(arrays, f.name).astype(np.float16) for f in fields(Head)}))

    def weights(self, listed: Sequence[lists.Listed], model: bool) -> fusion.Weights:
        """The mean of ``prior.fit``: what a user without feedback gets."""
        return prior.pooled(listed, model=model)
