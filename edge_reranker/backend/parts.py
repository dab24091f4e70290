"""What an encoding has done so far, beside the file it will become."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edge_reranker.errors import FailedPrecondition
from edge_reranker.models.pull import atomic

_DIGEST_BYTES = hashlib.sha256().digest_size


class Parts:
    """A hidden folder of parts, each named by how it was made and of which texts.

    So nothing of another pack, model or text is ever taken for it, and of a catalogue that has changed only
    what is new is made.
    """

    def __init__(self, out: Path, made_by: str) -> None:
        """``made_by`` names all that the content depends on besides the texts. Raises OSError, and
        FailedPrecondition while another process writes the same file.
        """
        self.folder = out.with_name(f".{out.name}.parts")
        self._made_by = hashlib.sha256(made_by.encode()).digest()
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise FailedPrecondition(f"{out}: another process is making it; wait for that one") from None

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes the folder when all went well; keeps it otherwise, to go on there."""
        if kind is None:
            shutil.rmtree(self.folder)
        self._lock.close()

    def key(self, texts: Sequence[str]) -> str:
        """The name of the part that these texts make."""
        digest = hashlib.sha256(self._made_by)
        for text in texts:
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()

    def get(self, key: str) -> bytes | None:
        """What ``put`` was given; None if it was not, or if the file is damaged."""
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def put(self, key: str, content: bytes) -> None:
        """Keeps a part, whole or not at all. Raises OSError."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        with atomic(path) as part:
            part.write_bytes(hashlib.sha256(content).digest() + content)

    def _path(self, key: str) -> Path:
        """One of 256 folders: one of a hundred thousand files would be slow."""
        return self.folder / key[:2] / key
