"""From a directory, however it was left, to a store that can be opened."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlcipher3 import dbapi2

from edge_reranker.errors import StoreCorrupt, StoreFull
from edge_reranker.store import (
    damage,
    faults,
    keycheck,
    keys,
    migrations,
    namespaces,
    promises,
    recovery,
    rotation,
)
from edge_reranker.store.backups import Backups, held_still
from edge_reranker.store.keys import Key
from edge_reranker.store.open import inspect, make_database, make_private, open_database
from edge_reranker.store.writer import checkpoint
from edge_reranker.types import Grant


@dataclass(frozen=True, slots=True)
class Started:
    """The key; whether the last process that wrote ended without closing; what was put aside, if anything.

    And what is stored of grants, of namespaces whose deletion was cut off, and whether some forget was.
    """

    key: Key
    unclean: bool
    recovered: recovery.Quarantined | None = None
    grants: tuple[Grant, ...] = ()
    ending: tuple[str, ...] = ()
    unfinished: bool = False


def start(path: Path, *, source: str, kept: int) -> Started:
    """Make the store at ``path``, or bring what is there to this version: whole, migrated, log folded in.

    A damaged one is put aside for the newest sound backup. Before a migration a backup is made, unless
    ``kept`` is 0 or there is no room. Raises StoreError, the database's own errors, OSError.
    """
    data_dir = path.parent
    recovery.finish(path)
    rotation.finish(data_dir, source=source)
    _remove_parts(path)
    refused: StoreCorrupt | None = None
    try:
        exists = inspect(path)
    except StoreCorrupt as error:
        refused, exists = error, True
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise
    try:
        key = keys.load_or_make(data_dir, path, source=source, database_exists=exists)
    except StoreCorrupt as error:
        raise refused or error from None
    backups = Backups(data_dir, key, kept=kept)
    backups.clean()
    if not exists:
        make_database(path, key)
    try:
        if refused is not None:
            raise refused
        unclean = _has_log(path)
        return Started(key, unclean, None, *bring_up(path, key, backups))
    except (StoreCorrupt, dbapi2.DatabaseError) as error:
        if not (isinstance(error, StoreCorrupt) or faults.is_damage(error)):
            raise
        recovered = replace_damaged(path, key, backups, error)
        return Started(key, False, recovered, *bring_up(path, key, backups))


def bring_up(path: Path, key: Key, backups: Backups) -> tuple[tuple[Grant, ...], tuple[str, ...], bool]:
    """Bring the database to this version's schema, and fold its log in. Raises as ``start``.

    Returns the grants, the namespaces whose deletion was cut off, and whether some forget was.
    """
    found: tuple[tuple[Grant, ...], tuple[str, ...], bool] = ((), (), False)
    make_private(path)
    with contextlib.closing(open_database(path, key)) as db:
        try:
            if migrations.applied(db) and migrations.pending(db, path) and backups.kept:
                with contextlib.suppress(StoreFull):  # who has no room must still get in, to make some
                    backups.make(lambda: held_still(partial(open_database, path, key), path))
            migrations.migrate(db, path)
            ending = tuple(namespaces.ending(db))
            found = tuple(namespaces.grants(db)), ending, promises.unfinished(db)
            # A forget that was cut off before its checkpoint leaves rows in the log: they go now.
            checkpoint(db)
        except dbapi2.Error as e:
            # Whoever must forget to get room has to get in first. No write is lost: the log is durable.
            if not faults.is_full(e):
                raise
        else:
            keycheck.renew(path.parent, key, db)
    return found


def replace_damaged(path: Path, key: Key, backups: Backups, error: Exception) -> recovery.Quarantined:
    """Put a damaged database aside for the newest sound backup.

    Raises ``error`` when it is not damaged or there is no such backup, StoreCorrupt for a wrong key.
    """
    try:
        why = damage.damage(path, key)
    except StoreCorrupt as other:
        # What was said first is nearer: that it is no store at all, or of a newer version.
        raise error if isinstance(error, StoreCorrupt) else other from None
    recovered = recovery.restore_newest(path, backups, why) if why else None
    if recovered is None:
        raise error
    return recovered


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _remove_parts(path: Path) -> None:
    """What a crash left of a copy that was to become the store, or of a key."""
    parts = [f"{path.name}.part{suffix}" for suffix in ("", "-journal", "-wal", "-shm")]
    parts += [f"{name}.part" for name in ("key", "key-id", "key.new", "key-id.new", "key-check")]
    for name in parts:
        path.with_name(name).unlink(missing_ok=True)
