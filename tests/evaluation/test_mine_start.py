"""What the replay of a user's choices begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.evaluation import simulated
from edge_reranker.scoring import Learning
from edge_reranker.store import Store
from tests.parts import small_pack


def test_a_replay_begins_with_the_weights_that_the_service_begins_with(tmp_path: Path) -> None:
    """Also those of columns that no pack has: what was left unread is placed by one of them alone."""
    pack = small_pack()
    with Store.open(tmp_path, key_source="file") as store:
        served = Learning(store).now(make_tiers(pack, store, None, None, model="fake"), "a")
    replayed = simulated.started(pack)
    assert served is not None
    assert served.pack == replayed.pack
    for mine, its in (
        (replayed.with_model, served.with_model),
        (replayed.without_model, served.without_model),
    ):
        assert mine.names == its.names
        assert np.array_equal(mine.mean, its.mean)
        assert np.array_equal(mine.covariance, its.covariance)
    assert {"expected", "context_tags"} <= set(replayed.with_model.names)
