"""Opening the database: the only place that knows how a connection is set up."""

from __future__ import annotations

from pathlib import Path

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreCorrupt, StoreError
from edge_reranker.store import files
from edge_reranker.store.keys import Key
from edge_reranker.store.migrations import migrate
from edge_reranker.store.writer import checkpoint

_PLAIN_HEADER = b"SQLite format 3\0"
PAGE_BYTES = 4096


def inspect(path: Path) -> bool:
    """Whether there is a database at ``path`` to open; False when one is to be made.

    Nothing is changed. Raises StoreCorrupt when what is there cannot be a database of ours.
    """
    log = path.with_name(path.name + "-wal")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise StoreCorrupt(f"{path} is not a regular file; move it away")
    size = path.stat().st_size if path.exists() else 0
    if size == 0:
        if log.exists() and log.stat().st_size > 0:
            # SQLite would throw the log away, and with it what was recorded last.
            raise StoreCorrupt(
                f"{path} is empty or gone but {log.name} is not; put back the database, or move both away"
            )
        if path.exists():
            raise StoreCorrupt(f"{path} is empty; put back a backup, or move it away to start empty")
        return False
    with path.open("rb") as f:
        header = f.read(len(_PLAIN_HEADER))
    if header == _PLAIN_HEADER:
        raise StoreCorrupt(f"{path} is an unencrypted SQLite file, not a store; move it away to start empty")
    if size < PAGE_BYTES:
        raise StoreCorrupt(f"{path} is too short to be a store; put back a backup, or move it away")
    return True


def make_database(path: Path, key: Key) -> None:
    """Make a database without rows at ``path``, whole or not at all.

    Raises OSError, and the database's own errors.
    """
    # Under another name until it is whole: an empty file at ``path`` is then never one of ours that a crash
    # cut short, but one that lost its content.
    part = path.with_name(path.name + ".part")
    for suffix in ("", "-journal", "-wal", "-shm"):
        part.with_name(part.name + suffix).unlink(missing_ok=True)
    files.private_file(part)
    db = open_database(part, key)
    try:
        migrate(db, part)
        checkpoint(db)
    finally:
        db.close()
    part.replace(path)
    files.sync_dir(path.parent)


def make_private(path: Path) -> None:
    """Make the database and its log readable by their owner only.

    Raises OSError, and StoreCorrupt for a link.
    """
    files.private_file(path)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            files.private_file(beside)


def open_database(path: Path, key: Key, *, read_only: bool = False) -> Database:
    """A connection to the store at ``path``, which may be used from any one thread at a time.

    The file must be there: one that vanished under a running service must not be replaced by an empty one.
    Raises the database's own errors, StoreError for a build without encryption.
    """
    # isolation_level=None: this project begins and ends transactions itself, nothing begins one behind it.
    conn = dbapi2.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    try:
        _set_up(conn, path, key, read_only=read_only)
        # Plug-ins of sqlite-utils are other people's code: they get no connection to this file.
        return Database(conn, execute_plugins=False, recursive_triggers=False)
    except BaseException:
        conn.close()
        raise


def open_staging(path: Path, key: Key) -> Database:
    """A connection to a database at ``path`` that need not outlive a crash, for rows on their way.

    Raises as ``open_database``.
    """
    db = open_database(path, key, read_only=True)
    # The file is thrown away, so nothing has to survive, nor to be undone.
    for pragma in ("query_only = OFF", "journal_mode = OFF", "synchronous = OFF"):
        db.conn.execute(f"PRAGMA {pragma}").fetchone()
    return db


def open_still(path: Path, key: Key, *, salt: str = "") -> Database:
    """A connection that reads a file which nobody writes to, and makes no file beside it.

    Nothing is read yet, so it may also be the wrong key or no database. ``salt`` (hex) stands in for that
    of a file whose first bytes are damaged. Raises the database's own errors, StoreError.
    """
    conn = dbapi2.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    try:
        _unlock(conn, path, key)
        if salt:
            conn.execute(f"PRAGMA cipher_salt = \"x'{salt}'\"")
        conn.execute("PRAGMA temp_store = MEMORY")
        return Database(conn, execute_plugins=False, recursive_triggers=False)
    except BaseException:
        conn.close()
        raise


def open_target(path: Path, key: Key) -> Database:
    """A connection to an empty file that is to become a copy; whoever made it syncs it at the end.

    Raises the database's own errors, StoreError.
    """
    conn = dbapi2.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None)
    try:
        _unlock(conn, path, key)
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("PRAGMA journal_mode = OFF")
        return Database(conn, execute_plugins=False, recursive_triggers=False)
    except BaseException:
        conn.close()
        raise


def _unlock(conn: dbapi2.Connection, path: Path, key: Key) -> None:
    # SQLCipher writes to stderr by itself; errors are raised anyway.
    conn.execute("PRAGMA cipher_log_level = NONE")
    # A raw key, 32 random bytes: no passphrase, so nothing to stretch (a quarter second per connection).
    conn.execute(f"PRAGMA key = \"x'{key.hex}'\"")
    # The format of SQLCipher 4 (AES-256, HMAC-SHA512, 4 KiB pages), whatever a later library prefers.
    conn.execute("PRAGMA cipher_compatibility = 4")
    if conn.execute("PRAGMA cipher_version").fetchone() is None:
        raise StoreError(f"{path} was not opened: this sqlcipher3 has no encryption; reinstall it")


def _set_up(conn: dbapi2.Connection, path: Path, key: Key, *, read_only: bool) -> None:
    def pragma(text: str) -> object:
        row = conn.execute(f"PRAGMA {text}").fetchone()
        return None if row is None else row[0]

    _unlock(conn, path, key)
    # Off: it wipes every freed allocation, and the plain records are in this process's memory anyway.
    pragma("cipher_memory_security = OFF")
    # Another process (doctor) may hold the lock for a moment.
    pragma("busy_timeout = 5000")
    # Sorting and temporary tables never reach a disk, where they would be plain text.
    pragma("temp_store = MEMORY")
    # Encrypted pages cannot be used from a map, and a map turns a disk error into a signal.
    pragma("mmap_size = 0")
    # A damaged or hostile schema must not call functions behind our back.
    pragma("trusted_schema = OFF")
    # The first read: with the wrong key it fails here, before anything below writes.
    pragma("schema_version")
    if read_only:
        pragma("query_only = ON")
        return
    # Readers never wait for the writer.
    if pragma("journal_mode = WAL") != "wal":
        raise StoreError(f"{path} is on a file system without shared memory; use a local disk")
    # NORMAL lost acknowledged writes in 279 of 381 simulated power losses, FULL in none of 462.
    pragma("synchronous = FULL")
    # macOS: fsync alone does not reach the medium there. No effect elsewhere.
    pragma("fullfsync = ON")
    pragma("checkpoint_fullfsync = ON")
    # An item that an event refers to cannot go.
    pragma("foreign_keys = ON")
    # What is deleted is overwritten, even though it is encrypted: the key lives on.
    pragma("secure_delete = ON")
    # The log is cut back to this once it was folded in, so that one big import does not hold the space for
    # good. Half of what the writer lets it have: to write over it is faster than to make it longer.
    pragma("journal_size_limit = 2097152")
    # The writer folds the log in: SQLite by itself would not tell of an error.
    pragma("wal_autocheckpoint = 0")
    # The name of the log. SQLite syncs it too, but says nothing when that fails.
    files.sync_dir(path.parent)
