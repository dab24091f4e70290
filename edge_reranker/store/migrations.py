"""The schema, as named steps. Append only: a step that was released is never changed."""

from __future__ import annotations

from pathlib import Path

from sqlite_utils import Database, Migrations

from edge_reranker.errors import StoreCorrupt

MIGRATIONS = Migrations("edge-reranker")


def _first(db: Database) -> None:
    # A snapshot per content, not per item: what an event saw stays as it was when the item changes later.
    db.execute(
        """CREATE TABLE items (
            id INTEGER PRIMARY KEY,
            namespace TEXT NOT NULL,
            item_id TEXT NOT NULL,
            digest BLOB NOT NULL,
            title TEXT NOT NULL,
            text TEXT NOT NULL,
            tags TEXT NOT NULL,
            attributes TEXT NOT NULL,
            UNIQUE (namespace, item_id, digest)
        ) STRICT"""
    )
    db.execute(
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY,
            namespace TEXT NOT NULL,
            event_id TEXT NOT NULL,
            type INTEGER NOT NULL,
            occurred_at REAL NOT NULL,
            item INTEGER REFERENCES items (id),
            query TEXT NOT NULL,
            dwell_s REAL NOT NULL,
            surface TEXT NOT NULL,
            session_id TEXT NOT NULL,
            ranking_id TEXT NOT NULL,
            position INTEGER,
            UNIQUE (namespace, event_id)
        ) STRICT"""
    )
    db.execute("CREATE INDEX events_by_time ON events (namespace, occurred_at, seq)")
    db.execute("CREATE INDEX events_by_item ON events (item)")
    # The item is part of the key: two items with one text have a row each, so one can be forgotten alone.
    db.execute(
        """CREATE TABLE vectors (
            namespace TEXT NOT NULL,
            space TEXT NOT NULL,
            content_hash TEXT NOT NULL,
            item_id TEXT NOT NULL,
            vector BLOB NOT NULL,
            PRIMARY KEY (namespace, space, content_hash, item_id)
        ) STRICT, WITHOUT ROWID"""
    )
    db.execute("CREATE INDEX vectors_by_item ON vectors (namespace, item_id)")
    db.execute(
        """CREATE TABLE rankings (
            namespace TEXT NOT NULL,
            ranking_id TEXT NOT NULL,
            created_at REAL NOT NULL,
            surface TEXT NOT NULL,
            session_id TEXT NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (namespace, ranking_id)
        ) STRICT"""
    )


def _prefix(db: Database) -> None:
    # At most one row: what the worker that reads candidates held last.
    db.execute(
        """CREATE TABLE prefixes (
            namespace TEXT NOT NULL PRIMARY KEY,
            fingerprint TEXT NOT NULL,
            first_event TEXT NOT NULL,
            token_ids BLOB NOT NULL,
            state BLOB NOT NULL
        ) STRICT"""
    )


def _forgetting(db: Database) -> None:
    # The number of the newest event when the ranking was logged, of whomever. What is there already may have
    # been made with any event that is there.
    db.execute("ALTER TABLE rankings ADD COLUMN newest_event INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE rankings SET newest_event = (SELECT ifnull(max(seq), 0) FROM events)")
    # A row while a forget is being carried out. With a selector (JSON, for events up to the number ``until``)
    # rows may still have to go, else only what is beside the tables: the log, backups.
    db.execute(
        """CREATE TABLE forgets (
            id INTEGER PRIMARY KEY,
            namespace TEXT NOT NULL,
            selector TEXT,
            until INTEGER NOT NULL
        ) STRICT"""
    )


def _retention(db: Database) -> None:
    # Type 0: of all types.
    db.execute(
        """CREATE TABLE retention (
            namespace TEXT NOT NULL,
            type INTEGER NOT NULL,
            max_age_days INTEGER NOT NULL,
            max_events INTEGER NOT NULL,
            PRIMARY KEY (namespace, type)
        ) STRICT, WITHOUT ROWID"""
    )
    # At most one row: what time it was when somebody looked last.
    db.execute(
        """CREATE TABLE clock (
            store_s REAL NOT NULL,
            device_s REAL NOT NULL,
            steps TEXT NOT NULL
        ) STRICT"""
    )


def _namespaces(db: Database) -> None:
    # The tables above name namespaces without a reference: what is not listed here has no token.
    db.execute(
        """CREATE TABLE namespaces (
            name TEXT NOT NULL PRIMARY KEY,
            ending INTEGER NOT NULL DEFAULT 0
        ) STRICT"""
    )
    db.execute("INSERT INTO namespaces (name) VALUES ('default')")
    db.execute(
        """CREATE TABLE grants (
            reader TEXT NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
            source TEXT NOT NULL REFERENCES namespaces (name) ON DELETE CASCADE,
            granted_at REAL NOT NULL,
            PRIMARY KEY (reader, source)
        ) STRICT, WITHOUT ROWID"""
    )
    db.execute("CREATE INDEX grants_by_source ON grants (source)")
    # By whose events a ranking went besides its own namespace's, as a JSON list: it goes with the grant.
    db.execute("ALTER TABLE rankings ADD COLUMN sources TEXT NOT NULL DEFAULT '[]'")
    # One app's rankings must not push out another's.
    db.execute("CREATE INDEX rankings_by_namespace ON rankings (namespace)")


def _events_by_type(db: Database) -> None:
    # The newest events that say something of the user, however many impressions lie between them.
    db.execute("CREATE INDEX events_by_type ON events (namespace, type, occurred_at, seq)")


def _learning(db: Database) -> None:
    # What was shown, and by which numbers: of the newest rankings only.
    db.execute("ALTER TABLE rankings ADD COLUMN detail BLOB")
    db.execute("CREATE INDEX rankings_with_detail ON rankings (namespace) WHERE detail IS NOT NULL")
    # What the user chose from a list, of an event that names it; ``newest_event`` and ``sources`` are the
    # ranking's, which may go before: it goes with whatever that was made of.
    db.execute(
        """CREATE TABLE choices (
            seq INTEGER PRIMARY KEY REFERENCES events (seq) ON DELETE CASCADE,
            namespace TEXT NOT NULL,
            newest_event INTEGER NOT NULL,
            sources TEXT NOT NULL,
            body BLOB NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX choices_by_namespace ON choices (namespace)")
    db.execute(
        """CREATE TABLE muted (
            namespace TEXT NOT NULL,
            topic TEXT NOT NULL,
            PRIMARY KEY (namespace, topic)
        ) STRICT, WITHOUT ROWID"""
    )


def _event_context(db: Database) -> None:
    # What the app told of the device or the moment, as a JSON object with its names in order.
    db.execute("ALTER TABLE events ADD COLUMN context TEXT NOT NULL DEFAULT '{}'")


MIGRATIONS(name="0001_events_items_vectors_rankings")(_first)
MIGRATIONS(name="0002_prefixes")(_prefix)
MIGRATIONS(name="0003_forgetting")(_forgetting)
MIGRATIONS(name="0004_retention")(_retention)
MIGRATIONS(name="0005_namespaces")(_namespaces)
MIGRATIONS(name="0006_events_by_type")(_events_by_type)
MIGRATIONS(name="0007_learning")(_learning)
MIGRATIONS(name="0008_event_context")(_event_context)


def applied(db: Database, migrations: Migrations = MIGRATIONS) -> list[str]:
    """The steps that ``db`` has, in order."""
    return [step.name for step in migrations.applied(db)]


def pending(db: Database, path: Path, migrations: Migrations = MIGRATIONS) -> list[str]:
    """The steps that ``db`` lacks. Raises StoreCorrupt when a newer version made it."""
    with Database(memory=True, execute_plugins=False) as empty:
        known = {step.name for step in migrations.pending(empty)}
    if {step.name for step in migrations.applied(db)} - known:
        raise StoreCorrupt(
            f"{path} was made by a newer version of edge-reranker; update it, "
            "or move the file away to start empty"
        )
    return [step.name for step in migrations.pending(db)]


def migrate(db: Database, path: Path, migrations: Migrations = MIGRATIONS) -> None:
    """Bring ``db`` to this version's schema, by all steps that it lacks or by none.

    Raises StoreCorrupt when a newer version made it, and the database's own errors.
    """
    if pending(db, path, migrations):
        # One transaction around all: the version that made ``db`` can still open what a failure leaves.
        with db.atomic():
            migrations.apply(db)
