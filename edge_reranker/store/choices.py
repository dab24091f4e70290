"""What the user chose from a list, as learning takes it: one row an event, and what it was derived with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlite_utils import Database

from edge_reranker.store import events
from edge_reranker.types import LoggedChoice, Recorded

# Of each namespace.
MOST: Final = 5_000
# When there would be more, the oldest go down to so many: whoever learned of all has to learn anew from
# those that are left, and that is to happen once in 500 events, not at each.
LEAST: Final = 4_500
# To count them takes 0.3 ms, as long as a commit without a disk: it is done once for so many.
PRUNE_EVERY: Final = 32


def put(db: Database, namespace: str, seq: int, ranking_id: str, body: bytes) -> bool:
    """Store the choice of the new event numbered ``seq``; whether it was.

    It was made of what was known when the ranking was, so it goes as that does. Of a ranking that is not
    there nothing says so: then it is not stored.
    """
    done = db.conn.execute(
        "INSERT INTO choices (seq, namespace, newest_event, sources, body) "
        "SELECT ?, namespace, newest_event, sources, ? FROM rankings WHERE namespace = ? AND ranking_id = ?",
        (seq, body, namespace, ranking_id),
    )
    return bool(done.rowcount)


def prune(db: Database, namespace: str, room: int = 0) -> bool:
    """Let the oldest go when there is no room for so many more; whether they went."""
    if state(db, namespace)[0] <= MOST - room:
        return False
    db.conn.execute(
        "DELETE FROM choices WHERE namespace = ?1 AND seq <= "
        "(SELECT seq FROM choices WHERE namespace = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        (namespace, LEAST),
    )
    return True


def after(db: Database, namespace: str, seq: int) -> list[tuple[int, bytes]]:
    """The number of the event and the body of each choice behind ``seq``, in the order of arrival."""
    sql = "SELECT seq, body FROM choices WHERE namespace = ? AND seq > ? ORDER BY seq"
    return [(int(number), bytes(body)) for number, body in db.conn.execute(sql, (namespace, seq))]


def state(db: Database, namespace: str) -> tuple[int, int, int]:
    """How many there are, the first one's number and the last one's; zeros when there is none."""
    sql = "SELECT count(*), ifnull(min(seq), 0), ifnull(max(seq), 0) FROM choices WHERE namespace = ?"
    n, first, last = db.conn.execute(sql, (namespace,)).fetchone()
    return int(n), int(first), int(last)


@dataclass(frozen=True, slots=True)
class Inserted:
    """What became of a batch: its events, and of the choices that were stored the numbers of the events.

    ``pruned`` says that older ones went.
    """

    recorded: Recorded
    seqs: tuple[int, ...] = ()
    pruned: bool = False


def insert(
    db: Database, namespace: str, rows: Sequence[events.Row], bodies: Mapping[str, bytes], *, due: bool = True
) -> Inserted:
    """Store events, and of those that are new the choices, by event id; see ``events.insert``.

    When it is ``due``, the oldest choices go if there are too many.
    """
    seqs: list[int] = []

    def new(seq: int, row: events.Row) -> None:
        body = bodies.get(row.event_id)
        if body and put(db, namespace, seq, row.ranking_id, body):
            seqs.append(seq)

    recorded = events.insert(db, namespace, rows, new)
    return Inserted(recorded, tuple(seqs), due and prune(db, namespace, PRUNE_EVERY))


def places(db: Database, namespace: str) -> list[int]:
    """The numbers of a namespace's choices, as they arrived."""
    sql = "SELECT seq FROM choices WHERE namespace = ? ORDER BY seq"
    return [int(row[0]) for row in db.conn.execute(sql, (namespace,))]


def oldest_kept(found: Sequence[int]) -> float:
    """Of those: from which one on ``prune`` cannot have removed any."""
    return found[-LEAST] if len(found) >= LEAST else -math.inf


def logged(db: Database, namespace: str, seqs: Sequence[int]) -> list[tuple[int, LoggedChoice]]:
    """Those of the numbered choices that are there, as they arrived, for an export."""
    # What has gone since the ranking is not needed to say what was known: an older one that stays does.
    newest = (
        "(SELECT k.event_id FROM events AS k NOT INDEXED WHERE k.seq <= c.newest_event "
        "AND k.namespace = c.namespace ORDER BY k.seq DESC LIMIT 1)"
    )
    rows = db.conn.execute(
        f"SELECT c.seq, e.event_id, c.body, ifnull({newest}, ''), c.sources "  # noqa: S608 - a constant
        "FROM json_each(?) AS j CROSS JOIN choices AS c ON c.seq = j.value JOIN events AS e ON e.seq = c.seq "
        "WHERE c.namespace = ? ORDER BY c.seq",
        (json.dumps(list(seqs)), namespace),
    )
    return [
        (int(seq), LoggedChoice(event_id, bytes(body), known_to, tuple(json.loads(sources))))
        for seq, event_id, body, known_to, sources in rows
    ]
