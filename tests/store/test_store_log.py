"""The log: who waits for whom, when it is folded in, and what happens when a disk failed to sync it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreBusy
from edge_reranker.store import Store, events, writer
from edge_reranker.types import Event, EventType, Item

MakeEvent = Callable[..., Event]


def _log_bytes(store: Store) -> int:
    return store.path.with_name("store.db-wal").stat().st_size


def _disk_error() -> dbapi2.OperationalError:
    error = dbapi2.OperationalError("disk I/O error")
    error.sqlite_errorcode = 10
    return error


def test_a_reader_does_not_wait_for_a_long_write_and_sees_nothing_of_it(
    store: Store, make_event: MakeEvent
) -> None:
    store.record("app", [make_event(1)])
    inside, release = threading.Event(), threading.Event()

    def long_write(db: Database) -> bool:
        events.insert(db, "app", events.encode([make_event(2)]))
        inside.set()
        release.wait(10)
        return bool(db.conn.in_transaction)

    seen: list[bool] = []
    holder = threading.Thread(target=lambda: seen.append(store._writer.submit(long_write)))
    holder.start()
    try:
        assert inside.wait(10)
        assert store.context("app").events == (make_event(1),)
        assert holder.is_alive()
    finally:
        release.set()
        holder.join(10)
    assert seen == [True]
    assert store.context("app").events == (make_event(1), make_event(2))


def test_a_transaction_takes_the_lock_at_its_beginning(store: Store) -> None:
    """Else it could be refused in the middle, when another process has written since its first read."""

    def is_locked(db: Database) -> bool:
        with store._readers.one() as other:
            other.conn.execute("PRAGMA query_only = OFF")
            other.conn.execute("PRAGMA busy_timeout = 0")
            try:
                other.conn.execute("BEGIN IMMEDIATE")
            except dbapi2.OperationalError:
                return True
            other.conn.execute("ROLLBACK")
            return False

    # A job that has not written anything yet.
    assert store._writer.submit(is_locked)
    assert not store._writer.alone(is_locked)


def test_the_log_is_folded_in_after_some_commits(store: Store, make_event: MakeEvent) -> None:
    most = 0
    for n in range(3 * writer.LOG_COMMITS):
        store.record("app", [make_event(n)])
        most = max(most, _log_bytes(store))
    assert most < writer.LOG_BYTES


def test_the_log_is_folded_in_when_it_is_long(store: Store) -> None:
    for n in range(30):
        store.record("app", [Event(f"e{n}", EventType.LIKE, 1.0, Item(f"i{n}", text="x" * 400_000))])
        assert _log_bytes(store) < writer.LOG_BYTES + 1_000_000
    assert store.path.stat().st_size > 8_000_000


def test_after_a_disk_error_all_of_the_log_is_folded_in_before_anything_is_acknowledged(
    store: Store, make_event: MakeEvent
) -> None:
    store.record("app", [make_event(1)])
    before = store.generation("app")

    def fail(db: Database) -> None:
        raise _disk_error()

    def folded(db: Database) -> bool:
        _, n_pages, n_folded = db.conn.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
        return bool(n_pages == n_folded)

    with pytest.raises(Exception, match="cannot be read or written"):
        store._writer.alone(fail)
    assert store._writer.alone(folded)
    # A batch that failed may be there after all: whoever remembers the events has to ask again.
    assert store.generation("app") > before
    assert store.context("app").events == (make_event(1),)
    assert list(store.path.parent.glob("probe*")) == []


def test_a_read_that_goes_on_keeps_the_log_from_being_read_anew_and_is_not_disturbed(
    store: Store, make_event: MakeEvent
) -> None:
    store.record("app", [make_event(1)])

    def fail(db: Database) -> None:
        raise _disk_error()

    with store._readers.one() as db:
        db.conn.execute("BEGIN")
        db.conn.execute("SELECT count(*) FROM events").fetchall()
        with pytest.raises(Exception, match="cannot be read or written"):
            store._writer.alone(fail)
        with pytest.raises(StoreBusy, match="is being read"):
            store.record("app", [make_event(2)])
        assert db.conn.execute("SELECT count(*) FROM events").fetchone()[0] == 1
        db.conn.execute("COMMIT")
    assert store.record("app", [make_event(2)]).recorded == 1


def test_a_log_that_is_not_trusted_is_not_folded_in_when_the_store_is_closed(
    data_dir: Path, make_event: MakeEvent
) -> None:
    """SQLite would do it, by what it believes; the next opening reads the log from its start."""
    store = Store.open(data_dir, key_source="file")
    store.record("app", [make_event(1)])
    store._writer._distrusted = True
    store._readers.close()
    store._writer.close()
    assert _log_bytes(store) > 0
    store.close()
    with Store.open(data_dir, key_source="file") as again:
        assert again.context("app").events == (make_event(1),)
