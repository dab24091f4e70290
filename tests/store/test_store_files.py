"""Keys, modes, and files that are not what they should be."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from sqlcipher3 import dbapi2
from sqlite_utils import Database, Migrations

from edge_reranker.errors import FailedPrecondition, InvalidArgument, StoreCorrupt, StoreError
from edge_reranker.store import Store, keys, migrations
from edge_reranker.store.keys import Key
from edge_reranker.store.open import open_database
from edge_reranker.types import Event, EventType, Item

MakeEvent = Callable[..., Event]


NULL: KeyringBackend = null.Keyring()  # type: ignore[no-untyped-call]
FAIL: KeyringBackend = fail.Keyring()  # type: ignore[no-untyped-call]
CANARY = "canary-5f1c-zebra"


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


@pytest.fixture
def ring() -> Iterator[MemoryKeyring]:
    # A null keyring stands in for "before": asking for the real one would look for D-Bus.
    memory = MemoryKeyring()
    keyring.set_keyring(memory)
    yield memory
    memory.release.set()
    keyring.set_keyring(NULL)


def _fill(data_dir: Path, key_source: str = "file") -> None:
    with Store.open(data_dir, key_source=key_source) as store:
        store.record("app", [Event("e", EventType.LIKE, 1.0, Item("i"))])


def _refused(data_dir: Path, match: str, error: type[StoreError] = StoreCorrupt) -> None:
    """Opening raises ``error``, and every file is as before."""
    before = {p.name: p.read_bytes() for p in data_dir.iterdir()}
    with pytest.raises(error, match=match):
        Store.open(data_dir, key_source="file")
    assert {p.name: p.read_bytes() for p in data_dir.iterdir()} == before


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_only_the_owner_can_open_anything_under_any_umask(
    data_dir: Path, make_event: MakeEvent, umask: int
) -> None:
    old = os.umask(umask)
    try:
        with Store.open(data_dir, key_source="file") as store:
            store.record("app", [make_event(1)])
            store.context("app")
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in data_dir.iterdir()}
    finally:
        os.umask(old)
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600, "key": 0o600}
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


def test_modes_that_were_widened_are_narrowed_again(data_dir: Path) -> None:
    _fill(data_dir)
    data_dir.chmod(0o755)
    for path in data_dir.iterdir():
        path.chmod(0o644)
    _fill(data_dir)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in data_dir.iterdir()} == {0o600}


def test_a_log_that_a_crash_left_is_narrowed_too(
    data_dir: Path, tmp_path: Path, make_event: MakeEvent
) -> None:
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [make_event(1)])
        crashed = shutil.copytree(data_dir, tmp_path / "crashed")
    for path in crashed.iterdir():
        path.chmod(0o666)
    with Store.open(crashed, key_source="file") as store:
        assert {stat.S_IMODE(p.stat().st_mode) for p in crashed.iterdir()} == {0o600}
        assert store.context("app").events == (make_event(1),)


def test_a_database_that_vanishes_is_not_replaced_by_an_empty_one(data_dir: Path) -> None:
    with Store.open(data_dir, key_source="file") as store:
        (data_dir / "store.db").unlink()
        with pytest.raises(StoreError, match="cannot be read"):
            store.context("app")
        assert not (data_dir / "store.db").exists()


def test_a_directory_name_is_never_read_as_options(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=memory&b#c%20 é"
    _fill(odd)
    _fill(odd)
    assert (odd / "store.db").stat().st_size > 0


def test_the_writer_waits_for_the_disk_and_overwrites_what_is_deleted(store: Store) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
    wanted |= {"temp_store": 2, "trusted_schema": 0, "mmap_size": 0, "busy_timeout": 5000}

    def ask(db: Database) -> dict[str, object]:
        return {name: db.conn.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}

    assert store._writer.alone(ask) == wanted


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError):
        store._read(lambda db: db.conn.execute("DELETE FROM events"))


def test_a_directory_for_everybody_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(FailedPrecondition, match="shared"):
        Store.open(shared, key_source="file")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert list(shared.iterdir()) == []


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FailedPrecondition, match="is a file"):
        Store.open(tmp_path / "file", key_source="file")


def test_no_file_holds_what_the_user_did_in_plain(data_dir: Path) -> None:
    with Store.open(data_dir, key_source="file") as store:
        item = Item(CANARY, CANARY, CANARY * 100, (CANARY,), {CANARY: CANARY})
        store.record(CANARY, [Event(CANARY, EventType.SEARCH, 1.0, item, CANARY, 0.0, CANARY, CANARY)])
        store.put_vectors("app", CANARY, [(CANARY, CANARY, CANARY.encode())])
        store.flush()
        assert store.context(CANARY).events[0].query == CANARY
        held = {p.name: p.read_bytes() for p in data_dir.iterdir()}
    held |= {p.name + " closed": p.read_bytes() for p in data_dir.iterdir()}
    assert len(held) == 6
    assert [name for name, data in held.items() if CANARY.encode() in data] == []
    assert b"SQLite format" not in held["store.db closed"]


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
    _fill(data_dir, "auto")
    with Store.open(data_dir) as store:
        assert store.key_location == "keyring"
        assert store.counts("app")["events"] == 1
    ((_, secret),) = ring.entries.items()
    assert sorted(p.name for p in data_dir.iterdir()) == ["key-id", "store.db"]
    assert secret not in (data_dir / "key-id").read_text()


def test_a_key_in_the_keyring_moves_with_the_directory(data_dir: Path, ring: MemoryKeyring) -> None:
    _fill(data_dir, "auto")
    moved = data_dir.rename(data_dir.with_name("moved"))
    with Store.open(moved) as store:
        assert store.counts("app")["events"] == 1


def test_key_source_file_never_asks_the_keyring(data_dir: Path, ring: MemoryKeyring) -> None:
    ring.mood = "hangs"
    _fill(data_dir, "file")
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
    _fill(data_dir, "auto")
    monkeypatch.setattr(keys, "KEYRING_TIMEOUT_S", 0.2)
    ring.mood = mood
    with pytest.raises(StoreError, match="unlock"):
        Store.open(data_dir)
    _refused(data_dir, "keyring", StoreError)
    ring.mood = "fine"
    ring.release.set()
    with Store.open(data_dir) as store:
        assert store.counts("app")["events"] == 1


def test_a_lost_keyring_entry_is_named(data_dir: Path, ring: MemoryKeyring) -> None:
    _fill(data_dir, "auto")
    ring.entries.clear()
    with pytest.raises(StoreCorrupt, match="put it back"):
        Store.open(data_dir)


def test_another_key_source_is_refused(data_dir: Path) -> None:
    with pytest.raises(InvalidArgument, match="key_source"):
        Store.open(data_dir, key_source="cloud")


def test_the_key_shows_up_in_no_text(data_dir: Path) -> None:
    _fill(data_dir)
    secret = (data_dir / "key").read_text()
    assert secret not in repr(Key(secret, "file"))
    (data_dir / "key").write_text("0" * 64)
    with pytest.raises(StoreCorrupt) as caught:
        Store.open(data_dir, key_source="file")
    assert "0" * 64 not in str(caught.value)


def test_a_lost_key_is_named_with_the_way_out(data_dir: Path) -> None:
    _fill(data_dir)
    (data_dir / "key").unlink()
    _refused(data_dir, "put it back")


def test_the_wrong_key_is_refused(data_dir: Path) -> None:
    _fill(data_dir)
    (data_dir / "key").write_text("ab" * 32)
    _refused(data_dir, "key is not the right one")


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "é" * 64])
def test_a_damaged_key_file_is_refused(data_dir: Path, text: str) -> None:
    _fill(data_dir)
    (data_dir / "key").write_text(text)
    _refused(data_dir, "64 hex digits")


@pytest.mark.parametrize("garbage", [b"x", b"\0" * 8192, os.urandom(5000)], ids=["short", "zeros", "random"])
def test_garbage_is_refused_and_left_as_it_is(data_dir: Path, garbage: bytes) -> None:
    _fill(data_dir)
    (data_dir / "store.db").write_bytes(garbage)
    _refused(data_dir, "move (it|the file) away")


def test_a_plain_sqlite_file_is_refused_and_left_as_it_is(data_dir: Path) -> None:
    data_dir.mkdir()
    conn = dbapi2.connect(str(data_dir / "store.db"))
    conn.execute("CREATE TABLE mine (a)")
    conn.close()
    _refused(data_dir, "unencrypted")


def test_an_empty_file_becomes_a_new_store(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "store.db").touch()
    _fill(data_dir)
    (data_dir / "store.db").write_bytes(b"")
    with Store.open(data_dir, key_source="file") as store:
        assert not any(store.counts("app").values())
        assert store.check() == []


@pytest.mark.parametrize("keep", ["empty", "gone"])
def test_a_log_without_its_database_is_kept(data_dir: Path, keep: str) -> None:
    _fill(data_dir)
    (data_dir / "store.db-wal").write_bytes(b"frames")
    (data_dir / "store.db").write_bytes(b"") if keep == "empty" else (data_dir / "store.db").unlink()
    _refused(data_dir, "put back the database")


def test_a_link_in_place_of_the_database_is_refused(data_dir: Path, tmp_path: Path) -> None:
    _fill(data_dir)
    target = (data_dir / "store.db").rename(tmp_path / "elsewhere.db")
    (data_dir / "store.db").symlink_to(target)
    _refused(data_dir, "not a regular file")


def test_check_names_a_flipped_bit_and_reads_report_it(data_dir: Path) -> None:
    with Store.open(data_dir, key_source="file") as store:
        events = [Event(f"e{n}", EventType.LIKE, float(n), Item(f"i{n}", text="x" * 2000)) for n in range(50)]
        store.record("app", events)
    path = data_dir / "store.db"
    sound = path.read_bytes()
    page = len(sound) // 4096 // 2
    flipped = bytearray(sound)
    flipped[page * 4096 + 100] ^= 1
    path.write_bytes(flipped)
    with Store.open(data_dir, key_source="file") as store:
        assert any(f"page {page + 1}" in problem for problem in store.check())
        with pytest.raises(StoreCorrupt, match="damaged"):
            store.context("app", 50)
        # What does not touch the damaged page goes on, although SQLCipher gives up the connection that did.
        assert store.events("other", 5) == ([], "")
        with pytest.raises(StoreCorrupt, match="damaged"):
            store.forget("app", everything=True)
        assert store.record("other", [Event("e", EventType.SEARCH, 1.0, query="q")]).recorded == 1
        assert store.counts("other")["events"] == 1
    path.write_bytes(sound)
    with Store.open(data_dir, key_source="file") as store:
        assert store.check() == []


def test_a_database_from_a_newer_version_is_refused(data_dir: Path) -> None:
    _fill(data_dir)
    key = Key((data_dir / "key").read_text(), "file")
    db = open_database(data_dir / "store.db", key)
    db.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
        "VALUES ('edge-reranker', '9999_from_the_future', '')"
    )
    db.close()
    _refused(data_dir, "newer version")


def test_a_migration_that_fails_leaves_nothing_behind(data_dir: Path) -> None:
    _fill(data_dir)
    steps = Migrations("edge-reranker")
    steps(name="0001_events_items_vectors_rankings")(migrations._first)

    def half(db: Database) -> None:
        db.execute("CREATE TABLE half (a)")
        raise RuntimeError("power loss")

    steps(name="0002_half")(half)
    path = data_dir / "store.db"
    db = open_database(path, Key((data_dir / "key").read_text(), "file"))
    with pytest.raises(RuntimeError):
        migrations.migrate(db, path, steps)
    assert "half" not in db.table_names()
    db.close()
    _fill(data_dir)


def test_released_migrations_keep_their_names_and_order() -> None:
    """Append a line with each release; never edit one."""
    with Database(memory=True) as empty:
        names = [step.name for step in migrations.MIGRATIONS.pending(empty)]
    assert names[:1] == ["0001_events_items_vectors_rankings"]


def test_a_copy_of_the_closed_directory_is_a_backup(data_dir: Path, tmp_path: Path) -> None:
    _fill(data_dir)
    copy = shutil.copytree(data_dir, tmp_path / "copy")
    with Store.open(copy, key_source="file") as store:
        assert store.counts("app")["events"] == 1


def test_errors_and_sqlcipher_write_nothing_to_the_terminal(data_dir: Path) -> None:
    _fill(data_dir)
    (data_dir / "key").write_text("ab" * 32)
    code = (
        "import sys; from pathlib import Path; from edge_reranker.store import Store\n"
        "from edge_reranker.errors import StoreCorrupt\n"
        "try: Store.open(Path(sys.argv[1]), key_source='file')\n"
        "except StoreCorrupt: sys.exit(3)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(data_dir)], capture_output=True, timeout=30, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (3, b"", b"")
