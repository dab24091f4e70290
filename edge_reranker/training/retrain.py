"""What the full evaluation trains anew: towers on fewer users or items, and a prior behind another server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.models.pack import TasteSettings
from edge_reranker.ranking import fusion
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.towers import Towers
from edge_reranker.training import prior, recipe
from edge_reranker.training.head import Recipe
from edge_reranker.training.item_to_item import Settings
from edge_reranker.types import Item


@dataclass(frozen=True, slots=True)
class Trainer:
    """The training that makes a pack, in the form that ``evaluation.full`` asks for."""

    taste: TasteSettings
    recipe: Recipe = field(default_factory=Recipe)
    items: Settings | None = field(default_factory=Settings)

    def learn(
        self,
        items: Sequence[Item],
        hidden: NDArray[np.floating],
        users: Sequence[Sequence[Interaction]],
        seed: int,
    ) -> tuple[Towers, ItemToItem | None]:
        """Towers and map from ``users``' interactions with ``items``; hidden states [n_items, n_embd].

        Rounded as a pack stores them. Interactions with other items are left out, as if they had not been.
        """
        ids = {item.id for item in items}
        kept = (each for past in users for each in past if each.item_id in ids)
        of_user = dict(Log.of(items, kept).of_users())
        # In the order given: the training's random numbers fall to users by their place.
        names = dict.fromkeys(past[0].user_id for past in users if past)
        histories = [recipe.history(of_user[name], self.taste) for name in names if name in of_user]
        head, found = recipe.learn(items, hidden, histories, self.recipe, self.items, seed=seed)
        return Towers.of(head), None if found is None else ItemToItem.of(found)

    def weights(
        self, listed: Sequence[lists.Listed], unseen: Sequence[lists.Listed], model: bool
    ) -> fusion.Weights:
        """The mean of ``prior.fit``: what a user without feedback gets."""
        return prior.pooled(listed, unseen, model=model)
