"""Events and the item snapshots that they saw: rows in, rows out."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import math
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument
from edge_reranker.types import Event, EventType, Item, Recorded

COLUMNS = (
    "e.event_id, e.type, e.occurred_at, e.query, e.dwell_s, e.surface, e.session_id, e.ranking_id, "
    "e.position, e.context, i.item_id, i.title, i.text, i.tags, i.attributes"
)
_NEWEST = "ORDER BY occurred_at DESC, seq DESC"
_MOMENT = struct.Struct(">d")
_MAX_INT = 2**63 - 1
# A context has 200 items: as Python's own decoder, it would be the larger half of what reading it costs.
_TAGS = msgspec.json.Decoder(tuple[str, ...])
_ATTRIBUTES = msgspec.json.Decoder(dict[str, str])
# Of texts: with the largest event (0.3 MiB) and everything around them still below 4 MiB, the most that a
# gRPC client takes unless it is told otherwise.
_MAX_PAGE_BYTES = 3 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """An event as it goes into the tables; ``item`` is id, digest, title, text, tags, attributes."""

    event: tuple[Any, ...]
    item: tuple[Any, ...] | None

    @property
    def event_id(self) -> str:
        """The event's id."""
        return str(self.event[0])

    @property
    def ranking_id(self) -> str:
        """The ranking that the event names; "" for none."""
        return str(self.event[7])


def encode(events: Sequence[Event]) -> list[Row]:
    """The rows of a batch. Raises InvalidArgument for what could not be read back as it is."""
    return [encode_one(event, f"events[{i}]") for i, event in enumerate(events)]


def insert(
    db: Database,
    namespace: str,
    rows: Sequence[Row],
    new: Callable[[int, Row], None] = lambda seq, row: None,
) -> Recorded:
    """Store what is new inside the caller's transaction. A known event id changes nothing.

    ``new`` hears of each that is, and under which number.
    """
    conn = db.conn
    recorded = 0
    for row in rows:
        known = conn.execute(
            "SELECT 1 FROM events WHERE namespace = ? AND event_id = ?", (namespace, row.event[0])
        ).fetchone()
        if known:
            continue
        item = None if row.item is None else _snapshot(db, namespace, row.item)
        done = conn.execute(
            "INSERT INTO events (namespace, item, event_id, type, occurred_at, query, dwell_s, surface, "
            "session_id, ranking_id, position, context) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (namespace, item, *row.event),
        )
        new(done.lastrowid, row)
        recorded += 1
    return Recorded(recorded, len(rows) - recorded)


def newest(
    db: Database, namespace: str, limit: int, types: Collection[EventType] | None = None
) -> list[Event]:
    """The newest ``limit`` events (of ``types``), newest first; those of one moment, last to arrive first."""
    with _page(db, namespace, limit, None, types) as found:
        return [decode(row[2:]) for row in found]


def newest_of(
    db: Database, namespaces: Sequence[str], limit: int, types: Collection[EventType] | None = None
) -> list[tuple[str, Event]]:
    """The newest ``limit`` events of several namespaces together, newest first, with whose each is."""
    found: list[tuple[tuple[float, int], str, tuple[Any, ...]]] = []
    for namespace in namespaces:
        with _page(db, namespace, limit, None, types) as rows:
            found += [(row[:2], namespace, row[2:]) for row in rows]
    found.sort(key=lambda each: each[0], reverse=True)
    return [(namespace, decode(row)) for _, namespace, row in found[:limit]]


def page(db: Database, namespace: str, limit: int, token: str) -> tuple[list[Event], str]:
    """``limit`` events, newest first, from where ``token`` ended, and the next token, "" at the end.

    Fewer if their texts are large. Raises InvalidArgument for a token that no page ended with.
    """
    rows: list[tuple[Any, ...]] = []
    size_bytes, more = 0, False
    with _page(db, namespace, limit + 1, _place(db, namespace, token) if token else None) as found:
        for row in found:
            if more := len(rows) == limit or size_bytes > _MAX_PAGE_BYTES:
                break
            rows.append(row)
            size_bytes += sum(len(value.encode()) for value in row if isinstance(value, str))
    # The place in the order, not a count: events that arrive later shift nothing. Without the row's number,
    # which would tell how much other apps have recorded.
    following = _token(rows[-1][0], rows[-1][2]) if more else ""
    return [decode(row[2:]) for row in rows], following


@contextlib.contextmanager
def _page(
    db: Database,
    namespace: str,
    limit: int,
    before: tuple[float, int] | None,
    types: Collection[EventType] | None = None,
) -> Iterator[Iterator[tuple[Any, ...]]]:
    # Rows are picked from the index first, so that only ``limit`` snapshots are read.
    # Constants and numbers only: S608 is about what comes from outside.
    where = "WHERE namespace = ?1" + ("" if before is None else " AND (occurred_at, seq) < (?3, ?4)")
    if types is None:
        picked = f"SELECT * FROM events {where} {_NEWEST} LIMIT ?2"  # noqa: S608
    else:
        # The newest of each type, and of these the newest: nine of ten events of a feed are impressions, and
        # to walk over them would cost more the rarer the others are.
        each = " UNION ALL ".join(
            f"SELECT * FROM (SELECT occurred_at, seq FROM events {where} "  # noqa: S608
            f"AND type = {int(kind)} {_NEWEST} LIMIT ?2)"
            for kind in sorted(types)
        )
        seqs = f"SELECT seq FROM ({each}) {_NEWEST} LIMIT ?2" if each else "NULL"  # noqa: S608
        picked = f"SELECT * FROM events WHERE seq IN ({seqs})"  # noqa: S608
    sql = (
        f"SELECT e.occurred_at, e.seq, {COLUMNS} FROM ({picked}) AS e "  # noqa: S608
        f"LEFT JOIN items AS i ON i.id = e.item {_NEWEST}"
    )
    used = (namespace, limit) if types is None or types else ()
    with contextlib.closing(db.conn.execute(sql, (*used, *(before or ())))) as rows:
        yield rows


def _token(occurred_at: float, event_id: str) -> str:
    return base64.urlsafe_b64encode(_MOMENT.pack(occurred_at) + event_id.encode()).decode("ascii")


def _place(db: Database, namespace: str, token: str) -> tuple[float, int]:
    """Where a page ended; if that event was forgotten since, its moment is read once more."""
    try:
        data = base64.b64decode(token.encode("ascii"), b"-_", validate=True)
        (occurred_at,) = _MOMENT.unpack(data[: _MOMENT.size])
        event_id = data[_MOMENT.size :].decode()
        if not math.isfinite(occurred_at) or not event_id:
            raise ValueError
    except (ValueError, binascii.Error, struct.error):
        raise InvalidArgument("page_token", "is not one that a page ended with; start without one") from None
    row = db.conn.execute(
        "SELECT seq FROM events WHERE namespace = ? AND event_id = ? AND occurred_at = ?",
        (namespace, event_id, occurred_at),
    ).fetchone()
    return occurred_at, _MAX_INT if row is None else int(row[0])


def _snapshot(db: Database, namespace: str, item: tuple[Any, ...]) -> int:
    key = (namespace, item[0], item[1])
    find = "SELECT id FROM items WHERE namespace = ? AND item_id = ? AND digest = ?"
    found = db.conn.execute(find, key).fetchone()
    if found:
        return int(found[0])
    made: int = db.conn.execute(
        "INSERT INTO items (namespace, item_id, digest, title, text, tags, attributes) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (namespace, *item),
    ).fetchone()[0]
    return made


def encode_one(event: Event, where: str) -> Row:
    """The row of an event; an error's path begins with ``where``. Raises as ``encode``."""
    if not event.event_id:
        raise InvalidArgument(f"{where}.event_id", "is empty; give every event an id")
    for name, number in (("occurred_at", event.occurred_at), ("dwell_s", event.dwell_s)):
        if not math.isfinite(number):
            raise InvalidArgument(f"{where}.{name}", f"is {number}; it must be finite")
    if event.position is not None and not 0 <= event.position <= _MAX_INT:
        raise InvalidArgument(f"{where}.position", f"is {event.position}; it must be 0 or more")
    texts = (event.query, event.surface, event.session_id, event.ranking_id)
    try:
        context = _json(dict(sorted(event.context.items())))
        "".join((event.event_id, *texts, context)).encode()
        item = None if event.item is None else _encode_item(event.item)
    except UnicodeEncodeError:
        raise InvalidArgument(where, "has a lone surrogate in a text; send valid Unicode") from None
    query, surface, session_id, ranking_id = texts
    return Row(
        (
            event.event_id,
            int(event.type),
            float(event.occurred_at),
            query,
            float(event.dwell_s),
            surface,
            session_id,
            ranking_id,
            event.position,
            context,
        ),
        item,
    )


def _encode_item(item: Item) -> tuple[Any, ...]:
    tags = _json(list(item.tags))
    attributes = _json(dict(sorted(item.attributes.items())))
    # As one JSON list, so that no text can pass for two.
    digest = hashlib.sha256(_json([item.title, item.text, tags, attributes]).encode()).digest()
    item.id.encode()
    return item.id, digest, item.title, item.text, tags, attributes


def decode_item(item_id: str, title: str, text: str, tags: str, attributes: str) -> Item:
    """An item from the columns of its snapshot."""
    return Item(item_id, title, text, _TAGS.decode(tags), _ATTRIBUTES.decode(attributes))


def decode(row: tuple[Any, ...]) -> Event:
    """The event in a row of ``COLUMNS``."""
    event_id, kind, occurred_at, query, dwell_s, surface, session_id, ranking_id, position, context = row[:10]
    item_id, title, text, tags, attributes = row[10:]
    item = None if item_id is None else decode_item(item_id, title, text, tags, attributes)
    return Event(
        event_id,
        EventType(kind),
        occurred_at,
        item,
        query,
        dwell_s,
        surface,
        session_id,
        ranking_id,
        position,
        {} if context == "{}" else _ATTRIBUTES.decode(context),
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
