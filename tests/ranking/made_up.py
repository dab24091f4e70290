"""Made-up lists and users for the tests of learning: columns of a plausible size, and clicks from a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import fusion
from edge_reranker.ranking.features import server_rank
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.shown import Shown, examination

PACK = "made-up-0123456789ab"
NAMES = ("server_rank", "server_score", "tags", "towers", "content", "unseen")
PRIOR = Weights(
    NAMES, np.array([-0.4, 0.0, 0.8, 1.5, 0.5, 0.0]), np.diag([0.3, 0.3, 0.8, 1.0, 0.8, 0.5]) ** 2
)
Rng = np.random.Generator


def a_list(
    rng: Rng,
    weights: Weights = PRIOR,
    n: int = 20,
    names: Sequence[str] = NAMES,
    **more: Any,
) -> Shown:
    """A list of made-up candidates, served by these weights unless ``order`` says how."""
    matrix = rng.normal(size=(n, len(names)))
    at = list(names).index("server_rank")
    matrix[:, at] = server_rank(n)
    ours = fusion.order(fusion.fuse(matrix, names, weights))
    mean_of = dict(zip(weights.names, weights.mean, strict=True))
    return Shown(
        ids=tuple(f"i{index}" for index in range(n)),
        names=tuple(names),
        weights=np.array([mean_of.get(name, 0.0) for name in names]),
        matrix=matrix,
        **{"order": ours, "ours": ours, "with_model": True, "pack": PACK, **more},
    )


def utility(shown: Shown, truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log appeal of every candidate for a user with these weights over ``NAMES``."""
    at = shown.names.index("server_rank")
    return np.asarray(shown.matrix[:, at] + shown.matrix @ truth, np.float64)


def clicked(rng: Rng, shown: Shown, truth: NDArray[np.float64], exponent: float = 1.0) -> str:
    """Whom that user clicks by the position-based model, one click a list."""
    looks = examination(np.arange(1, len(shown.order) + 1)) ** exponent
    chances = looks * np.exp(utility(shown, truth)[shown.order])
    return shown.ids[shown.order[rng.choice(len(chances), p=chances / chances.sum())]]
