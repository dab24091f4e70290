"""Every byte of a store, decrypted: also the parts of pages that hold no row, and pages that are free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_PAGE, _SALT, _RESERVED, _IV = 4096, 16, 80, 16
_LOG_HEADER, _FRAME_HEADER = 32, 24


def plain(data_dir: Path) -> bytes:
    """All pages of the database, and of its log, in plain text, one after the other."""
    key = bytes.fromhex((data_dir / "key").read_text())
    database, log = data_dir / "store.db", data_dir / "store.db-wal"
    found = [_decrypted(page, key) for page in _cut(database.read_bytes())]
    if log.exists():
        frames = log.read_bytes()[_LOG_HEADER:]
        step = _FRAME_HEADER + _PAGE
        whole = range(0, len(frames) - step + 1, step)
        found += [_decrypted(frames[at + _FRAME_HEADER : at + step], key) for at in whole]
    return b"".join(found)


def _cut(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), _PAGE):
        yield content[at : at + _PAGE]


def _decrypted(page: bytes, key: bytes) -> bytes:
    """SQLCipher 4's page: ciphertext, its IV, its HMAC. Of the first one, which begins with the salt, the
    first block comes out as noise.
    """
    end = _PAGE - _RESERVED
    cipher = Cipher(algorithms.AES(key), modes.CBC(page[end : end + _IV])).decryptor()
    return cipher.update(page[:end])


def folder(data_dir: Path) -> bytes:
    """Every byte of every file below a directory, as it is."""
    return b"\0".join(path.read_bytes() for path in sorted(data_dir.rglob("*")) if path.is_file())
