"""How many rankings are kept."""

from __future__ import annotations

from edge_reranker.store import Store, rankings
from edge_reranker.types import DegradedReason, Ranking, Result, Timings


def test_only_the_newest_2000_rankings_are_kept(store: Store) -> None:
    reason = DegradedReason.UNSPECIFIED
    body = rankings.encode(Ranking("", (Result("i", 0),), 1.0, reason, Timings(), "", "", True))
    more = {"surface": "", "session_id": "", "created_at": 1.0}

    def put(db: object) -> None:
        for number in range(2_005):
            rankings.put(db, "app", f"r{number}", body, **more)  # type: ignore[arg-type]

    store._writer.submit(put)
    assert store.counts("app")["rankings"] == 2_000
    assert store.ranking("app", "r4") is None
    assert store.ranking("app", "r5") is not None
