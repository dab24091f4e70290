"""Room on the disk that is kept for forgetting, because removing rows writes before it frees anything."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# 4 MiB gather in the log before the writer folds them in, and the database may have to grow by as much; what a
# removal then writes gets as much again.
RESERVE_BYTES = 8 * 1024 * 1024
# Too little to carry a removal is only taken from the others.
_LEAST_BYTES = 1024 * 1024
_HAS_FALLOCATE = hasattr(os, "posix_fallocate")  # not on macOS


class Reserve:
    """A file of allocated blocks without content. Not thread-safe: the writer's thread has it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Take room, or more of it: at most half of what is free. No file where that is too little."""
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self.path, flags, 0o600)
            try:
                os.fchmod(fd, 0o600)
                if not self._allocate(fd):
                    self.path.unlink()
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def given_up(self) -> Iterator[None]:
        """Free the room for the block, and take again at its end what there is then."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        try:
            yield
        finally:
            self.make()

    def _allocate(self, fd: int) -> bool:
        """Whether the file holds any room now."""
        # Blocks, not size: a copy of the directory may have come out sparse.
        have = os.fstat(fd).st_blocks * 512
        # Half: after a forget on a full disk, recording must find room too, and the next forget again.
        wanted = min(RESERVE_BYTES, (have + shutil.disk_usage(self.path.parent).free) // 2)
        if _HAS_FALLOCATE and wanted >= _LEAST_BYTES and wanted > have:
            try:
                os.posix_fallocate(fd, 0, wanted)
            except OSError:
                os.ftruncate(fd, have)
            else:
                return True
        return have > 0
