"""What SQLite says, as the errors of this project. Messages name the file, never what is in it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sqlcipher3 import dbapi2

from edge_reranker.errors import (
    EdgeRerankerError,
    InvalidArgument,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
)

_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 26
_NO_ROOM_BYTES = 256 * 1024

# After these a connection may stay in its error state (SQLCipher's codec does): it is replaced.
_POISON = frozenset({_IOERR, _CORRUPT, _NOTADB, _CANTOPEN})


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code of ``error``; 0 when there is none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def error_name(error: BaseException) -> str:
    """SQLite's name for ``error``, else the name of its class; never its text."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def poisons(error: BaseException) -> bool:
    """Whether the connection that raised ``error`` should be replaced."""
    return primary_code(error) in _POISON


def unsynced(error: BaseException) -> bool:
    """Whether ``error`` may mean that the disk did not take what had been written.

    SQLite knows whether it was a sync that failed, but the driver hands on the primary code alone.
    """
    return primary_code(error) == _IOERR


def is_full(error: BaseException) -> bool:
    """Whether SQLite found no space left, and the connection that raised ``error`` can go on."""
    return primary_code(error) == _FULL


def is_damage(error: BaseException) -> bool:
    """Whether SQLite found something other than it wrote: damage, or the wrong key."""
    return primary_code(error) in (_CORRUPT, _NOTADB)


def translate(error: BaseException, path: Path) -> EdgeRerankerError:
    """The project's error for what happened to the database ``path``."""
    if isinstance(error, EdgeRerankerError):
        return error
    if isinstance(error, UnicodeEncodeError):
        # str(error) would quote the text.
        return InvalidArgument("text", "has a lone surrogate, which is not valid Unicode; send valid text")
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(f"no space is left for {path}; free some, then try again")
        return StoreError(f"{path}: {os.strerror(error.errno or 0)}; check the permissions and the disk")
    code = primary_code(error)
    if code == _FULL or (code in (_IOERR, _CANTOPEN) and _no_room(path)):
        return StoreFull(f"no space is left for {path}; free some, then try again: no restart is needed")
    if code in (_CORRUPT, _NOTADB):
        return StoreCorrupt(
            f"{path} is damaged, or its key is not the right one; put back the key or a backup, "
            "or move the file away to start empty"
        )
    if code in (_BUSY, _LOCKED):
        return StoreBusy(f"another process holds {path}; stop it, or try again")
    if code == _READONLY:
        return StoreError(f"{path} cannot be written; check its owner and whether the disk is read-only")
    if code in (_IOERR, _CANTOPEN):
        return StoreError(f"{path} cannot be read or written; check the disk, its quota and the permissions")
    return StoreError(f"{path}: the database answered {error_name(error)}; run doctor")


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn database and file errors inside the block into the project's."""
    try:
        yield
    except (dbapi2.Error, UnicodeEncodeError, OSError) as e:
        # ``from None``: a chained database error must not carry a value into a log.
        raise translate(e, path) from None


def _no_room(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _NO_ROOM_BYTES
    except OSError:
        return False
