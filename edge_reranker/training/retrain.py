"""What the full evaluation trains anew: towers on fewer users or items, and a prior behind another server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists
from edge_reranker.evaluation.movielens import Rating
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
        users: Sequence[Sequence[Rating]],
        seed: int,
    ) -> tuple[Towers, ItemToItem | None]:
        """Towers and map from ``users``' ratings of ``items``, whose hidden states are [n_items, n_embd].

        Rounded as a pack stores them. Ratings of other items are left out, as if they had not been made.
        """
        row_of = {item.id: row for row, item in enumerate(items)}
        known = [[r for r in ratings if r.item_id in row_of] for ratings in users]
        histories = [recipe.history(ratings, row_of, self.taste) for ratings in known if ratings]
        head, found = recipe.learn(items, hidden, histories, self.recipe, self.items, seed=seed)
        return Towers.of(head), None if found is None else ItemToItem.of(found)

    def weights(self, listed: Sequence[lists.Listed], model: bool) -> fusion.Weights:
        """The mean of ``prior.fit``: what a user without feedback gets."""
        return prior.pooled(listed, model=model)
