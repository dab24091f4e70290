"""Files under a passphrase, in the format of age (age-encryption.org/v1): `age --decrypt` reads them too.

Of the format's kinds of recipient only the passphrase: scrypt wraps a random file key, from which HKDF makes
those of the header's HMAC and of the content, ChaCha20-Poly1305 in chunks that can be neither cut off nor
moved. The primitives are the library ``cryptography``'s.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from edge_reranker.errors import InvalidArgument

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

MAGIC = b"age-encryption.org/v1\n"
"""What every such file begins with."""
_LABEL = b"age-encryption.org/v1/scrypt"
_STANZA = re.compile(rb"-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]?)\n")
_FILE_KEY_BYTES = 16
_CHUNK_BYTES = 64 * 1024
_TAG_BYTES = 16
_ZERO_NONCE = bytes(12)
# 2^17: 128 MiB and under a second, which a board with 1 GiB can spare. age's own tool takes twice as much.
_LOG_N = 17
# A hostile file must not ask for more than 1 GiB.
_MAX_LOG_N = 20
_MAX_LINE_BYTES = 128


def encrypt(source: BinaryIO, target: BinaryIO, passphrase: str) -> None:
    """Write what ``source`` has from here on to ``target``, readable with ``passphrase`` only.

    Memory stays the same for any length. Raises InvalidArgument for an empty passphrase, OSError.
    """
    if not passphrase:
        raise InvalidArgument("passphrase", "is empty; choose one of several words")
    file_key, salt, nonce = (secrets.token_bytes(16) for _ in range(3))
    wrapped = _aead(_wrap_key(passphrase, salt, _LOG_N)).encrypt(_ZERO_NONCE, file_key, None)
    header = b"%s-> scrypt %s %d\n%s\n---" % (MAGIC, _base64(salt), _LOG_N, _base64(wrapped))
    target.write(b"%s %s\n" % (header, _base64(_header_mac(file_key, header))))
    target.write(nonce)
    content = _aead(_derive(file_key, nonce, b"payload"))
    for number, chunk, last in _chunks(source, _CHUNK_BYTES):
        target.write(content.encrypt(_nonce(number, last), chunk, None))


def decrypt(source: BinaryIO, target: BinaryIO, passphrase: str) -> None:
    """Write to ``target`` what ``encrypt`` was given.

    Memory stays the same for any length, so ``target`` gets each chunk once that is verified; only after the
    return is it known to be complete. Raises InvalidArgument, with the field "passphrase" for a wrong one and
    "file" for what is damaged, cut off or no such file; OSError.
    """
    file_key = _open_header(source, passphrase)
    nonce = _read(source, 16)
    content = _aead(_derive(file_key, nonce, b"payload"))
    for number, chunk, last in _chunks(source, _CHUNK_BYTES + _TAG_BYTES):
        # Without content there is one empty chunk; anywhere else an empty one was put in by somebody.
        plain = _opened(content, _nonce(number, last), chunk)
        if plain is None or (not plain and number):
            raise InvalidArgument("file", "is damaged or cut off; take another copy of it")
        target.write(plain)


def _open_header(source: BinaryIO, passphrase: str) -> bytes:
    """The file key. Raises InvalidArgument."""
    lines = [source.readline(_MAX_LINE_BYTES) for _ in range(4)]
    stanza = _STANZA.fullmatch(lines[1])
    if lines[0] != MAGIC or stanza is None or not lines[3].startswith(b"--- "):
        raise InvalidArgument("file", "is not a file under a passphrase; give the one that was exported")
    log_n = int(stanza[2])
    if log_n > _MAX_LOG_N:
        raise InvalidArgument("file", f"asks for a work factor of {log_n}; at most {_MAX_LOG_N} is allowed")
    wrapped = _from_base64(lines[2].removesuffix(b"\n"), _FILE_KEY_BYTES + _TAG_BYTES)
    mac = _from_base64(lines[3].removeprefix(b"--- ").removesuffix(b"\n"), 32)
    key = _wrap_key(passphrase, _from_base64(stanza[1], 16), log_n)
    file_key = _opened(_aead(key), _ZERO_NONCE, wrapped)
    if file_key is None:
        raise InvalidArgument("passphrase", "does not open this file; try another one, or another copy")
    if not hmac.compare_digest(mac, _header_mac(file_key, b"".join(lines[:3]) + b"---")):
        raise InvalidArgument("file", "is damaged; take another copy of it")
    return file_key


def _chunks(source: BinaryIO, size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Number, content and whether it is the last; at least one, empty only when there is no other."""
    number, chunk = 0, _read(source, size)
    while True:
        following = _read(source, size) if len(chunk) == size else b""
        yield number, chunk, not following
        if not following:
            return
        number, chunk = number + 1, following


def _read(source: BinaryIO, size: int) -> bytes:
    """``size`` bytes, fewer only at the end: a pipe gives what it has."""
    parts = []
    while size and (part := source.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _aead(key: bytes) -> ChaCha20Poly1305:
    # Here: loading it takes longer than opening a store does.
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key)


def _opened(aead: ChaCha20Poly1305, nonce: bytes, data: bytes) -> bytes | None:
    """The plain text; None when the key is another or the data is not what was encrypted."""
    from cryptography.exceptions import InvalidTag

    try:
        return aead.decrypt(nonce, data, None)
    except InvalidTag:
        return None


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _wrap_key(passphrase: str, salt: bytes, log_n: int) -> bytes:
    n = 1 << log_n
    return hashlib.scrypt(
        passphrase.encode("utf-8", "surrogateescape"),
        salt=_LABEL + salt,
        n=n,
        r=8,
        p=1,
        maxmem=2 * 128 * 8 * n,
        dklen=32,
    )


def _derive(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(file_key)


def _header_mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derive(file_key, b"", b"header"), header, "sha256")


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _from_base64(text: bytes, size: int) -> bytes:
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        data = b""
    if len(data) != size or _base64(data) != text:
        raise InvalidArgument("file", "is damaged; take another copy of it")
    return data
