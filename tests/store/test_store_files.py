"""Modes, and files that are not what they should be."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2
from sqlite_utils import Database, Migrations

from edge_reranker.errors import FailedPrecondition, StoreCorrupt, StoreError
from edge_reranker.store import Store, inspect_store, migrations
from edge_reranker.store.keys import Key
from edge_reranker.store.open import open_database
from edge_reranker.types import Event, EventType, Item, Selector
from tests.store.parts import assert_refused, fill

MakeEvent = Callable[..., Event]


CANARY = "canary-5f1c-zebra"


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
    assert modes == dict.fromkeys(
        ("store.db", "store.db-wal", "store.db-shm", "key", "key-check", "reserve"), 0o600
    )
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


def test_modes_that_were_widened_are_narrowed_again(data_dir: Path) -> None:
    fill(data_dir)
    data_dir.chmod(0o755)
    for path in data_dir.iterdir():
        path.chmod(0o644)
    fill(data_dir)
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
    fill(odd)
    fill(odd)
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
    assert len(held) == 10
    assert [name for name, data in held.items() if CANARY.encode() in data] == []
    assert b"SQLite format" not in held["store.db closed"]


@pytest.mark.parametrize("garbage", [b"x", b"\0" * 8192, os.urandom(5000)], ids=["short", "zeros", "random"])
def test_garbage_is_refused_and_left_as_it_is(data_dir: Path, garbage: bytes) -> None:
    fill(data_dir)
    (data_dir / "store.db").write_bytes(garbage)
    assert_refused(data_dir, "move (it|the file) away")


def test_a_plain_sqlite_file_is_refused_and_left_as_it_is(data_dir: Path) -> None:
    data_dir.mkdir()
    conn = dbapi2.connect(str(data_dir / "store.db"))
    conn.execute("CREATE TABLE mine (a)")
    conn.close()
    assert_refused(data_dir, "unencrypted")


def test_a_database_that_lost_its_content_is_refused(data_dir: Path) -> None:
    fill(data_dir)
    (data_dir / "store.db").write_bytes(b"")
    assert_refused(data_dir, "is empty.*move it away to start empty")


@pytest.mark.parametrize("left", [b"", b"half a page"], ids=["empty", "torn"])
def test_a_crash_while_the_store_was_made_is_made_good(data_dir: Path, left: bytes) -> None:
    """The key is there, and the database under the name that it has until it is whole."""
    fill(data_dir)
    (data_dir / "store.db").unlink()
    for suffix in ("", "-journal", "-wal", "-shm"):
        (data_dir / f"store.db.part{suffix}").write_bytes(left)
    fill(data_dir)
    with Store.open(data_dir, key_source="file") as store:
        assert store.counts("app")["events"] == 1
        assert store.check() == []
    assert sorted(p.name for p in data_dir.iterdir()) == ["key", "key-check", "reserve", "store.db"]


@pytest.mark.parametrize("keep", ["empty", "gone"])
def test_a_log_without_its_database_is_kept(data_dir: Path, keep: str) -> None:
    fill(data_dir)
    (data_dir / "store.db-wal").write_bytes(b"frames")
    (data_dir / "store.db").write_bytes(b"") if keep == "empty" else (data_dir / "store.db").unlink()
    assert_refused(data_dir, "put back the database")


def test_a_link_in_place_of_the_database_is_refused(data_dir: Path, tmp_path: Path) -> None:
    fill(data_dir)
    target = (data_dir / "store.db").rename(tmp_path / "elsewhere.db")
    (data_dir / "store.db").symlink_to(target)
    assert_refused(data_dir, "not a regular file")


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
            store.forget("app", Selector(everything=True))
        assert store.record("other", [Event("e", EventType.SEARCH, 1.0, query="q")]).recorded == 1
        assert store.counts("other")["events"] == 1
    path.write_bytes(sound)
    with Store.open(data_dir, key_source="file") as store:
        assert store.check() == []


def test_a_page_that_a_crash_tore_is_sound_when_the_log_still_has_it(data_dir: Path, tmp_path: Path) -> None:
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [Event("e", EventType.LIKE, 1.0, Item("i"))])
        root = "SELECT rootpage FROM sqlite_master WHERE name = 'events'"
        page = store._writer.alone(lambda db: db.execute(root).fetchone()[0])
        with store.path.open("r+b") as f:
            f.seek((page - 1) * 4096)
            f.write(b"torn")
        crashed = shutil.copytree(data_dir, tmp_path / "crashed")
        assert store.check() == []
    assert inspect_store(crashed, key_source="file") == []


def test_a_database_from_a_newer_version_is_refused(data_dir: Path) -> None:
    fill(data_dir)
    key = Key((data_dir / "key").read_text(), "file")
    db = open_database(data_dir / "store.db", key)
    db.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
        "VALUES ('edge-reranker', '9999_from_the_future', '')"
    )
    db.close()
    assert_refused(data_dir, "newer version")


def test_a_migration_that_fails_leaves_nothing_behind(data_dir: Path) -> None:
    fill(data_dir)
    steps = Migrations("edge-reranker")
    with Database(memory=True) as empty:
        for step in migrations.MIGRATIONS.pending(empty):
            steps(name=step.name)(step.fn)

    def half(db: Database) -> None:
        db.execute("CREATE TABLE half (a)")
        raise RuntimeError("power loss")

    steps(name="half")(half)
    path = data_dir / "store.db"
    db = open_database(path, Key((data_dir / "key").read_text(), "file"))
    with pytest.raises(RuntimeError):
        migrations.migrate(db, path, steps)
    assert "half" not in db.table_names()
    db.close()
    fill(data_dir)


def test_released_migrations_keep_their_names_and_order() -> None:
    """Append a line with each release; never edit one."""
    with Database(memory=True) as empty:
        names = [step.name for step in migrations.MIGRATIONS.pending(empty)]
    assert names[:2] == ["0001_events_items_vectors_rankings", "0002_prefixes"]


def test_a_copy_of_the_closed_directory_is_a_backup(data_dir: Path, tmp_path: Path) -> None:
    fill(data_dir)
    copy = shutil.copytree(data_dir, tmp_path / "copy")
    with Store.open(copy, key_source="file") as store:
        assert store.counts("app")["events"] == 1


def test_errors_and_sqlcipher_write_nothing_to_the_terminal(data_dir: Path) -> None:
    fill(data_dir)
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
