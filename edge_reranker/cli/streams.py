"""Files that hold what is private: written whole or not at all, for their owner alone."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from edge_reranker.errors import FailedPrecondition, InvalidArgument

_MAX_PASSPHRASE_BYTES = 4096


def check_free(path: Path, *, force: bool) -> None:
    """Raises FailedPrecondition if ``path`` is there, unless it is a file that may be replaced."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FailedPrecondition(f"{path} is not a regular file; choose another name")
    if path.exists() and not force:
        raise FailedPrecondition(f"{path} is there already; give --force to replace it, or another name")


@contextlib.contextmanager
def private(path: Path, force: bool) -> Iterator[BinaryIO]:
    """A file with mode 0600 that gets its name, durably, when the block ends well; else nothing is left.

    Raises FailedPrecondition if another took the name meanwhile, OSError.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            yield file
            file.flush()
            os.fsync(descriptor)
        check_free(path, force=force)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def reading(chunks: Iterable[bytes]) -> BinaryIO:
    """The chunks as a file to read from."""
    return cast(BinaryIO, io.BufferedReader(_Chunks(iter(chunks))))


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        n = min(len(buffer), len(self._left))
        buffer[:n] = self._left[:n]
        self._left = self._left[n:]
        return n


def passphrase_in(file: Path) -> str:
    """The first line of a file. Raises InvalidArgument, OSError."""
    with file.open("rb") as opened:
        line = opened.read(_MAX_PASSPHRASE_BYTES + 1).split(b"\n", 1)[0].removesuffix(b"\r")
    if not line or len(line) > _MAX_PASSPHRASE_BYTES:
        problem = f"its first line is the passphrase; 1 to {_MAX_PASSPHRASE_BYTES:,} bytes are allowed"
        raise InvalidArgument(str(file), problem)
    return line.decode("utf-8", "surrogateescape")


def has_terminal() -> bool:
    """Whether a passphrase can be asked for although standard input is in use."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        return True
    return False
