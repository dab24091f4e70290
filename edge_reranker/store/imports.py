"""Taking in what an export gave: put aside first, moved into the store in one transaction at the end."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument
from edge_reranker.store import choices, events, faults, files, rankings
from edge_reranker.store.keys import Key
from edge_reranker.store.open import open_staging
from edge_reranker.store.writer import Writer, transaction
from edge_reranker.types import Event, LoggedChoice, LoggedRanking, MutedTopic, Record, Recorded

_SUFFIX = ".import"
# For the time of the move: with SQLite's 2 MB, every insert into an index would decrypt its page anew.
_CACHE_KIB = 32 * 1024
# Of one statement, which keeps each page as it was before, in memory, to be able to take itself back: 40,000
# events in one took 12 MB, in parts 5.
_PART_ROWS = 10_000

_TABLES = (
    """CREATE TABLE items (
        id INTEGER PRIMARY KEY,
        item_id TEXT,
        digest BLOB,
        title TEXT,
        text TEXT,
        tags TEXT,
        attributes TEXT,
        UNIQUE (item_id, digest)
    )""",
    # ``line`` is where it stood; lines rise, so it is the order of arrival, too.
    """CREATE TABLE events (
        line INTEGER PRIMARY KEY,
        event_id TEXT UNIQUE,
        type INTEGER,
        occurred_at REAL,
        query TEXT,
        dwell_s REAL,
        surface TEXT,
        session_id TEXT,
        ranking_id TEXT,
        position INTEGER,
        context TEXT,
        item INTEGER
    )""",
    """CREATE TABLE rankings (
        line INTEGER PRIMARY KEY,
        place INTEGER,
        ranking_id TEXT UNIQUE,
        created_at REAL,
        surface TEXT,
        session_id TEXT,
        body TEXT
    )""",
    """CREATE TABLE choices (
        line INTEGER PRIMARY KEY,
        event_id TEXT UNIQUE,
        newest INTEGER,
        sources TEXT,
        body BLOB
    )""",
    """CREATE TABLE muted (
        line INTEGER PRIMARY KEY,
        topic TEXT UNIQUE
    )""",
)


class Import:
    """One import into a namespace: ``add`` what is to come, then ``finish``; ``close`` in any case.

    Until ``finish`` the store is not touched and other writers go on. What was added lies in a file of its
    own, under a key that only this object has: whatever becomes of the process, nobody reads it again. Not
    thread-safe.
    """

    def __init__(
        self,
        store_path: Path,
        writer: Writer,
        namespace: str,
        committed: Callable[[Recorded], None],
        done: Callable[[], None],
        allowed: Callable[[], None] = lambda: None,
    ) -> None:
        """``committed`` hears of it before anybody else writes, ``done`` right before ``finish`` returns.

        ``allowed`` is asked in between writes, and raises when the namespace takes no events any more.
        """
        self._store_path = store_path
        self._writer = writer
        self._namespace = namespace
        self._committed = committed
        self._done = done
        self._allowed = allowed
        self._n_rankings = 0
        self._db: Database | None = None
        self._path = store_path.with_name(f"{secrets.token_hex(8)}{_SUFFIX}")
        self._key = Key(secrets.token_hex(32), "file")
        with faults.translated(store_path):
            files.private_file(self._path)
            try:
                self._db = open_staging(self._path, self._key)
                for statement in ("BEGIN", *_TABLES):
                    self._db.conn.execute(statement)
            except BaseException:
                self.close()
                raise

    def add(self, line: int, record: Record) -> None:
        """Put a record aside that stood in line ``line``; lines rise.

        Raises InvalidArgument for what cannot be kept as it is and an id that was there before, StoreFull.
        """
        with faults.translated(self._store_path):
            match record:
                case Event():
                    self._add_event(line, record)
                case LoggedRanking():
                    self._add_ranking(line, record)
                case LoggedChoice():
                    self._add_choice(line, record)
                case MutedTopic():
                    self._add_muted(line, record)

    def finish(self) -> Recorded:
        """Move everything into the store: all of it, durable on return, or nothing.

        Event ids that the store knows change nothing. Raises StoreBusy, StoreFull, StoreError.
        """
        with faults.translated(self._store_path):
            db = self._opened()
            db.conn.execute("COMMIT")
            db.close()
        recorded = self._writer.alone(self._move)
        self._done()
        return recorded

    def close(self) -> None:
        """Leave nothing behind. Idempotent."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(dbapi2.Error):
                db.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _opened(self) -> Database:
        if self._db is None:
            raise AssertionError("this import is closed")
        return self._db

    def _add_event(self, line: int, event: Event) -> None:
        conn = self._opened().conn
        row = events.encode_one(event, "event")
        item = None if row.item is None else self._snapshot(row.item)
        done = conn.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (line, *row.event, item),
        )
        if not done.rowcount:
            self._refuse_twice("events", "event.event_id", event.event_id)

    def _snapshot(self, item: tuple[Any, ...]) -> int:
        conn = self._opened().conn
        find = "SELECT id FROM items WHERE item_id = ? AND digest = ?"
        found = conn.execute(find, item[:2]).fetchone()
        if found is None:
            found = conn.execute(
                "INSERT INTO items (item_id, digest, title, text, tags, attributes) "
                "VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
                item,
            ).fetchone()
        return int(found[0])

    def _add_ranking(self, line: int, logged: LoggedRanking) -> None:
        ranking, body = logged.ranking, rankings.encode(logged.ranking)
        self._n_rankings += 1
        done = self._opened().conn.execute(
            "INSERT INTO rankings VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                line,
                self._n_rankings,
                ranking.ranking_id,
                logged.created_at,
                logged.surface,
                logged.session_id,
                body,
            ),
        )
        if not done.rowcount:
            self._refuse_twice("rankings", "ranking.ranking_id", ranking.ranking_id)

    def _add_choice(self, line: int, choice: LoggedChoice) -> None:
        self._line_of("choice.event_id", choice.event_id)
        newest = choice.newest_event_id
        known_to = self._line_of("choice.newest_event_id", newest) if newest else 0
        done = self._opened().conn.execute(
            "INSERT INTO choices VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (line, choice.event_id, known_to, json.dumps(choice.sources), choice.body),
        )
        if not done.rowcount:
            self._refuse_twice("choices", "choice.event_id", choice.event_id)

    def _line_of(self, field: str, event_id: str) -> int:
        sql = "SELECT line FROM events WHERE event_id = ?"
        found = self._opened().conn.execute(sql, (event_id,)).fetchone()
        if found is None:
            raise InvalidArgument(field, "is of no event before it; the events of choices come first")
        return int(found[0])

    def _add_muted(self, line: int, muted: MutedTopic) -> None:
        sql = "INSERT INTO muted VALUES (?, ?) ON CONFLICT DO NOTHING"
        if not self._opened().conn.execute(sql, (line, muted.topic)).rowcount:
            self._refuse_twice("muted", "muted.topic", muted.topic)

    def _refuse_twice(self, table: str, field: str, value: str) -> None:
        sql = f"SELECT line FROM {table} WHERE {field.partition('.')[2]} = ?"  # noqa: S608 (constants only)
        line = self._opened().conn.execute(sql, (value,)).fetchone()[0]
        raise InvalidArgument(field, f"is the same as in line {line:,}; each must be there once")

    def _move(self, db: Database) -> Recorded:
        """In the writer's thread."""
        self._allowed()
        with _attached(db, self._path, self._key), _larger_cache(db):
            with transaction(db):
                recorded = _move_events(db, self._namespace)
                _move_rankings(db, self._namespace)
                _move_choices(db, self._namespace, all_new=not recorded.duplicates)
                _move_muted(db, self._namespace)
            self._committed(recorded)
        return recorded


def remove_leftovers(data_dir: Path) -> None:
    """Remove what imports left that were killed. Raises OSError."""
    for path in data_dir.glob(f"*{_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _attached(db: Database, path: Path, key: Key) -> Iterator[None]:
    db.conn.execute("ATTACH DATABASE ? AS staged KEY ?", (f"{path.as_uri()}?mode=rw", f"x'{key.hex}'"))
    try:
        yield
    finally:
        with contextlib.suppress(dbapi2.Error):  # a connection in its error state is replaced by the writer
            db.conn.execute("DETACH DATABASE staged")


@contextlib.contextmanager
def _larger_cache(db: Database) -> Iterator[None]:
    before = int(db.conn.execute("PRAGMA main.cache_size").fetchone()[0])
    db.conn.execute(f"PRAGMA main.cache_size = -{_CACHE_KIB}")
    try:
        yield
    finally:
        with contextlib.suppress(dbapi2.Error):
            db.conn.execute(f"PRAGMA main.cache_size = {before}")
            db.conn.execute("PRAGMA shrink_memory")


def _move_events(db: Database, namespace: str) -> Recorded:
    conn = db.conn
    last_item = conn.execute("SELECT coalesce(max(id), 0) FROM items").fetchone()[0]
    for first, last in _parts(db, "items", "id"):
        conn.execute(
            "INSERT INTO items (namespace, item_id, digest, title, text, tags, attributes) "
            "SELECT ?, item_id, digest, title, text, tags, attributes FROM staged.items "
            "WHERE id BETWEEN ? AND ? ON CONFLICT DO NOTHING",
            (namespace, first, last),
        )
    recorded = 0
    for first, last in _parts(db, "events", "line"):
        recorded += conn.execute(
            "INSERT INTO events (namespace, event_id, type, occurred_at, query, dwell_s, surface, "
            "session_id, ranking_id, position, context, item) "
            "SELECT ?1, s.event_id, s.type, s.occurred_at, s.query, s.dwell_s, s.surface, s.session_id, "
            "s.ranking_id, s.position, s.context, i.id FROM staged.events AS s "
            "LEFT JOIN staged.items AS si ON si.id = s.item "
            "LEFT JOIN items AS i ON i.namespace = ?1 AND i.item_id = si.item_id AND i.digest = si.digest "
            "WHERE s.line BETWEEN ?2 AND ?3 ORDER BY s.line ON CONFLICT DO NOTHING",
            (namespace, first, last),
        ).rowcount
    n_staged = conn.execute("SELECT count(*) FROM staged.events").fetchone()[0]
    if recorded != n_staged:
        # Snapshots that only events saw which are known already, with another one.
        conn.execute(
            "DELETE FROM items WHERE id > ? "
            "AND NOT EXISTS (SELECT 1 FROM events WHERE events.item = items.id)",
            (last_item,),
        )
    return Recorded(recorded, n_staged - recorded)


def _parts(db: Database, table: str, key: str) -> Iterator[tuple[int, int]]:
    """Spans of a staged table's numbers, first and last."""
    sql = f"SELECT coalesce(max({key}), 0) FROM staged.{table}"  # noqa: S608 (constants only)
    last = int(db.conn.execute(sql).fetchone()[0])
    for first in range(1, last + 1, _PART_ROWS):
        yield first, first + _PART_ROWS - 1


def _move_rankings(db: Database, namespace: str) -> None:
    """Behind all that are there, so that those are kept longer; the newest come first.

    They may have been made with any event that is there now.
    """
    first = db.conn.execute("SELECT coalesce(min(rowid), 1) FROM rankings").fetchone()[0]
    room = rankings.KEPT - len(rankings.places(db, namespace))
    db.conn.execute(
        "INSERT INTO rankings (rowid, namespace, ranking_id, created_at, surface, session_id, body, "
        "newest_event) SELECT ?1 - place, ?2, ranking_id, created_at, surface, session_id, body, "
        "(SELECT ifnull(max(seq), 0) FROM main.events) FROM staged.rankings "
        "WHERE place <= ?3 ORDER BY place ON CONFLICT DO NOTHING",
        (first, namespace, room),
    )


def _move_choices(db: Database, namespace: str, *, all_new: bool) -> None:
    """Those of events that have none; what another namespace had a part in only where that grants it here.

    Events have the numbers now in which they were in the file, unless some were here before, and those of
    other namespaces have any: then it may have been made with any event that is there now.
    """
    db.conn.execute(
        "INSERT INTO choices (seq, namespace, newest_event, sources, body) "
        "SELECT e.seq, ?1, CASE WHEN s.sources = '[]' AND ?2 THEN ifnull("
        "(SELECT k.seq FROM staged.events AS ks JOIN main.events AS k ON k.namespace = ?1 "
        "AND k.event_id = ks.event_id WHERE ks.line = s.newest), 0) "
        "ELSE (SELECT max(seq) FROM main.events) END, s.sources, s.body "
        "FROM staged.choices AS s JOIN main.events AS e ON e.namespace = ?1 AND e.event_id = s.event_id "
        "WHERE NOT EXISTS (SELECT 1 FROM json_each(s.sources) WHERE value NOT IN "
        "(SELECT source FROM grants WHERE reader = ?1)) ORDER BY s.line ON CONFLICT DO NOTHING",
        (namespace, all_new),
    )
    choices.prune(db, namespace)


def _move_muted(db: Database, namespace: str) -> None:
    db.conn.execute(
        "INSERT INTO muted (namespace, topic) SELECT ?, topic FROM staged.muted WHERE true "
        "ON CONFLICT DO NOTHING",
        (namespace,),
    )
