"""A small world with a planted preference: every user likes the items of one of four groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation.movielens import MovieLens, Rating
from edge_reranker.types import Item

World = tuple[MovieLens, NDArray[np.float32]]

N_GROUPS, N_ITEMS, N_EMBD = 4, 80, 24


def world(n_users: int = 80, seed: int = 0) -> World:
    """Ratings of ``n_users`` who start one after another, and hidden states that show each item's group.

    Titles say nothing of the group: only the hidden states do.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(N_ITEMS) % N_GROUPS
    centres = rng.normal(size=(N_GROUPS, N_EMBD))
    hidden = centres[group] + 0.7 * rng.normal(size=(N_ITEMS, N_EMBD))
    ratings = []
    for user in range(n_users):
        mine = rng.permutation(np.flatnonzero(group == user % N_GROUPS))
        others = rng.permutation(np.flatnonzero(group != user % N_GROUPS))[:6]
        seen = np.concatenate([rng.permutation(np.concatenate([mine[:7], others])), mine[7:]])
        for step, item in enumerate(seen):
            stars = 5.0 if group[item] == user % N_GROUPS else 2.0
            ratings.append(Rating(f"u{user:03}", str(item), stars, user * 1000.0 + step))
    items = tuple(Item(str(at), title=f"Thing {at}") for at in range(N_ITEMS))
    ratings.sort(key=lambda r: (r.at_s, r.user_id, r.item_id))
    return MovieLens(items, tuple(ratings)), hidden.astype(np.float32)
