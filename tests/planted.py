"""A small world with a planted preference: every user likes the items of one of four groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.types import EventType, Item

World = tuple[Log, NDArray[np.float32]]

N_GROUPS, N_ITEMS, N_EMBD = 4, 80, 24


def world(n_users: int = 80, seed: int = 0) -> World:
    """Interactions of ``n_users`` who start one after another, and hidden states that show each item's group.

    Titles say nothing of the group: only the hidden states do.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(N_ITEMS) % N_GROUPS
    centres = rng.normal(size=(N_GROUPS, N_EMBD))
    hidden = centres[group] + 0.7 * rng.normal(size=(N_ITEMS, N_EMBD))
    found = []
    for user in range(n_users):
        mine = rng.permutation(np.flatnonzero(group == user % N_GROUPS))
        others = rng.permutation(np.flatnonzero(group != user % N_GROUPS))[:6]
        seen = np.concatenate([rng.permutation(np.concatenate([mine[:7], others])), mine[7:]])
        for step, item in enumerate(seen):
            type_ = EventType.LIKE if group[item] == user % N_GROUPS else EventType.DISLIKE
            found.append(Interaction(f"u{user:03}", str(item), type_, user * 1000.0 + step))
    items = tuple(Item(str(at), title=f"Thing {at}") for at in range(N_ITEMS))
    return Log.of(items, found), hidden.astype(np.float32)
