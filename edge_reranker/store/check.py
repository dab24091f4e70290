"""Whether a store is sound: the HMAC of every page, then the structure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.store import faults, keys, prefixes
from edge_reranker.store.open import PLAIN_HEADER, inspect, open_database
from edge_reranker.store.writer import checkpoint


def inspect_store(data_dir: Path, *, key_source: str = "auto") -> list[str]:
    """What is wrong with the store of a directory that no service holds; empty: it is sound, or not made yet.

    Makes no store and no key and migrates nothing. A log that a crash left is folded in, as at any opening.
    Raises StoreError when it cannot be opened: its key is gone or not the right one, or it is no store.
    """
    path = data_dir.absolute() / "store.db"
    with faults.translated(path):
        if not inspect(path):
            return []
        # It exists, so a key that is not there is an error, never made.
        key = keys.load_or_make(data_dir, path, source=key_source, database_exists=True)
        return problems(lambda: open_database(path, key, read_only=True))


def kept_fingerprint(data_dir: Path, *, key_source: str = "auto") -> str:
    """What the model state in the store of a directory depends on; "" if none is kept. Raises StoreError."""
    path = data_dir.absolute() / "store.db"
    with faults.translated(path):
        if not inspect(path):
            return ""
        key = keys.load_or_make(data_dir, path, source=key_source, database_exists=True)
        db = open_database(path, key, read_only=True)
        try:
            kept = prefixes.get(db) if "prefixes" in db.table_names() else None
        finally:
            db.close()
    return kept.fingerprint if kept is not None else ""


def cipher_version() -> str:
    """The version of SQLCipher that opens stores; empty when the library has no encryption."""
    db = dbapi2.connect(":memory:")
    try:
        row = db.execute("PRAGMA cipher_version").fetchone()
    finally:
        db.close()
    return "" if row is None else str(row[0])


def is_plain_database(path: Path) -> bool:
    """Whether a file is an SQLite database that is not encrypted. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(PLAIN_HEADER)) == PLAIN_HEADER


def problems(connect: Callable[[], Database]) -> list[str]:
    """What is wrong with the database behind ``connect``. No other connection may write to it meanwhile.

    Raises the database's own errors when it cannot be opened at all.
    """
    # The HMAC check reads the database file alone, so the log must be folded in first.
    db = connect()
    try:
        checkpoint(db)
    finally:
        db.close()
    found: list[str] = []
    for sql, sound in (("PRAGMA cipher_integrity_check", ""), ("PRAGMA quick_check", "ok")):
        # A connection each: once SQLCipher has met a damaged page, it refuses everything on that one.
        db = connect()
        try:
            found += [str(row[0]) for row in db.conn.execute(sql).fetchall() if row[0] != sound]
        except dbapi2.Error as e:
            found.append(f"{sql.removeprefix('PRAGMA ')}: {faults.error_name(e)}")
        finally:
            db.close()
    return found
