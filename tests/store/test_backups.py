"""Copies of the store: whole, encrypted, few, and in nobody's way."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_reranker.errors import NotFound, StoreBusy, StoreCorrupt, StoreFull
from edge_reranker.store import Store, care, upkeep
from edge_reranker.store.backups import Backups, HeldOff, held_still
from edge_reranker.store.damage import problems_of_copy
from edge_reranker.store.keys import Key
from edge_reranker.store.open import open_database, open_still
from edge_reranker.types import Event, EventType, Item, Selector
from tests.store.parts import fill_up

MakeEvent = Callable[..., Event]


def key_of(data_dir: Path) -> Key:
    return Key((data_dir / "key").read_text(), "file")


def event_ids(path: Path, key: Key) -> set[str]:
    with contextlib.closing(open_still(path, key)) as db:
        return {row[0] for row in db.conn.execute("SELECT event_id FROM events").fetchall()}


def test_a_backup_has_all_that_was_stored_and_nothing_in_plain(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(n, title="canary-zebra") for n in range(50)])
    store.back_up()
    store.record("app", [make_event(99)])
    (made,) = store.backups.list()
    assert event_ids(made.path, key_of(store.path.parent)) == {f"e{n}" for n in range(50)}
    assert problems_of_copy(made.path, key_of(store.path.parent)) == []
    data = made.path.read_bytes()
    assert b"canary" not in data
    assert b"SQLite" not in data
    assert abs(made.made_at - time.time()) < 60
    assert store.backups.n_events(made) == 50
    assert store.backups.sound(made)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_the_owner_can_open_a_backup_or_a_partial_one(
    store: Store, make_event: MakeEvent, umask: int
) -> None:
    seen: dict[str, int] = {}

    def look() -> None:
        seen.update({p.name: stat.S_IMODE(p.stat().st_mode) for p in store.backups.folder.iterdir()})

    store.record("app", [make_event(1)])
    old = os.umask(umask)
    try:
        store._care.back_up(look)
        look()
    finally:
        os.umask(old)
    assert len(seen) == 2
    assert set(seen.values()) == {0o600}
    assert stat.S_IMODE(store.backups.folder.stat().st_mode) == 0o700
    assert [p.suffix for p in store.backups.folder.iterdir()] == [".db"]


def test_the_newest_three_stay_whatever_the_clock_says(
    store: Store, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    for n, years in enumerate([0, 10, -10, 0, -20]):
        store.record("app", [make_event(n)])
        monkeypatch.setattr(time, "time", lambda years=years: real() + years * 365 * 86400)
        store.back_up()
    monkeypatch.setattr(time, "time", real)
    kept = store.backups.list()
    assert [backup.number for backup in kept] == [3, 4, 5]
    assert [store.backups.n_events(backup) for backup in kept] == [3, 4, 5]


def test_copies_under_another_key_are_left_alone(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    store.back_up()
    (first,) = store.backups.list()
    foreign = first.path.with_name("000000-20200101T000000Z.db")
    foreign.write_bytes(os.urandom(first.path.stat().st_size))
    for _ in range(4):
        store.back_up()
    assert foreign.exists()
    assert len(store.backups.list()) == 4
    assert store.backups.n_events(store.backups.named(foreign.name)) is None


def test_a_name_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(NotFound, match="backup list"):
        store.backups.named("../../etc/passwd")


def test_what_a_crash_left_of_a_backup_goes_at_the_next_start(data_dir: Path, make_event: MakeEvent) -> None:
    with Store.open(data_dir, key_source="file") as store:
        store.back_up()
        part = store.backups.folder / "000009-20260101T000000Z.db.part"
    part.write_bytes(b"half")
    part.with_name(part.name + "-journal").write_bytes(b"half")
    (data_dir / "store.db.part").write_bytes(b"half")
    with Store.open(data_dir, key_source="file") as store:
        assert [p.name for p in store.backups.folder.iterdir()] == [b.name for b in store.backups.list()]
        assert not (data_dir / "store.db.part").exists()


def test_a_backup_never_takes_the_last_room(larger_disk: Path) -> None:
    """Of 40 MiB, 8 are the reserve's; a copy has to leave 16."""
    with Store.open(larger_disk / "data", key_source="file") as store:
        store.record("app", [Event("e", EventType.SEARCH, 1.0, query="x" * 3_000_000)])
        for _ in range(4):
            store.back_up()
        for n in range(3):
            store.record("app", [Event(f"e{n}", EventType.SEARCH, 1.0, query="x" * 2_500_000)])
        # Older ones make way, the newest stays.
        for n in range(4, 7):
            store.record("app", [Event(f"e{n}", EventType.SEARCH, 1.0, query="x" * 1_500_000)])
            with contextlib.suppress(StoreFull):
                store.back_up()
        with pytest.raises(StoreFull, match=r"no backup was made.*MiB of free space"):
            store.back_up()
        assert len(store.backups.list()) == 1
        assert shutil.disk_usage(larger_disk).free > 8 << 20
        assert [p.suffix for p in store.backups.folder.iterdir()] == [".db"]
        fill_up(larger_disk)
        assert store.forget("app", Selector(event_id="e")).events == 1


def test_others_record_and_read_while_a_backup_is_made(store: Store, make_event: MakeEvent) -> None:
    store.record(
        "app", [Event(f"b{n}", EventType.LIKE, 1.0, Item("i", text=f"{n}" * 5000)) for n in range(100)]
    )
    during: list[int] = []

    def busy() -> None:
        n = len(during)
        store.record("app", [make_event(n)])
        during.append(store.counts("app")["events"])

    store._care.back_up(busy)
    assert len(during) > 3
    assert during == list(range(101, 101 + len(during)))
    (made,) = store.backups.list()
    assert store.backups.n_events(made) == 100
    assert store.check() == []


def test_forgetting_does_not_wait_for_a_backup_and_leaves_none(store: Store, make_event: MakeEvent) -> None:
    store.record(
        "app", [Event(f"b{n}", EventType.LIKE, 1.0, Item("i", text=f"{n}" * 5000)) for n in range(100)]
    )
    store.back_up()
    begun, problems = threading.Event(), []

    def slow() -> None:
        begun.set()
        time.sleep(0.05)

    def make() -> None:
        try:
            store._care.back_up(slow)
        except StoreBusy as error:
            problems.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    assert begun.wait(10)
    start = time.monotonic()
    assert store.forget("app", Selector(event_id="b1")).events == 1
    assert time.monotonic() - start < 2
    thread.join()
    assert [type(problem) for problem in problems] == [HeldOff]
    assert list(store.backups.folder.iterdir()) == []
    store.back_up()
    assert store.backups.n_events(store.backups.list()[0]) == 99


def test_a_damaged_store_is_not_backed_up(data_dir: Path) -> None:
    """SQLCipher would copy zeros in a damaged page's place; within a text no other check sees that."""
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [Event("e", EventType.SEARCH, 1.0, query="x" * 30_000)])
    path = data_dir / "store.db"
    sound, n_pages = path.read_bytes(), path.stat().st_size // 4096
    for page in range(n_pages - 8, n_pages):
        flip(path, page * 4096 + 100)
        with Store.open(data_dir, key_source="file") as store:
            with pytest.raises(StoreCorrupt, match="not backed up"):
                store.back_up()
            assert list(store.backups.folder.iterdir()) == []
        path.write_bytes(sound)


def test_two_backups_are_not_made_at_once(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    other = Backups(store.path.parent, key_of(store.path.parent))

    def meanwhile() -> None:
        with pytest.raises(StoreBusy, match="another process makes a backup"):
            other.make(
                lambda: held_still(lambda: open_database(store.path, key_of(store.path.parent)), store.path)
            )

    store._care.back_up(meanwhile)


def test_who_writes_without_a_pause_is_not_copied_half(store: Store, make_event: MakeEvent) -> None:
    """Whatever others do, the copy is of one moment: batches of three are whole."""
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            store.record("app", [make_event(3 * n + k) for k in range(3)])
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            store.back_up()
    finally:
        stop.set()
        thread.join()
    for backup in store.backups.list():
        n_events = store.backups.n_events(backup)
        assert n_events is not None
        assert n_events % 3 == 0


@contextlib.contextmanager
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(care, "_FIRST_S", 0.0)
    monkeypatch.setattr(upkeep, "_QUIET_S", 0.05)
    monkeypatch.setattr(upkeep, "_LOOK_S", 0.05)
    monkeypatch.setattr(upkeep, "_AGAIN_S", 0.05)
    yield


def until(true: Callable[[], bool], wait_s: float = 10.0) -> bool:
    end = time.monotonic() + wait_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_service_makes_one_a_day_by_itself(
    data_dir: Path, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hurried(monkeypatch), Store.open(data_dir, key_source="file") as store:
        store.record("app", [make_event(1)])
        store.keep_safe()
        assert until(lambda: len(store.backups.list()) == 1)
        time.sleep(0.3)
        assert len(store.backups.list()) == 1
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86_500)
        assert until(lambda: len(store.backups.list()) == 2)
        monkeypatch.setattr(time, "time", lambda: real() - 10 * 365 * 86_400)
        assert until(lambda: len(store.backups.list()) == 3)


def test_none_is_made_unasked_when_none_are_wanted(
    data_dir: Path, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hurried(monkeypatch), Store.open(data_dir, key_source="file", backups=0) as store:
        store.record("app", [make_event(1)])
        store.keep_safe()
        time.sleep(0.3)
        assert store.backups.list() == []


def test_after_a_crash_every_page_is_checked_soon(
    data_dir: Path, tmp_path: Path, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(data_dir, key_source="file") as store:
        store.back_up()
        store.record("app", [make_event(1)])
        crashed = shutil.copytree(data_dir, tmp_path / "crashed")
    with hurried(monkeypatch), Store.open(crashed, key_source="file") as store:
        store.keep_safe()
        assert until(lambda: len(store.backups.list()) == 2)
        assert store.backups.n_events(store.backups.list()[-1]) == 1


def test_closing_does_not_wait_for_a_backup(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "REST", 1000.0)
    with hurried(monkeypatch), Store.open(data_dir, key_source="file") as store:
        store.record("app", [Event(str(n), EventType.SEARCH, 1.0, query="x" * 50_000) for n in range(100)])
        store.keep_safe()
        assert until(store.backups._making.locked)
        start = time.monotonic()
        store.close()
        assert time.monotonic() - start < 5
        assert list(store.backups.folder.iterdir()) == []


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)
