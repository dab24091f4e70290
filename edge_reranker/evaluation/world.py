"""What the sections of the full evaluation share: data, split, pack, and a way to learn anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, metrics, protocol, sampled, servers
from edge_reranker.evaluation.lists import Learned, Listed, Lister
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.models.pack import Pack
from edge_reranker.ranking import fusion
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.profile import Taste
from edge_reranker.ranking.towers import Towers
from edge_reranker.types import Item

Users = Sequence[Sequence[Interaction]]
Say = Callable[[str], None]

FIT_POOL = 100


class Trainer(Protocol):
    """What ``training.retrain`` does; evaluation never imports training."""

    def learn(
        self, items: Sequence[Item], hidden: NDArray[np.floating], users: Users, seed: int
    ) -> tuple[Towers, ItemToItem | None]:
        """Towers and map from ``users``' interactions with ``items``; hidden states [n_items, n_embd]."""

    def weights(self, listed: Sequence[Listed], unseen: Sequence[Listed], model: bool) -> fusion.Weights:
        """Fusion weights that suit the choices in the lists, with or without the model's columns.

        ``unseen`` are lists of a pack that does not know some of the items.
        """


@dataclass(frozen=True, slots=True)
class Weighing:
    """Fusion weights with the model and without."""

    ours: fusion.Weights
    without_model: fusion.Weights


@dataclass(frozen=True, slots=True)
class World:
    """What all sections share."""

    data: Log
    hidden: NDArray[np.floating]
    split: protocol.Split
    pack: Pack
    trainer: Trainer
    say: Say
    items: Mapping[str, Item]
    taste: Taste
    learned: Learned

    @property
    def head(self) -> list[Sequence[Interaction]]:
        """The users that server and towers learn from, in the split's shuffled order."""
        return list(self.split.head.values())

    def lister(self, server: servers.Server, n: int = FIT_POOL) -> Lister:
        """Lists of a server, with what the pack has learned."""
        return Lister(server, self.items, self.taste, self.learned, n)

    def popularity(self, users: Users | None = None) -> servers.PopularityServer:
        """The server that learned from ``users``; None is all head users."""
        pasts = self.head if users is None else users
        return servers.PopularityServer((each for past in pasts for each in past), self.items)

    def learn(self, seed: int, users: Users, cold: frozenset[str] = frozenset()) -> Learned:
        """What a pack would have learned that saw ``users`` and no item in ``cold``, for all items."""
        warm = [row for row, item in enumerate(self.data.items) if item.id not in cold]
        items = [self.data.items[row] for row in warm]
        towers, item_to_item = self.trainer.learn(items, self.hidden[warm], users, seed)
        return Learned.make(towers, item_to_item, self.data.items, self.hidden)

    def fitted(self, listed: Sequence[Listed], unseen: Sequence[Listed] = ()) -> Weighing:
        """The fusion that suits the choices; in ``unseen`` the pack does not know some of the items."""
        return Weighing(
            self.trainer.weights(listed, unseen, True), self.trainer.weights(listed, unseen, False)
        )

    def negatives(self, n: int, *, popular: bool) -> sampled.Negatives:
        """What ``n`` negatives are drawn from: all items, by popularity or all alike."""
        counts = counted(self.head)
        chances = [counts[item.id] if popular else 1 for item in self.data.items]
        return sampled.Negatives(n, self.data.items, np.array(chances, np.float64), sampled.met(self.data))

    def baselines(
        self, lister: Lister, listed: Sequence[Listed], learned: Learned
    ) -> dict[str, metrics.Places]:
        """Rankers that need no tuning; the last two by what ``learned`` has, the last of all items alike."""
        towers = learned.affinity.towers.content_only()
        content = Learned.make(towers, None, self.data.items, self.hidden)
        return {
            "popularity": lists.server_places(listed),
            "BM25": sampled.by_column(listed, "history_text"),
            "TF-IDF": sampled.by_words(listed, self.data.items, lister),
            "cosine of the towers": sampled.by_column(listed, "towers"),
            "cosine of the content": sampled.by_column(
                [lister.knowing(each, content) for each in listed], "content"
            ),
        }


def counted(users: Users) -> Counter[str]:
    """How many interactions each item has."""
    return Counter(each.item_id for past in users for each in past)
