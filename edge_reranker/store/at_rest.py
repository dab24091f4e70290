"""What is done to the copies of a store by hand, whether it is open somewhere or not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge_reranker.errors import FailedPrecondition, StoreCorrupt
from edge_reranker.store import faults, files, keys, recovery, rotation
from edge_reranker.store.backups import KEPT, Backup, Backups, held_still
from edge_reranker.store.open import inspect, open_database
from edge_reranker.store.recovery import Quarantined


def list_backups(data_dir: Path, *, key_source: str = "auto") -> list[tuple[Backup, int | None]]:
    """All backups, oldest first, each with its number of events, None where the key does not open it.

    Raises StoreError when the key cannot be had.
    """
    path = data_dir.absolute() / "store.db"
    with faults.translated(path):
        if not (path.parent / "backups").is_dir():
            return []
        backups = _backups(path, key_source, KEPT)
        return [(backup, backups.n_events(backup)) for backup in backups.list()]


def make_backup(data_dir: Path, *, key_source: str = "auto", kept: int = KEPT) -> Backup:
    """Make a backup now, also while a service runs. Raises FailedPrecondition without a store, StoreError."""
    path = data_dir.absolute() / "store.db"
    with faults.translated(path):
        if not inspect(path):
            raise FailedPrecondition(f"there is no store in {data_dir} to back up")
        backups = _backups(path, key_source, kept or KEPT)
        return backups.make(lambda: held_still(partial(open_database, path, backups.key), path))


def restore_backup(data_dir: Path, name: str = "", *, key_source: str = "auto") -> Quarantined:
    """Put the backup ``name``, or the newest sound one, in the place of a store that no service holds.

    The store goes to quarantine, sound or not. Raises NotFound, StoreCorrupt when the backup is damaged or
    under another key, StoreError.
    """
    path = data_dir.absolute() / "store.db"
    with faults.translated(path):
        files.private_dir(path.parent)
        recovery.finish(path)
        rotation.finish(path.parent, source=key_source)
        backups = _backups(path, key_source, KEPT)
        backup = backups.named(name) if name else backups.newest_sound()
        if backup is None:
            raise FailedPrecondition(
                f"there is no sound backup in {backups.folder}; see `edge-reranker backup list`"
            )
        if not backups.sound(backup):
            raise StoreCorrupt(f"{backup.path} is damaged or has another key; choose another backup")
        return recovery.restore(path, backups, backup, ["restored by hand"], told=True)


def _backups(path: Path, key_source: str, kept: int) -> Backups:
    # Whatever happened to the database: a key that is gone is never made anew for what the old one opens.
    key = keys.load_or_make(path.parent, path, source=key_source, database_exists=True)
    return Backups(path.parent, key, kept=kept)
