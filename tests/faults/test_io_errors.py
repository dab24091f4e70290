"""The disk fails while the service runs: it says so, goes on reading, and writes again as soon as it can."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker.errors import StoreError
from edge_reranker.store import Store
from tests.faults import trace
from tests.faults.attended import attended
from tests.faults.workload import batch
from tests.store.parts import disk

pytestmark = pytest.mark.skipif(not trace.usable(), reason=trace.INSTALL)

RECOVERY_S = 5.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with disk(tmp_path / "disk", "8m") as place:
        yield place


_WRITES = "write,pwrite64,ftruncate,fallocate"


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ([f"{_WRITES}:error=EIO"], "StoreError"),
        (["fsync:error=EIO"], "StoreError"),
        ([f"{_WRITES}:error=ENOSPC"], "StoreFull"),
        ([f"{_WRITES}:error=EDQUOT"], "StoreError"),
        ([f"{_WRITES},fsync:error=EROFS"], "StoreError"),
    ],
    ids=["EIO on write", "EIO on sync", "ENOSPC", "EDQUOT", "EROFS"],
)
def test_a_disk_that_takes_no_write_stops_writes_alone_and_no_longer_than_it_fails(
    data_dir: Path, faults: list[str], error: str
) -> None:
    with attended(data_dir) as store:
        assert store.ask("record", "before") == "ok 3"
        assert store.ask("read") == "ok 3"
        with store.fault(*faults):
            for n in range(4):
                told = store.ask("record", f"during{n}")
                assert told.startswith(f"{error} {data_dir}/store.db") or "no space is left" in told, told
                assert told.split()[0] in (error, "StoreFull")
                read = store.ask("read")
                # A batch that failed at the last moment may be there, whole.
                assert read in ("ok 3", "ok 6"), read
        seconds = store.until_ok("record", "after")
        print(f"writes recovered after {seconds:.3f} s")
        assert seconds < RECOVERY_S
        for n in range(4):
            assert store.ask("record", f"during{n}") in ("ok 3", "ok 0")
        assert store.ask("read") == f"ok {6 * 3}"
        assert store.ask("check") == "ok 0"
    with Store.open(data_dir, key_source="file") as opened:
        assert opened.counts("app")["events"] == 18


def test_a_disk_that_cannot_be_read_is_told_and_reads_come_back(data_dir: Path) -> None:
    with attended(data_dir) as store:
        for n in range(3):
            store.ask("large", f"large{n}")
        assert store.ask("check") == "ok 0"
        with store.fault("pread64,read:error=EIO"):
            # What is in memory is served; else it is an error that names the file.
            told = store.ask("read")
            assert told == "ok 600" or told.startswith(f"StoreError {data_dir}/store.db"), told
        assert store.until_ok("read") < RECOVERY_S
        assert store.until_ok("record", "after") < RECOVERY_S
        assert store.ask("read") == "ok 603"
        assert store.ask("check") == "ok 0"


def test_a_forget_during_a_fault_says_so_and_succeeds_afterwards(data_dir: Path) -> None:
    with attended(data_dir) as store:
        store.ask("record", "gone")
        store.ask("record", "stays")
        with store.fault("fsync:error=EIO"):
            assert store.ask("forget", "gone").startswith("StoreError")
        assert store.until_ok("forget", "gone") < RECOVERY_S
        assert store.ask("read") == "ok 3"
        assert store.ask("check") == "ok 0"


def test_a_fault_that_is_put_around_nothing_changes_nothing(data_dir: Path) -> None:
    """The control: it is the fault that makes the writes fail, not the tracer."""
    with attended(data_dir) as store, store.fault("fsync:error=EIO:when=60000"):
        assert store.ask("record", "during") == "ok 3"


def test_a_disk_that_is_mounted_read_only_at_the_start_is_told(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", batch("before"))
    _remount(small_disk, "ro")
    try:
        with pytest.raises(StoreError, match="Read-only file system") as caught:
            Store.open(data_dir, key_source="file")
        assert str(data_dir) in str(caught.value)
    finally:
        _remount(small_disk, "rw")
    with Store.open(data_dir, key_source="file") as store:
        assert store.record("app", batch("after")).recorded == 3
        assert store.counts("app")["events"] == 6


def _remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)
