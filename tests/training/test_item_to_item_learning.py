"""The map of items: learned from any number of users in the same memory."""

from __future__ import annotations

import tracemalloc

import numpy as np

from edge_reranker.evaluation.servers import ease_weights
from edge_reranker.training import item_to_item
from edge_reranker.training.head import History

SETTINGS = item_to_item.Settings(ridge=50.0, n_weights=400)


def histories(n_users: int, n_items: int) -> list[History]:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(n_users):
        rows = np.sort(rng.choice(n_items, 8, replace=False))
        found.append(History(rows, np.ones(8, np.float32), rng.random(8) < 0.5))
    return found


def test_many_users_give_the_weights_of_all_at_once() -> None:
    users, n_items = histories(2_300, 40), 40  # so many are added up one by one
    found = item_to_item.learn(users, [f"{row + 1:016x}{0:016x}" for row in range(n_items)], SETTINGS)
    dense = np.zeros((len(users), n_items))
    for row, each in zip(dense, users, strict=True):
        row[each.rows] = np.where(each.liked, 1.0, SETTINGS.others)
    weights = ease_weights(dense, SETTINGS.ridge)
    at = np.repeat(np.arange(n_items), np.diff(found.starts))
    kept = np.zeros_like(weights)
    kept[at, found.others] = found.weights * float(found.unit)
    largest = np.sort(np.abs(weights).ravel())[-SETTINGS.n_weights]
    expected = np.where(np.abs(weights) >= largest, weights, 0.0)
    assert np.abs(kept - expected).max() < float(found.unit), "nothing but the rounding to 8 bits"


def test_memory_does_not_grow_with_the_users() -> None:
    def peak(n_users: int) -> int:
        users = histories(n_users, 300)
        tracemalloc.start()
        item_to_item.learn(users, [f"{row + 1:016x}{0:016x}" for row in range(300)], SETTINGS)
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found

    assert peak(8_000) < 1.3 * peak(2_000)
