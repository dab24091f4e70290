"""The key: changed for a new one, written to a file under a passphrase, and taken back from it.

A change copies the whole store under the new key. Which key is the right one is never written down: after a
crash it is the one that opens the store, and both are kept until that is decided for good.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from sqlcipher3 import dbapi2

from edge_reranker.errors import FailedPrecondition, InvalidArgument, StoreCorrupt, StoreError, StoreFull
from edge_reranker.store import damage, faults, files, keycheck, keys, passphrase, recovery
from edge_reranker.store.backups import Backups, copy, held_still
from edge_reranker.store.keys import Key
from edge_reranker.store.open import inspect, open_database

_P = ParamSpec("_P")
_T = TypeVar("_T")

_FORMAT = "edge-reranker-key-1"
# A key under a passphrase has a few hundred bytes.
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Rotated:
    """How many backups and quarantined stores under the old key went; a new backup stands for them."""

    backups: int
    quarantined: int


def _in_terms_of_the_store(call: Callable[_P, _T]) -> Callable[_P, _T]:
    @functools.wraps(call)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with faults.translated(Path(str(args[0])) / "store.db"):
            return call(*args, **kwargs)

    return inner


@_in_terms_of_the_store
def rotate(data_dir: Path, *, source: str) -> Rotated:
    """Give the store of a directory that no service holds a new key; after a crash it has the old or the new.

    Backups and quarantined stores under the old key are removed: whoever has that key could read them. One
    new backup is made. Raises FailedPrecondition without a store, StoreError, OSError.
    """
    path = data_dir / "store.db"
    if not inspect(path):
        raise FailedPrecondition(f"there is no store in {data_dir}; its key is made by the first `serve`")
    finish(data_dir, source=source)
    old = keys.load_or_make(data_dir, path, source=source, database_exists=True)
    new = keys.make_next(data_dir, old)
    part = path.with_name(path.name + ".part")
    try:
        with held_still(partial(open_database, path, old), path) as db:
            copy(db, part, new)
            if damage.wrong_pages_of(db) or damage.problems_of_copy(part, new):
                raise StoreCorrupt(f"{path} is damaged: run `edge-reranker backup restore` first")
    except BaseException:
        part.unlink(missing_ok=True)
        keys.drop_next(data_dir)
        raise
    # The log was empty, and went with the last connection; were it there, it would be played into the copy.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    part.replace(path)
    files.sync_dir(data_dir)
    return finish(data_dir, source=source) or Rotated(0, 0)


@_in_terms_of_the_store
def finish(data_dir: Path, *, source: str) -> Rotated | None:
    """Carry on a change of the key that was cut off, or undo it if it had not come to the store.

    None when there was nothing to carry on. Raises StoreCorrupt when neither key is the store's, StoreError.
    """
    path = data_dir / "store.db"
    if not keys.has_next(data_dir):
        return None
    new = keys.load_next(data_dir, path, source=source)
    if new is None or not belongs(path, new):
        old = keys.load_or_make(data_dir, path, source=source, database_exists=True)
        if not belongs(path, old):
            raise StoreCorrupt(
                f"{path} opens with neither its old nor its new key; put back a copy of {data_dir}, "
                "or move the file away to start empty"
            )
        keys.drop_next(data_dir)
        return None
    backups = Backups(data_dir, new)
    newest = next(reversed(backups.list()), None)
    try:
        if newest is None or backups.n_events(newest) is None:
            newest = backups.make(lambda: held_still(partial(open_database, path, new), path))
    except StoreFull:
        newest = None  # none under the new key is better than some under the old
    except (StoreCorrupt, dbapi2.DatabaseError) as error:
        if not (isinstance(error, StoreCorrupt) or faults.is_damage(error)):
            raise
        # What the old key opens is all that there is: both are left.
        raise StoreCorrupt(
            f"{path} was damaged while its key was being changed; move it and {data_dir / 'key.new'} (or "
            "key-id.new) away, then run `edge-reranker backup restore`"
        ) from None
    gone = Rotated(backups.remove(but=newest), recovery.remove_quarantined(data_dir))
    keys.promote_next(data_dir, new)
    # One that was damaged meanwhile is seen to by whoever opens it next: the new backup is there.
    with contextlib.suppress(dbapi2.DatabaseError), contextlib.closing(open_database(path, new)) as db:
        keycheck.renew(data_dir, new, db)
    return gone


def belongs(path: Path, key: Key) -> bool:
    """Whether ``key`` is that of the database ``path``, which may be damaged. Raises StoreError."""
    try:
        with contextlib.closing(open_database(path, key)):
            return True
    except dbapi2.Error as e:
        if not faults.is_damage(e):
            raise
    return len(damage.wrong_pages(path, key)) < damage.n_pages(path)


@_in_terms_of_the_store
def export_key(data_dir: Path, target: Path, words: str, *, source: str) -> None:
    """Write the key to the new file ``target``, under the passphrase ``words``.

    Raises FailedPrecondition when there is no store or the file exists, StoreError, OSError.
    """
    path = data_dir / "store.db"
    if not inspect(path):
        raise FailedPrecondition(f"there is no store in {data_dir}; its key is made by the first `serve`")
    finish(data_dir, source=source)
    key = keys.load_or_make(data_dir, path, source=source, database_exists=True)
    if not belongs(path, key):
        raise StoreCorrupt(f"the key in {data_dir} does not open {path}, so it was not exported")
    sealed = io.BytesIO()
    passphrase.encrypt(io.BytesIO(json.dumps({"format": _FORMAT, "key": key.hex}).encode()), sealed, words)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(target, flags, 0o600)
    except FileExistsError:
        raise FailedPrecondition(f"{target} exists; choose another name") from None
    with os.fdopen(descriptor, "wb") as f:
        os.fchmod(descriptor, 0o600)
        f.write(sealed.getvalue())
        f.flush()
        os.fsync(descriptor)
    files.sync_dir(target.absolute().parent)


@_in_terms_of_the_store
def import_key(data_dir: Path, exported: Path, words: str, *, source: str) -> Key:
    """Make the key that ``export_key`` wrote the key of a directory that no service holds.

    Raises InvalidArgument for a wrong passphrase or another file, FailedPrecondition when the store opens
    with its key as it is or has another key than this, StoreError, OSError.
    """
    with exported.open("rb") as f:
        sealed = f.read(_MOST_BYTES)
    opened = io.BytesIO()
    passphrase.decrypt(io.BytesIO(sealed), opened, words)
    try:
        found = json.loads(opened.getvalue())
        hex_ = str(found["key"]) if found["format"] == _FORMAT else ""
    except (ValueError, KeyError, TypeError):
        hex_ = ""
    if not keys.is_key(hex_):
        raise InvalidArgument("file", f"{exported} holds no key; give one that `key export` wrote")
    path = data_dir / "store.db"
    files.private_dir(data_dir)
    if path.exists():
        if not belongs(path, Key(hex_, "file")):
            raise FailedPrecondition(f"the key in {exported} is not that of {path}; import another one")
        with contextlib.suppress(StoreError):  # the key is gone or is none: that is what this is for
            now = keys.load_or_make(data_dir, path, source=source, database_exists=True)
            if now.hex == hex_:
                raise FailedPrecondition(f"{path} has this key already; nothing is to be done")
    return keys.install(data_dir, hex_, source=source)
