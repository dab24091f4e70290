"""Logged rankings: what was shown in which order, so that later feedback can be read against it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any

from sqlite_utils import Database

from edge_reranker.types import DegradedReason, Ranking, Result, Timings


def encode(ranking: Ranking) -> str:
    """The ranking as compact JSON; each result is ["id",tier]."""
    body = {
        "results": [[result.id, result.tier] for result in ranking.results],
        "coverage": ranking.coverage,
        "degraded_reason": int(ranking.degraded_reason),
        "timings": dataclasses.asdict(ranking.timings),
        "model": ranking.model,
        "pack": ranking.pack,
        "final": ranking.final,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


# Events of a list come within its session; retention of its own comes later.
KEPT = 2_000


def put(
    db: Database,
    namespace: str,
    ranking_id: str,
    body: str,
    *,
    surface: str,
    session_id: str,
    created_at: float,
) -> None:
    """Store one; a ranking id that is known is left as it is."""
    # With the newest event there is: whether an event was known then can be told later by its number.
    db.conn.execute(
        "INSERT INTO rankings (namespace, ranking_id, created_at, surface, session_id, body, newest_event) "
        "VALUES (?, ?, ?, ?, ?, ?, (SELECT ifnull(max(seq), 0) FROM events)) ON CONFLICT DO NOTHING",
        (namespace, ranking_id, created_at, surface, session_id, body),
    )
    # Rows are numbered as they come; an index over the whole table would cost more than it saves.
    db.conn.execute(
        "DELETE FROM rankings WHERE namespace = ? AND rowid <= (SELECT max(rowid) FROM rankings) - ?",
        (namespace, KEPT),
    )


def get(db: Database, namespace: str, ranking_id: str) -> Ranking | None:
    """The ranking as it was logged."""
    row = db.conn.execute(
        "SELECT body FROM rankings WHERE namespace = ? AND ranking_id = ?", (namespace, ranking_id)
    ).fetchone()
    if row is None:
        return None
    body: dict[str, Any] = json.loads(row[0])
    return Ranking(
        ranking_id,
        tuple(Result(id_, tier) for id_, tier in body["results"]),
        body["coverage"],
        DegradedReason(body["degraded_reason"]),
        Timings(**body["timings"]),
        body["model"],
        body["pack"],
        body["final"],
    )


def listing(db: Database, namespace: str, item_ids: Collection[str]) -> list[int]:
    """The rowids of the rankings that list one of the items; at most ``KEPT`` rows are looked at."""
    rows = db.conn.execute("SELECT rowid, body FROM rankings WHERE namespace = ?", (namespace,))
    return [
        rowid for rowid, body in rows if any(result[0] in item_ids for result in json.loads(body)["results"])
    ]
