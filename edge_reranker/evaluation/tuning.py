"""Parameters of the servers that know the user, chosen on the fusion users.

The fusion users tune the servers and then fit the fusion behind them. Both are choices of a few numbers out
of some 2,000 cases, and what the second use loses is ours: a server tuned to the very users whom the
fusion is fitted on looks better there than it is, so ours is trusted less. The users who test are in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_reranker.evaluation import metrics
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.evaluation.servers import ItemServer, Past, Reading, ease, item_knn

Setting = Mapping[str, float]
Objective = Callable[[ItemServer], float]

_LOW = (0.0, 0.15, 0.4, 1.0)
_LAST = (2, 3, 5, 10, 20, 50)
EASE_GRID: Mapping[str, Sequence[float]] = {
    "ridge": (50, 100, 200, 400, 800, 1600, 3200, 6400, 12800),
    "last": _LAST,
    "low": _LOW,
}
EASE_START: Setting = {"ridge": 400, "last": 20, "low": 0.4}
KNN_GRID: Mapping[str, Sequence[float]] = {
    "k": (10, 20, 50, 100, 200, 400, 800, 1600),
    "shrinkage": (0, 5, 10, 25, 50, 100, 200),
    "last": _LAST,
    "low": _LOW,
}
KNN_START: Setting = {"k": 100, "shrinkage": 25, "last": 20, "low": 0.4}


@dataclass(frozen=True, slots=True)
class Tuned:
    """A server, its parameters, and what they reached on the users they were chosen on."""

    server: ItemServer
    setting: Setting
    reached: float

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:g}" for name, value in self.setting.items())
        return f"{values}: {self.reached:.4f} on the fusion users"


def make_ease(past: Past, setting: Setting) -> ItemServer:
    """EASE with a setting of ``EASE_GRID``."""
    return ease(past, Reading(int(setting["last"]), setting["low"]), setting["ridge"])


def make_knn(past: Past, setting: Setting) -> ItemServer:
    """ItemKNN with a setting of ``KNN_GRID``."""
    return item_knn(
        past, Reading(int(setting["last"]), setting["low"]), int(setting["k"]), setting["shrinkage"]
    )


def tuned_ease(past: Past, objective: Objective) -> Tuned:
    """EASE with the setting that reaches most."""
    return _climb(lambda setting: make_ease(past, setting), EASE_GRID, EASE_START, objective)


def tuned_knn(past: Past, objective: Objective) -> Tuned:
    """ItemKNN with the setting that reaches most."""
    return _climb(lambda setting: make_knn(past, setting), KNN_GRID, KNN_START, objective)


def own_order(cuts: Sequence[Cut]) -> Objective:
    """Mean NDCG@10 of a server's own order over all cases of ``cuts``, seen items left out."""
    known = [replace(cut, history=tuple(cut.history)) for cut in cuts]  # records once, not for every setting
    return lambda server: float(metrics.ndcg(_places(server, known)).mean())


def _places(server: ItemServer, cuts: Sequence[Cut]) -> metrics.Places:
    row_of = server.past.row_of
    scores = server.scores([cut.history for cut in cuts])
    places = []
    for cut, own in zip(cuts, scores, strict=True):
        own[[row_of[r.item_id] for r in cut.history if r.item_id in row_of]] = -np.inf
        place_of = np.empty(len(own), np.int64)
        place_of[np.argsort(-own, kind="stable")] = np.arange(1, len(own) + 1)
        places += [int(place_of[row_of[target]]) if target in row_of else 0 for target in cut.targets]
    return np.array(places, np.int64)


def _climb(
    make: Callable[[Setting], ItemServer],
    grid: Mapping[str, Sequence[float]],
    start: Setting,
    objective: Objective,
) -> Tuned:
    """One parameter at a time over its whole row of the grid, until a round of all changes nothing."""
    best = _tried(make, start, objective)
    while True:
        before = best.setting
        for name, values in grid.items():
            for value in values:
                if value != best.setting[name]:
                    found = _tried(make, {**best.setting, name: value}, objective)
                    best = found if found.reached > best.reached else best
        if best.setting == before:
            return best


def _tried(make: Callable[[Setting], ItemServer], setting: Setting, objective: Objective) -> Tuned:
    server = make(setting)
    return Tuned(server, setting, objective(server))
