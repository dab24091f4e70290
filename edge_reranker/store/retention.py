"""How long events are kept: the rules, and what is over them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from edge_reranker.types import EventType, Forgotten, Retention, TypeRetention

_DAY_S = 86_400.0

Key = tuple[float, int]
"""An event's place in the order of all: ``occurred_at`` and ``seq``."""

_START: Key = (float("-inf"), 0)


def get(db: Database, namespace: str) -> Retention:
    """The namespace's rule; one that keeps everything when none was set."""
    return rules(db, namespace).get(namespace, Retention())


def rules(db: Database, namespace: str | None = None) -> dict[str, Retention]:
    """The rule of each namespace that has one (of this one)."""
    sql = "SELECT namespace, type, max_age_days, max_events FROM retention {} ORDER BY namespace, type"
    where = "" if namespace is None else "WHERE namespace = ?"
    found: dict[str, Retention] = {}
    for name, kind, days, events in db.conn.execute(
        sql.format(where), () if namespace is None else (namespace,)
    ).fetchall():
        # Of all types first: type 0.
        before = found.get(name, Retention())
        if kind == EventType.UNSPECIFIED:
            found[name] = Retention(days, events)
        else:
            by_type = (*before.by_type, TypeRetention(EventType(kind), days, events))
            found[name] = Retention(before.max_age_days, before.max_events, by_type)
    return found


def put(db: Database, namespace: str, rule: Retention) -> None:
    """Set the rule, inside the caller's transaction; an empty one is the same as none."""
    db.conn.execute("DELETE FROM retention WHERE namespace = ?", (namespace,))
    rows = [(int(each.type), each.max_age_days, each.max_events) for each in rule.by_type]
    if rule.max_age_days or rule.max_events:
        rows.append((int(EventType.UNSPECIFIED), rule.max_age_days, rule.max_events))
    db.conn.executemany(
        "INSERT INTO retention (namespace, type, max_age_days, max_events) VALUES (?, ?, ?, ?)",
        [(namespace, *row) for row in rows],
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """From which place on events are kept: ``of_all`` types, and by type where that is later."""

    of_all: Key
    by_type: dict[int, Key]

    @property
    def end(self) -> Key:
        """From here on every event is kept."""
        return max(self.of_all, *self.by_type.values()) if self.by_type else self.of_all

    def of(self, kind: int) -> Key:
        """From which place on events of this type are kept."""
        return max(self.of_all, self.by_type.get(kind, _START))


def limits(db: Database, namespace: str, rule: Retention, now_s: float) -> Limits:
    """What the rule keeps now. Costs a walk over the index as long as what is kept by count."""
    by_type = {
        int(each.type): _limit(db, namespace, int(each.type), each.max_age_days, each.max_events, now_s)
        for each in rule.by_type
    }
    return Limits(_limit(db, namespace, 0, rule.max_age_days, rule.max_events, now_s), by_type)


def _limit(db: Database, namespace: str, kind: int, days: int, events: int, now_s: float) -> Key:
    by_age: Key = (now_s - days * _DAY_S, 0) if days else _START
    if not events:
        return by_age
    of_type = f"AND type = {kind}" if kind else ""
    last = db.conn.execute(
        f"SELECT occurred_at, seq FROM events WHERE namespace = ? {of_type} "  # noqa: S608 (a number)
        "ORDER BY occurred_at DESC, seq DESC LIMIT 1 OFFSET ?",
        (namespace, events - 1),
    ).fetchone()
    return by_age if last is None else max(by_age, (last[0], last[1]))


def overdue(
    db: Database, namespace: str, found: Limits, after: Key, n_rows: int
) -> tuple[list[int], Key | None]:
    """The seqs of what is over the limits among ``n_rows`` events after a place, and the next place, if any.

    Oldest first. What is not over them costs little, so that a sweep gets past events of other types.
    """
    # The index has all that is asked for unless types differ.
    kind = "type" if found.by_type else "0"
    rows = db.conn.execute(
        f"SELECT occurred_at, seq, {kind} FROM events WHERE namespace = ? "  # noqa: S608 (constants only)
        "AND (occurred_at, seq) > (?, ?) AND (occurred_at, seq) < (?, ?) ORDER BY occurred_at, seq LIMIT ?",
        (namespace, *after, *found.end, n_rows),
    ).fetchall()
    seqs = [seq for at, seq, of_type in rows if (at, seq) < found.of(of_type)]
    return seqs, (rows[-1][:2] if len(rows) == n_rows else None)


@dataclass(frozen=True, slots=True)
class Removed:
    """What one step removed, and of each type the latest moment (s since 1970) of an event among it."""

    forgotten: Forgotten
    latest: dict[int, float]


def remove(db: Database, namespace: str, found: Limits, seqs: Sequence[int]) -> Removed:
    """Remove those of the events that are over the limits, and what only they needed.

    Inside the caller's transaction. They are looked at again: what had a number then may be gone, and the
    number another event's.
    """
    rows = db.conn.execute(
        "SELECT e.seq, e.type, e.occurred_at, e.item FROM json_each(?) AS j CROSS JOIN events AS e "
        "WHERE e.seq = j.value AND e.namespace = ?",
        (json.dumps(list(seqs)), namespace),
    ).fetchall()
    over = [row for row in rows if (row[2], row[0]) < found.of(row[1])]
    latest: dict[int, float] = {}
    for _, kind, at, _ in over:
        latest[kind] = max(at, latest.get(kind, at))
    gone = json.dumps([row[0] for row in over])
    # They would go with their events, uncounted. What an event that stays chose stays, though what goes was
    # known then: with the oldest event of all, everything that was learned would go, at every sweep.
    choices = db.conn.execute(
        "DELETE FROM choices WHERE seq IN (SELECT value FROM json_each(?))", (gone,)
    ).rowcount
    events = db.conn.execute(
        "DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))", (gone,)
    ).rowcount
    seen = json.dumps(list({row[3] for row in over if row[3] is not None}))
    items = db.conn.execute(
        "DELETE FROM items WHERE id IN (SELECT value FROM json_each(?)) "
        "AND NOT EXISTS (SELECT 1 FROM events WHERE events.item = items.id) RETURNING item_id",
        (seen,),
    ).fetchall()
    # Which of an item's texts a vector came from is not known here; those still needed are made again.
    vectors = db.conn.execute(
        "DELETE FROM vectors WHERE namespace = ? AND item_id IN (SELECT value FROM json_each(?))",
        (namespace, json.dumps([row[0] for row in items])),
    ).rowcount
    _remove_prefix(db, namespace, latest)
    return Removed(Forgotten(events, len(items), vectors, choices=choices), latest)


def _remove_prefix(db: Database, namespace: str, latest: dict[int, float]) -> None:
    """Remove what a model made of the user's events, unless all of them are later than what went."""
    kept = db.conn.execute(
        "SELECT e.occurred_at FROM prefixes AS p LEFT JOIN events AS e "
        "ON e.namespace = p.namespace AND e.event_id = p.first_event WHERE p.namespace = ?",
        (namespace,),
    ).fetchone()
    if kept is not None and latest and (kept[0] is None or kept[0] <= max(latest.values())):
        db.conn.execute("DELETE FROM prefixes WHERE namespace = ?", (namespace,))


def remove_rankings(db: Database, namespace: str, found: Limits) -> int:
    """Remove the rankings from before all events that are kept; how many."""
    return int(
        db.conn.execute(
            "DELETE FROM rankings WHERE namespace = ? AND created_at < ?", (namespace, found.of_all[0])
        ).rowcount
    )


def put_right(db: Database, namespace: str, now_s: float, after_s: float) -> int:
    """Date events now that lie ``after_s``, where none can have happened; how many there were."""
    return int(
        db.conn.execute(
            "UPDATE events SET occurred_at = ? WHERE namespace = ? AND occurred_at > ?",
            (now_s, namespace, after_s),
        ).rowcount
    )
