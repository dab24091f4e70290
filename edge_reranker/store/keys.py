"""The database's key: in the keyring of the operating system, else in a 0600 file beside the database.

``key`` holds the key itself; ``key-id`` names the keyring's entry that holds it. One of them is written
before the database is made, so a database without either has lost its key.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from edge_reranker.errors import InvalidArgument, StoreCorrupt, StoreError
from edge_reranker.store import files

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_SERVICE = "edge-reranker"
_KEY_BYTES = 32
# Long enough to type a keyring's password; short enough that a dead D-Bus only delays the start.
KEYRING_TIMEOUT_S = 20.0

_T = TypeVar("_T")


class _KeyringUnusable(Exception):
    """There is no keyring worth using, or it does not answer."""


@dataclass(frozen=True, slots=True)
class Key:
    """The raw key in hex, and where it is kept: "keyring" or "file". It shows up in no repr."""

    hex: str = field(repr=False)
    location: Literal["keyring", "file"]


def load_or_make(data_dir: Path, database: Path, *, source: str, database_exists: bool) -> Key:
    """The key of ``database``; a new one when there is neither key nor database.

    ``source`` is "auto" (keyring, else file) or "file" (never ask a keyring). Raises StoreCorrupt when the
    database exists and its key is gone, StoreError when the keyring does not answer, InvalidArgument for
    another source, OSError.
    """
    if source not in ("auto", "file"):
        raise InvalidArgument("key_source", f'is {source!r}; it must be "auto" or "file"')
    key_file, id_file = data_dir / "key", data_dir / "key-id"
    if key_file.exists() or key_file.is_symlink():
        return Key(_read_key_file(key_file), "file")
    if id_file.exists():
        found = _from_keyring(id_file, source, database, database_exists)
        if found is not None:
            return found
    elif database_exists:
        raise _lost(database, f"{key_file} is missing")
    new = secrets.token_hex(_KEY_BYTES)
    if source == "auto" and _to_keyring(id_file, new):
        return Key(new, "keyring")
    files.write_private(key_file, new.encode("ascii"))
    id_file.unlink(missing_ok=True)
    return Key(new, "file")


def _lost(database: Path, why: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"the key of {database} is gone ({why}); put it back, or move the database away to start empty"
    )


def _read_key_file(path: Path) -> str:
    files.private_file(path)
    text = path.read_bytes().strip()
    with contextlib.suppress(ValueError):
        raw = bytes.fromhex(text.decode("ascii"))
        if len(raw) == _KEY_BYTES:
            return raw.hex()
    raise StoreCorrupt(f"{path} holds no key of 64 hex digits; put back the right one")


def _from_keyring(id_file: Path, source: str, database: Path, database_exists: bool) -> Key | None:
    entry = id_file.read_bytes().strip().decode("ascii", "replace")
    if source == "file":
        if not database_exists:
            return None
        raise StoreError(f'the key of {database} is in the keyring; open it with key_source="auto"')
    try:
        value = _in_time(lambda: _backend().get_password(_SERVICE, entry))
    except _KeyringUnusable as e:
        if not database_exists:
            return None
        raise StoreError(
            f"the key of {database} is in the keyring, and {e}; unlock the keyring and start again"
        ) from None
    if value is None:
        if not database_exists:
            return None
        raise _lost(database, f"the keyring has no entry for it under {_SERVICE}")
    if len(value) != 2 * _KEY_BYTES or not set(value) <= set("0123456789abcdef"):
        raise StoreCorrupt(f"the keyring's entry for {database} is no key; put back the right one")
    return Key(value, "keyring")


def _to_keyring(id_file: Path, new: str) -> bool:
    """Put the key into the keyring and see that it is there; False when that does not work."""
    entry = secrets.token_hex(8)
    # First the name, then the entry: a crash between leaves nothing behind in the user's keyring.
    files.write_private(id_file, entry.encode("ascii"))

    def put() -> bool:
        backend = _backend()
        backend.set_password(_SERVICE, entry, new)
        return backend.get_password(_SERVICE, entry) == new

    try:
        kept = _in_time(put)
    except _KeyringUnusable:
        kept = False
    return kept


def _backend() -> KeyringBackend:
    import keyring  # loading it looks for D-Bus

    backend = keyring.get_keyring()
    # Below 1 keyring itself does not recommend a backend: null, fail, and plain-text files.
    if backend.priority < 1:
        raise _KeyringUnusable("there is no keyring now")
    return backend


def _in_time(call: Callable[[], _T]) -> _T:
    """The result of ``call``, which runs in a thread of its own because a D-Bus call may never return."""
    results: list[_T] = []
    problems: list[str] = []

    def run() -> None:
        try:
            results.append(call())
        except _KeyringUnusable as e:
            problems.append(str(e))
        except Exception:  # a backend may raise anything, and its text may name entries
            problems.append("the keyring refused")

    thread = threading.Thread(target=run, name="keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_TIMEOUT_S)
    if results:
        return results[0]
    raise _KeyringUnusable(problems[0] if problems else "the keyring does not answer")
