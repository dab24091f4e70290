"""Damaged, or only the wrong key: the one question that must be answered before a store is put aside."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreCorrupt, StoreError
from edge_reranker.store import faults, keycheck
from edge_reranker.store.keys import Key
from edge_reranker.store.open import PAGE_BYTES, open_database, open_still
from edge_reranker.store.writer import checkpoint

# What SQLCipher says of a page that the disk did not give; it may do so later.
_UNREADABLE = "error reading"


def damage(path: Path, key: Key) -> list[str]:
    """What is damaged in the database ``path``; empty when it is sound. Reads every page.

    A file counts as damaged only when this key is shown to be its own: when at least one of its pages has a
    right HMAC. An empty file, or one of zeros, is nobody's. No connection may be open that could write.
    Raises StoreCorrupt when no page belongs to the key, StoreError when the disk does not answer.
    """
    if (path.stat().st_size if path.exists() else 0) < PAGE_BYTES or _only_zeros(path):
        return ["the file has lost its content"]
    # What a crash left in the log belongs to the store, and may even mend a page.
    with contextlib.suppress(dbapi2.DatabaseError), contextlib.closing(open_database(path, key)) as db:
        checkpoint(db)
    wrong = wrong_pages(path, key)
    if len(wrong) < n_pages(path):
        return wrong or structure(path, key)
    salt = keycheck.recorded_salt(path.parent, key)
    if salt == "":
        raise StoreCorrupt(
            f"the key is not that of {path}: put back the right one, or run `edge-reranker key import FILE`; "
            "or move the file away to start empty"
        )
    if salt is not None and len(wrong_pages(path, key, salt=salt)) < n_pages(path):
        return ["the first bytes of the file"]
    raise StoreCorrupt(
        f"{path} is damaged as a whole, or its key is not the right one; put back the key "
        "(`edge-reranker key import FILE`) or a backup (`edge-reranker backup restore`), "
        "or move the file away to start empty"
    )


def problems_of_copy(path: Path, key: Key) -> list[str]:
    """What is wrong with a copy that nobody has open. Raises StoreError when the disk does not answer."""
    try:
        wrong = wrong_pages(path, key)
        return wrong or structure(path, key)
    except dbapi2.Error as e:
        return [faults.error_name(e)]


def n_pages(path: Path) -> int:
    """How many pages a file has, with one that is cut off."""
    return -(-path.stat().st_size // PAGE_BYTES)


def wrong_pages(path: Path, key: Key, *, salt: str = "") -> list[str]:
    """What SQLCipher says of each page whose HMAC is wrong.

    Raises StoreError when the disk does not give a page, and the database's own errors.
    """
    with contextlib.closing(open_still(path, key, salt=salt)) as db:
        return wrong_pages_of(db)


def wrong_pages_of(db: Database) -> list[str]:
    """``wrong_pages`` of an open database, into which nobody may fold a log meanwhile."""
    found = [str(row[0]) for row in db.conn.execute("PRAGMA cipher_integrity_check").fetchall()]
    if any(line.startswith(_UNREADABLE) for line in found):
        raise StoreError("the store cannot be read in full; check the disk")
    return found


def structure(path: Path, key: Key) -> list[str]:
    """What is wrong in how the pages hang together, once each is known to be as it was written."""
    with contextlib.closing(open_still(path, key)) as db:
        try:
            rows = db.conn.execute("PRAGMA quick_check").fetchall()
        except dbapi2.DatabaseError as e:
            if faults.is_damage(e):
                return [f"quick_check: {faults.error_name(e)}"]
            raise
    return [str(row[0]) for row in rows if row[0] != "ok"]


def _only_zeros(path: Path) -> bool:
    with path.open("rb") as f:
        return not any(any(part) for part in iter(lambda: f.read(1 << 20), b""))
