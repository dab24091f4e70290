"""What a model has made of a user's events, so that it need not read them again after a restart."""

from __future__ import annotations

from sqlite_utils import Database

from edge_reranker.types import PrefixState


def get(db: Database) -> PrefixState | None:
    """The one that is kept, if any."""
    row = db.conn.execute(
        "SELECT namespace, fingerprint, first_event, token_ids, state FROM prefixes"
    ).fetchone()
    return None if row is None else PrefixState(*row)


def put(db: Database, kept: PrefixState) -> None:
    """Keep this one, and no other: it is megabytes, and a worker holds one at a time."""
    clear(db)
    db.conn.execute(
        "INSERT INTO prefixes (namespace, fingerprint, first_event, token_ids, state) VALUES (?, ?, ?, ?, ?)",
        tuple(kept),
    )


def clear(db: Database) -> None:
    """Keep none."""
    db.conn.execute("DELETE FROM prefixes")
