"""Where the key is kept, and what happens when it is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null

from edge_reranker.errors import InvalidArgument, StoreCorrupt, StoreError
from edge_reranker.store import Store, keys
from edge_reranker.store.keys import Key
from tests.store.parts import assert_refused, fill

NULL: KeyringBackend = null.Keyring()  # type: ignore[no-untyped-call]
FAIL: KeyringBackend = fail.Keyring()  # type: ignore[no-untyped-call]


class MemoryKeyring(KeyringBackend):
    """A keyring in memory, which can be told to fail or to hang."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str], str] = {}
        self.mood = "fine"
        self.release = threading.Event()

    def _answer(self) -> None:
        if self.mood == "broken":
            raise RuntimeError("locked")
        if self.mood == "hangs":
            self.release.wait(10)

    def get_password(self, service: str, username: str) -> str | None:
        self._answer()
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._answer()
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._answer()
        del self.entries[service, username]


@pytest.fixture(name="ring")
def memory_keyring() -> Iterator[MemoryKeyring]:
    # A null keyring stands in for "before": asking for the real one would look for D-Bus.
    memory = MemoryKeyring()
    keyring.set_keyring(memory)
    yield memory
    memory.release.set()
    keyring.set_keyring(NULL)


def test_without_a_keyring_the_key_is_a_file(data_dir: Path) -> None:
    keyring.set_keyring(FAIL)
    try:
        with Store.open(data_dir) as store:
            assert store.key_location == "file"
    finally:
        keyring.set_keyring(NULL)
    assert len((data_dir / "key").read_text()) == 64
    assert not (data_dir / "key-id").exists()


def test_a_keyring_that_keeps_nothing_is_not_used(data_dir: Path) -> None:
    keyring.set_keyring(NULL)
    with Store.open(data_dir) as store:
        assert store.key_location == "file"


def test_a_keyring_that_is_not_recommended_is_not_used(
    data_dir: Path, ring: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that keeps passwords in a plain file of its own."""
    monkeypatch.setattr(MemoryKeyring, "priority", 0.5)
    with Store.open(data_dir) as store:
        assert store.key_location == "file"
    assert ring.entries == {}


def test_with_a_keyring_the_key_is_in_no_file(data_dir: Path, ring: MemoryKeyring) -> None:
    fill(data_dir, "auto")
    with Store.open(data_dir) as store:
        assert store.key_location == "keyring"
        assert store.counts("app")["events"] == 1
    ((_, secret),) = ring.entries.items()
    assert sorted(p.name for p in data_dir.iterdir()) == ["key-check", "key-id", "reserve", "store.db"]
    assert all(secret.encode() not in p.read_bytes() for p in data_dir.iterdir())


def test_a_key_in_the_keyring_moves_with_the_directory(data_dir: Path, ring: MemoryKeyring) -> None:
    fill(data_dir, "auto")
    moved = data_dir.rename(data_dir.with_name("moved"))
    with Store.open(moved) as store:
        assert store.counts("app")["events"] == 1


def test_key_source_file_never_asks_the_keyring(data_dir: Path, ring: MemoryKeyring) -> None:
    ring.mood = "hangs"
    fill(data_dir, "file")
    assert ring.entries == {}
    ring.mood = "fine"
    with Store.open(data_dir) as store:
        assert store.key_location == "file"


@pytest.mark.parametrize("mood", ["broken", "hangs"])
def test_a_keyring_that_does_not_answer_means_a_file(
    data_dir: Path, ring: MemoryKeyring, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYRING_TIMEOUT_S", 0.2)
    ring.mood = mood
    with Store.open(data_dir) as store:
        assert store.key_location == "file"


@pytest.mark.parametrize("mood", ["broken", "hangs"])
def test_a_locked_keyring_says_so_and_no_new_key_is_made(
    data_dir: Path, ring: MemoryKeyring, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(data_dir, "auto")
    monkeypatch.setattr(keys, "KEYRING_TIMEOUT_S", 0.2)
    ring.mood = mood
    with pytest.raises(StoreError, match="unlock"):
        Store.open(data_dir)
    assert_refused(data_dir, "keyring", StoreError)
    ring.mood = "fine"
    ring.release.set()
    with Store.open(data_dir) as store:
        assert store.counts("app")["events"] == 1


def test_a_lost_keyring_entry_is_named(data_dir: Path, ring: MemoryKeyring) -> None:
    fill(data_dir, "auto")
    ring.entries.clear()
    with pytest.raises(StoreCorrupt, match="put it back"):
        Store.open(data_dir)


def test_another_key_source_is_refused(data_dir: Path) -> None:
    with pytest.raises(InvalidArgument, match="key_source"):
        Store.open(data_dir, key_source="cloud")


def test_the_key_shows_up_in_no_text(data_dir: Path) -> None:
    fill(data_dir)
    secret = (data_dir / "key").read_text()
    assert secret not in repr(Key(secret, "file"))
    (data_dir / "key").write_text("0" * 64)
    with pytest.raises(StoreCorrupt) as caught:
        Store.open(data_dir, key_source="file")
    assert "0" * 64 not in str(caught.value)


def test_a_lost_key_is_named_with_the_way_out(data_dir: Path) -> None:
    fill(data_dir)
    (data_dir / "key").unlink()
    assert_refused(data_dir, "put it back")


def test_the_wrong_key_is_refused(data_dir: Path) -> None:
    fill(data_dir)
    (data_dir / "key").write_text("ab" * 32)
    assert_refused(data_dir, "the key is not that of .*key import")


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "é" * 64])
def test_a_damaged_key_file_is_refused(data_dir: Path, text: str) -> None:
    fill(data_dir)
    (data_dir / "key").write_text(text)
    assert_refused(data_dir, "64 hex digits")
