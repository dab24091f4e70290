"""Tries whether an encoder makes the vectors that a pack's head was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine
from edge_reranker.prompt import item_pieces
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring.vectors import MAX_ITEM_TOKENS
from edge_reranker.types import Item

# Between kinds of processors a quantised encoder's vectors differ by some per cent (docs/decisions/0001: a
# relative error of .04 is a cosine of .999); those of another type or depth by a multiple.
MIN_COSINE = 0.99


def likeness(
    engine: Engine,
    towers: Towers,
    texts: Sequence[str],
    wanted: npt.NDArray[np.floating],
    deadline: Deadline,
    *,
    prefix: str = "",
) -> float:
    """The smallest cosine, over texts and parts, of the vectors made now and ``wanted`` [n_texts, n_dims].

    0 when they could not all be made in time. Raises EngineBusy and EngineDied.
    """
    sequences = engine.tokenize([item_pieces(Item("", text), prefix) for text in texts], deadline)
    encoded = engine.encode([ids[:MAX_ITEM_TOKENS] for ids in sequences], deadline)
    if len(encoded.vectors) < len(texts):
        return 0.0
    made, wanted = towers.trusted(towers.item_vectors(encoded.vectors)), towers.trusted(wanted)
    at = towers.n_learned
    parts = [part for part in (slice(None, at), slice(at, None)) if made[:, part].size]
    return float(min((made[:, part] * wanted[:, part]).sum(axis=1).min() for part in parts))
