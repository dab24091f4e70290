"""Files and directories that only their owner can open, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from edge_reranker.errors import FailedPrecondition, StoreCorrupt, StoreError


def private_dir(path: Path) -> None:
    """Make ``path`` a directory with mode 0700.

    Raises FailedPrecondition when it is shared or belongs to somebody else, StoreError when it cannot be
    made.
    """
    try:
        made = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in made:
            # Else a power loss takes the directory, with everything that was synced inside it.
            sync_dir(each.parent)
        info = path.stat()
        if info.st_uid != os.geteuid():
            raise FailedPrecondition(
                f"{path} belongs to another user; choose a data directory of your own with --data-dir"
            )
        if info.st_mode & stat.S_ISVTX:
            # A sticky directory such as /tmp is meant for everybody; taking it away would break the machine.
            raise FailedPrecondition(f"{path} is shared with other users; use a directory inside it")
        if stat.S_IMODE(info.st_mode) != 0o700:
            path.chmod(0o700)
    except FileExistsError as e:
        raise FailedPrecondition(f"{path} is a file; the data directory must be a directory") from e
    except OSError as e:
        raise StoreError(f"cannot use {path} as data directory: {os.strerror(e.errno or 0)}") from e


def private_file(path: Path) -> None:
    """Make sure that ``path`` exists as a regular file with mode 0600; its content stays.

    SQLite gives new -wal and -shm files the mode of the database.
    Raises OSError, and StoreCorrupt when it is a link or no regular file.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise StoreCorrupt(f"{path} is not a regular file; move it away")
    fresh = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)
    if fresh:
        sync_dir(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` by a 0600 file with ``data``: all of it or none, durable on return. Raises OSError."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    # O_EXCL: nobody can have put a file or link with a wider mode there.
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
        with os.fdopen(fd, "wb", closefd=False) as f:
            f.write(data)
        os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    finally:
        os.close(fd)
    part.replace(path)
    sync_dir(path.parent)


def sync_file(path: Path) -> None:
    """Make the content of ``path`` durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_dir(path: Path) -> None:
    """Make the names in directory ``path`` durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
