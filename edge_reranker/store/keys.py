"""The database's key: in the keyring of the operating system, else in a 0600 file beside the database.

``key`` holds the key itself; ``key-id`` names the keyring's entry that holds it. One of them is written
before the database is made, so a database without either has lost its key. While the key is being changed,
the same names with ``.new`` have the one to come.
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
    found = _load(data_dir, database, source, "", database_exists)
    if found is not None:
        return found
    new = secrets.token_hex(_KEY_BYTES)
    return _put(data_dir, new, "", keyring=source == "auto")


def has_next(data_dir: Path) -> bool:
    """Whether a change of the key was begun and not ended."""
    return any((data_dir / name).exists() for name in ("key.new", "key-id.new"))


def load_next(data_dir: Path, database: Path, *, source: str) -> Key | None:
    """The key to which that of ``database`` is being changed; None if there is none. Raises OSError."""
    # As for a database that does not exist: what a crash kept from being written is not lost.
    return _load(data_dir, database, source, ".new", False)


def make_next(data_dir: Path, old: Key) -> Key:
    """A new key beside the old one. Raises StoreError when the keyring refuses, OSError."""
    new = _put(data_dir, secrets.token_hex(_KEY_BYTES), ".new", keyring=old.location == "keyring")
    if new.location != old.location:
        drop_next(data_dir)
        raise StoreError("the keyring did not take a new key; unlock it and try again. Nothing was changed")
    return new


def promote_next(data_dir: Path, new: Key) -> None:
    """Put the new key in the old one's place. Raises OSError."""
    name = "key" if new.location == "file" else "key-id"
    current = data_dir / name
    before = current.read_bytes() if current.exists() else b""
    (data_dir / f"{name}.new").replace(current)
    files.sync_dir(data_dir)
    if new.location == "keyring":
        _forget_entry(before)


def drop_next(data_dir: Path) -> None:
    """Give up a change of the key. Raises OSError."""
    id_file = data_dir / "key-id.new"
    if id_file.exists():
        _forget_entry(id_file.read_bytes())
    for path in (id_file, data_dir / "key.new"):
        path.unlink(missing_ok=True)
    files.sync_dir(data_dir)


def install(data_dir: Path, hex_: str, *, source: str) -> Key:
    """Make ``hex_`` the key of the directory, whatever was there. Raises OSError."""
    # In the order in which they are looked for: a crash leaves the one before or this one.
    key = _put(data_dir, hex_, "", keyring=source == "auto")
    if key.location == "keyring":
        (data_dir / "key").unlink(missing_ok=True)
        files.sync_dir(data_dir)
    return key


def is_key(text: str) -> bool:
    """Whether ``text`` is a key in hex."""
    return len(text) == 2 * _KEY_BYTES and set(text) <= set("0123456789abcdef")


def _load(data_dir: Path, database: Path, source: str, suffix: str, database_exists: bool) -> Key | None:
    key_file, id_file = data_dir / f"key{suffix}", data_dir / f"key-id{suffix}"
    if key_file.exists() or key_file.is_symlink():
        return Key(_read_key_file(key_file), "file")
    if id_file.exists():
        return _from_keyring(id_file, source, database, database_exists)
    if database_exists:
        raise _lost(database, f"{key_file} is missing")
    return None


def _put(data_dir: Path, hex_: str, suffix: str, *, keyring: bool) -> Key:
    id_file = data_dir / f"key-id{suffix}"
    if keyring and _to_keyring(id_file, hex_):
        return Key(hex_, "keyring")
    files.write_private(data_dir / f"key{suffix}", hex_.encode("ascii"))
    id_file.unlink(missing_ok=True)
    return Key(hex_, "file")


def _forget_entry(entry: bytes) -> None:
    """Take an entry that is of no use any more out of the keyring, if that answers."""

    def forget() -> None:
        _backend().delete_password(_SERVICE, entry.strip().decode("ascii", "replace"))

    with contextlib.suppress(_KeyringUnusable):
        _in_time(forget)


def _lost(database: Path, why: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"the key of {database} is gone ({why}); put it back, run `edge-reranker key import FILE`, "
        "or move the database away to start empty"
    )


def _read_key_file(path: Path) -> str:
    files.private_file(path)
    text = path.read_bytes().strip()
    with contextlib.suppress(ValueError):
        raw = bytes.fromhex(text.decode("ascii"))
        if len(raw) == _KEY_BYTES:
            return raw.hex()
    raise StoreCorrupt(
        f"{path} holds no key of 64 hex digits; put back the right one, "
        "or run `edge-reranker key import FILE`"
    )


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
    if not is_key(value):
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
