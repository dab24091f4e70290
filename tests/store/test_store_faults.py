"""Disks without room, and what the database says. For kills and power losses see tests/faults."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument, StoreBusy, StoreCorrupt, StoreError, StoreFull
from edge_reranker.store import Store, faults
from edge_reranker.store import events as rows
from edge_reranker.store.writer import _Job
from edge_reranker.types import Event, EventType, Item, Recorded
from tests.store.parts import fill_up

MakeEvent = Callable[..., Event]


def test_a_full_disk_stops_writes_only_until_there_is_room(small_disk: Path, make_event: MakeEvent) -> None:
    with Store.open(small_disk / "data", key_source="file") as store:
        store.record("app", [make_event(0)])
        ballast = fill_up(small_disk)
        recorded = 1
        with pytest.raises(StoreFull, match="no space"):  # noqa: PT012
            for n in range(1, 1000):
                store.record("app", [make_event(n), make_event(10_000 + n)])
                recorded += 2
        for _ in range(3):
            with pytest.raises(StoreFull):
                store.record("app", [Event("big", EventType.SEARCH, 1.0, query="x" * 100_000)])
            assert store.counts("app")["events"] == recorded
        store.put_vectors("app", "pack", [("h", "i", b"\0" * 100_000)])
        store.flush()
        assert store.dropped == 1
        assert len(store.context("app", 10_000).events) == recorded
        ballast.unlink()
        big = Event("big", EventType.SEARCH, 1.0, query="x" * 100_000)
        assert store.record("app", [big]).recorded == 1
        assert store.check() == []
    with Store.open(small_disk / "data", key_source="file") as store:
        assert store.counts("app")["events"] == recorded + 1


def test_a_batch_too_big_for_the_disk_fails_alone(small_disk: Path, make_event: MakeEvent) -> None:
    """The disk is found full at the shared commit; each batch then gets a commit of its own."""
    with Store.open(small_disk / "data", key_source="file") as store:
        store.record("app", [make_event(0)])
        big = Event("big", EventType.SEARCH, 1.0, query="x" * 1_500_000)
        jobs = [
            _Job(functools.partial(_insert, rows.encode([e]))) for e in (make_event(1), big, make_event(2))
        ]
        before = store.commits
        store._writer.alone(lambda db: store._writer._run_group(jobs))
        assert jobs[0].future.result(0) == jobs[2].future.result(0) == Recorded(1, 0)
        assert isinstance(jobs[1].future.exception(0), StoreFull)
        assert store.commits - before in (1, 2)
        assert [e.event_id for e in store.context("app").events] == ["e0", "e1", "e2"]
        assert store.check() == []


def test_a_disk_that_is_full_from_the_start_says_so(small_disk: Path) -> None:
    ballast = fill_up(small_disk)
    with pytest.raises(StoreFull):
        Store.open(small_disk / "data", key_source="file")
    ballast.unlink()
    with Store.open(small_disk / "data", key_source="file") as store:
        assert store.check() == []


# Within a limit on the size of files, writes fail as on a quota: with an I/O error, in the middle of a page.
_LIMITED = """
import resource, signal, sys
from pathlib import Path
from edge_reranker.errors import StoreError
from edge_reranker.store import Store
from edge_reranker.types import Event, EventType
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
store = Store.open(Path(sys.argv[1]), key_source="file")
def record(i): return store.record("app", [Event(i, EventType.SEARCH, 1.0, query="x" * 50_000)]).recorded
assert record("a") == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
for i in range(3):
    try: record(f"fails{i}"); record(f"fails too{i}"); record(f"fails as well{i}"); sys.exit("no error")
    except StoreError as e: print(type(e).__name__)
before = store.counts("app")["events"]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert record("b") == 1
assert store.counts("app")["events"] == before + 1
assert store.check() == []
store.close()
"""


def test_writes_recover_after_a_quota(data_dir: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(data_dir)], capture_output=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout.split() == [b"StoreError"] * 3
    with Store.open(data_dir, key_source="file") as store:
        assert {"a", "b"} <= {e.event_id for e in store.context("app").events}


def _insert(encoded: list[rows.Row], db: Database) -> Recorded:
    return rows.insert(db, "app", encoded)


def test_a_transaction_that_runs_out_of_room_fails_only_the_batch_that_did(
    store: Store, make_event: MakeEvent
) -> None:
    """SQLite ends the whole transaction then; the batches that fit are run again."""
    store.record("app", [make_event(0)])

    def cap(db: Database) -> None:
        conn = db.conn
        n_pages = conn.execute("PRAGMA page_count").fetchone()[0]
        conn.execute(f"PRAGMA max_page_count = {n_pages + 3}")

    store._writer.alone(cap)
    big = Event("big", EventType.LIKE, 1.0, Item("i", text="x" * 100_000))
    jobs = []
    for event in (make_event(1), big, make_event(2)):
        encoded = rows.encode([event])
        jobs.append(_Job(functools.partial(_insert, encoded)))
    store._writer.alone(lambda db: store._writer._run_group(jobs))
    assert jobs[0].future.result(0).recorded == jobs[2].future.result(0).recorded == 1
    assert isinstance(jobs[1].future.exception(0), StoreFull)
    assert [e.event_id for e in store.context("app").events] == ["e0", "e1", "e2"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (5, StoreBusy),
        (6, StoreBusy),
        (8, StoreError),
        (10, StoreError),
        (266, StoreError),
        (11, StoreCorrupt),
        (13, StoreFull),
        (14, StoreError),
        (19, StoreError),
        (26, StoreCorrupt),
    ],
)
def test_each_database_error_has_its_kind_and_names_the_file(
    tmp_path: Path, code: int, expected: type[StoreError]
) -> None:
    error = dbapi2.OperationalError("secret words of a row")
    error.sqlite_errorcode = code
    told = faults.translate(error, tmp_path / "store.db")
    assert type(told) is expected
    assert str(tmp_path / "store.db") in str(told)
    assert "secret" not in str(told)


def test_a_text_that_cannot_be_stored_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "secret\ud800".encode()
    told = faults.translate(caught.value, tmp_path)
    assert isinstance(told, InvalidArgument)
    assert "secret" not in str(told)
