"""One instance, one socket: locks, modes, and what an earlier run left behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from edge_reranker.errors import AlreadyRunning, FailedPrecondition

# sizeof(sun_path) less the closing NUL.
MAX_SOCKET_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
_OTHERS_MAY_WRITE: Final = 0o022


class InstanceLock:
    """Held by the one service of a data directory, for the life of the process or until released.

    An exclusive ``flock`` on ``serve.lock`` in the directory: the kernel drops it when the process ends,
    however it ends. The file is removed on release.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "serve.lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Takes the lock (a second time does nothing); raises AlreadyRunning when another has it.

        Makes the data directory 0700 on the way.
        """
        if self.held:
            return
        private_directory(self._data_dir)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise AlreadyRunning(
                    f"{self._data_dir}: another edge-reranker serves this data directory; "
                    "stop it, or choose another --data-dir"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            # The last holder may have removed the file between our open and our lock: then we hold a lock
            # that nobody else can see, and start again.
            if _same_file(descriptor, self._path):
                os.fchmod(descriptor, 0o600)
                self._descriptor = descriptor
                return
            os.close(descriptor)

    def release(self) -> None:
        """Gives the lock back; does nothing when it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            os.close(descriptor)

    def __enter__(self) -> InstanceLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def private_directory(path: Path) -> None:
    """Makes a directory that only its owner can enter (0700), whatever the umask.

    One that exists is closed to others; one that is shared on purpose (sticky) or another user's raises
    FailedPrecondition.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_mode & stat.S_ISVTX or status.st_uid != os.geteuid():
        raise FailedPrecondition(f"{path}: this directory is shared with other users; choose one of your own")
    path.chmod(0o700)


def prepare_socket(path: Path, data_dir: Path) -> None:
    """Makes room for a socket at ``path``: its directory, and no stale socket in it.

    Call it with the instance lock held. A directory of the data directory becomes 0700; another one that
    exists is left as it is, and refused if others can write to it. Raises FailedPrecondition for a path
    that is too long, such a directory, or a file that is not a socket; AlreadyRunning for a socket that
    somebody answers.
    """
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise FailedPrecondition(
            f"{path}: a socket's path can have {MAX_SOCKET_PATH_BYTES} bytes, this one has {size}; "
            "choose a shorter --socket"
        )
    if "," in os.fspath(path):
        # gRPC's clients take a comma for the end of one address in a list, however it is written.
        raise FailedPrecondition(f"{path}: a socket's path cannot have a comma; choose another --socket")
    folder = path.parent
    if not folder.exists() or folder.resolve().is_relative_to(data_dir.resolve()):
        private_directory(folder)
    elif folder.stat().st_mode & _OTHERS_MAY_WRITE:
        raise FailedPrecondition(
            f"{folder}: other users can write here, so they could put their own socket in our place; "
            "choose a --socket in a directory of your own"
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(
            f"{path}: something that is not a socket is in the way; move it, or choose another --socket"
        )
    if _answers(path):
        raise AlreadyRunning(f"{path}: another service answers here; stop it, or choose another --socket")
    path.unlink()


def address(path: Path) -> str:
    """The socket as gRPC wants it: a URI, so spaces and signs in the path are escaped."""
    return f"unix:{urllib.parse.quote(os.path.abspath(path))}"


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Files made inside belong to their owner alone; a socket takes its mode from the umask when bound."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def socket_inode(path: Path) -> tuple[int, int]:
    """Which file the socket is, so that only our own is removed."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def remove_socket(path: Path, inode: tuple[int, int]) -> None:
    """Removes the socket if it is still the one with this inode."""
    with contextlib.suppress(FileNotFoundError):
        if socket_inode(path) == inode:
            path.unlink()


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        ours, there = os.fstat(descriptor), path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except TimeoutError:
            return True
        except OSError as error:
            # Anything but a refusal means that somebody may be there.
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True
