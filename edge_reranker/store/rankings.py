"""Logged rankings: what was shown in which order, so that later feedback can be read against it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

from sqlite_utils import Database

from edge_reranker.types import DegradedReason, LoggedRanking, Ranking, Result, Timings


def encode(ranking: Ranking) -> str:
    """The ranking as compact JSON; each result is ["id",tier]. A name without need is left out."""
    body: dict[str, Any] = {
        "results": [[result.id, result.tier] for result in ranking.results],
        "coverage": ranking.coverage,
        "degraded_reason": int(ranking.degraded_reason),
        "timings": dataclasses.asdict(ranking.timings),
        "model": ranking.model,
        "pack": ranking.pack,
        "final": ranking.final,
    }
    if ranking.blocked_ids:
        body["blocked_ids"] = ranking.blocked_ids
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


# Of each namespace. Events of a list come within its session; retention of its own comes later.
KEPT = 2_000
# Of those, the newest that keep what was shown and by which numbers: a hundred times the rest of a row.
DETAILED = 200
# So many more than that may be there.
PRUNE_EVERY = 32


def put(
    db: Database,
    namespace: str,
    ranking_id: str,
    body: str,
    *,
    surface: str,
    session_id: str,
    created_at: float,
    sources: Sequence[str] = (),
    detail: bytes = b"",
    prune: bool = True,
) -> None:
    """Store one; a ranking id that is known is left as it is.

    With ``prune``, the oldest beyond ``KEPT`` go, and the details of the oldest beyond ``DETAILED``.
    """
    # With the newest event there is: whether an event was known then can be told later by its number.
    db.conn.execute(
        "INSERT INTO rankings (namespace, ranking_id, created_at, surface, session_id, body, sources, "
        "detail, newest_event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT ifnull(max(seq), 0) FROM events)) "
        "ON CONFLICT DO NOTHING",
        (
            namespace,
            ranking_id,
            created_at,
            surface,
            session_id,
            body,
            json.dumps(list(sources)),
            detail or None,
        ),
    )
    if not prune:
        return
    # Rows are numbered as they come. To find the one at which to cut takes 0.15 ms, ten times the rest.
    db.conn.execute(
        "DELETE FROM rankings WHERE namespace = ?1 AND rowid <= "
        "(SELECT rowid FROM rankings WHERE namespace = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
        (namespace, KEPT),
    )
    db.conn.execute(
        "UPDATE rankings SET detail = NULL WHERE namespace = ?1 AND detail IS NOT NULL AND rowid <= "
        "(SELECT rowid FROM rankings WHERE namespace = ?1 AND detail IS NOT NULL "
        "ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
        (namespace, DETAILED),
    )


def detail(db: Database, namespace: str, ranking_id: str) -> bytes | None:
    """What was shown, and by which numbers, while that is kept."""
    row = db.conn.execute(
        "SELECT detail FROM rankings WHERE namespace = ? AND ranking_id = ?", (namespace, ranking_id)
    ).fetchone()
    return None if row is None or row[0] is None else bytes(row[0])


def get(db: Database, namespace: str, ranking_id: str) -> Ranking | None:
    """The ranking as it was logged."""
    row = db.conn.execute(
        "SELECT body FROM rankings WHERE namespace = ? AND ranking_id = ?", (namespace, ranking_id)
    ).fetchone()
    return None if row is None else decode(ranking_id, row[0])


def decode(ranking_id: str, text: str) -> Ranking:
    """The ranking that ``encode`` made ``text`` of."""
    body: dict[str, Any] = json.loads(text)
    return Ranking(
        ranking_id,
        tuple(Result(id_, tier) for id_, tier in body["results"]),
        body["coverage"],
        DegradedReason(body["degraded_reason"]),
        Timings(**body["timings"]),
        body["model"],
        body["pack"],
        body["final"],
        blocked_ids=tuple(body.get("blocked_ids", ())),
    )


def listing(db: Database, namespace: str, item_ids: Set[str]) -> list[int]:
    """The rowids of the rankings that list or block one of the items; at most ``KEPT`` rows are looked at."""
    rows = db.conn.execute("SELECT rowid, body FROM rankings WHERE namespace = ?", (namespace,))
    return [rowid for rowid, body in rows if not item_ids.isdisjoint(_ids(json.loads(body)))]


def _ids(body: dict[str, Any]) -> Iterator[str]:
    yield from (result[0] for result in body["results"])
    yield from body.get("blocked_ids", ())


def places(db: Database, namespace: str) -> list[int]:
    """The rows of a namespace, the newest first."""
    sql = "SELECT rowid FROM rankings WHERE namespace = ? ORDER BY rowid DESC"
    return [int(row[0]) for row in db.conn.execute(sql, (namespace,)).fetchall()]


def at(db: Database, namespace: str, place: int) -> LoggedRanking | None:
    """The ranking in a row, if it is still there."""
    row = db.conn.execute(
        "SELECT ranking_id, body, surface, session_id, created_at FROM rankings "
        "WHERE namespace = ? AND rowid = ?",
        (namespace, place),
    ).fetchone()
    return None if row is None else LoggedRanking(decode(row[0], row[1]), *row[2:])


def oldest_kept(found: Sequence[int]) -> float:
    """Of a namespace's rows, the newest first: from which one on ``put`` cannot have removed any."""
    return found[KEPT - 1] if len(found) >= KEPT else -math.inf
