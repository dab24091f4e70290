"""The one writer: a thread that commits what waits together, and answers once it is durable."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import StoreBusy, StoreCorrupt, StoreError
from edge_reranker.store import faults, files

_T = TypeVar("_T")

# Waiting jobs beyond this are refused: memory must not grow with what a slow disk cannot take.
QUEUE_JOBS = 1024
# Jobs of one transaction: a bound on what a power loss or a retry costs.
_GROUP_JOBS = 256
# A job nobody waits for gives others this long to share its commit, and its fsync.
_LINGER_S = 0.05
# When the log is folded in. SQLite would do it by itself, but keep an error to itself, and to ask it for the
# pages in the log costs a sync. So: as many commits as make half of LOG_BYTES, if small, or the file's size.
LOG_COMMITS = 64
LOG_BYTES = 4 * 1024 * 1024


# Where SQLite's file format has its shared lock.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


@dataclass(eq=False, slots=True)
class _Job:
    run: Callable[[Any], Any]
    after: Callable[[Any], None] | None = None
    waited_for: bool = True
    alone: bool = False
    apart: bool = False
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    future: Future[Any] = field(default_factory=Future)


class Writer:
    """Runs jobs on one connection in one thread. Thread-safe.

    A job is a function of the connection that may be run again when a transaction is lost. ``damaged`` is
    called when one failed because the file is damaged; it must not wait for the writer. ``closed`` is a
    context without any other connection of this process; see ``_start_over``.
    """

    def __init__(
        self,
        connect: Callable[[], Database],
        path: Path,
        *,
        queue_jobs: int = QUEUE_JOBS,
        damaged: Callable[[], None] = lambda: None,
        closed: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._connect = connect
        self._path = path
        self._damaged = damaged
        self._closed_others = closed
        self._distrusted = False
        self._unfolded = False
        self._log = path.with_name(path.name + "-wal")
        self._n_unfolded = 0
        self._db: Database | None = None
        self._queue: queue.Queue[_Job | None] = queue.Queue(maxsize=queue_jobs)
        self._lock = threading.Lock()
        self._closed = False
        self.commits = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Database], _T], after: Callable[[_T], None] | None = None) -> _T:
        """Run in a shared transaction; return its result once that is durable, after ``after`` was called.

        Raises StoreBusy when too many wait, else what went wrong; then nothing of it was stored, or all of it
        when the disk failed at the last moment. Only a return says that it is durable.
        """
        result: _T = self._wait(_Job(run, after))
        return result

    def alone(
        self,
        run: Callable[[Database], _T],
        around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> _T:
        """Run outside any transaction, after everything that waits now. Raises as ``submit``.

        ``around`` is entered before the connection is asked for, which may have to be opened first.
        """
        result: _T = self._wait(_Job(run, alone=True, around=around))
        return result

    def post(self, run: Callable[[Database], object]) -> None:
        """Run in some later transaction and do not wait; what cannot be done is counted in ``dropped``."""
        try:
            self._put(_Job(run, waited_for=False))
        except StoreError:
            self._drop()

    def apart(self, run: Callable[[], object]) -> None:
        """Run after what waits now, with no connection open, and do not wait. Raises as ``submit``."""
        self._put(_Job(lambda _: run(), waited_for=False, alone=True, apart=True))

    def close(self) -> None:
        """Finish everything that waits, then stop. Idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._queue.put(None)
        self._thread.join()

    def _wait(self, job: _Job) -> Any:
        self._put(job)
        return job.future.result()

    def _put(self, job: _Job) -> None:
        # Under the lock, so that no job lands behind the mark that ends the thread.
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed; open it again")
            try:
                self._queue.put_nowait(job)
            except queue.Full:
                raise StoreBusy("too many writes are waiting for the disk; try again in a moment") from None

    def _drop(self) -> None:
        with self._lock:
            self.dropped += 1

    def _loop(self) -> None:
        more = True
        while more:
            job = self._queue.get()
            if job is None:
                break
            if job.alone:
                self._run_alone(job)
                continue
            group, then, more = self._gather(job)
            self._run_group(group)
            if then is not None:
                self._run_alone(then)
        if self._distrusted:
            with contextlib.suppress(StoreError, OSError):
                self._start_over()
        else:
            self._disconnect()

    def _gather(self, first: _Job) -> tuple[list[_Job], _Job | None, bool]:
        """What shares the next commit, the lone job that came behind it, and whether to go on."""
        group = [first]
        until = time.monotonic() + _LINGER_S
        waited_for = first.waited_for
        while len(group) < _GROUP_JOBS:
            try:
                left_s = 0.0 if waited_for else until - time.monotonic()
                job = self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, None, False
            if job.alone:
                return group, job, True
            group.append(job)
            waited_for = waited_for or job.waited_for
        return group, None, True

    def _run_group(self, group: list[_Job]) -> None:
        while group:
            group = self._try_group(group)

    def _try_group(self, group: list[_Job]) -> list[_Job]:
        """One transaction; returns the jobs to run again because another one took it down with it."""
        done: list[tuple[_Job, Any]] = []
        try:
            db = self._begin()
        except Exception as e:
            for job in group:
                self._fail(job, e)
            return []
        for i, job in enumerate(group):
            try:
                with _savepoint(db):
                    result = job.run(db)
            except Exception as e:
                self._fail(job, e)
                if not db.conn.in_transaction:
                    # A full disk ends the whole transaction: the others get another one.
                    self._reset_after(e)
                    return [other for other, _ in done] + group[i + 1 :]
            else:
                done.append((job, result))
        try:
            db.conn.execute("COMMIT")
        except Exception as e:
            _rollback(db)
            self._reset_after(e)
            if len(done) == 1:
                self._fail(done[0][0], e)
            else:
                for job, _ in done:
                    self._run_group([job])
            return []
        self.commits += 1
        self._n_unfolded += 1
        for job, result in done:
            self._finish(job, result)
        self._fold_when_long(db)
        return []

    def _run_alone(self, job: _Job) -> None:
        if job.apart:
            try:
                if self._distrusted:
                    self._start_over()
                self._disconnect()
                self._finish(job, job.run(None))
            except Exception as e:
                job.future.set_exception(faults.translate(e, self._path))
            return
        try:
            with job.around():
                result = job.run(self._connection())
        except Exception as e:
            if self._db is not None:
                _rollback(self._db)
            self._reset_after(e)
            self._fail(job, e)
        else:
            self._finish(job, result)

    def _begin(self) -> Database:
        try:
            db = self._connection()
            db.conn.execute("BEGIN IMMEDIATE")
        except Exception as e:
            self._reset_after(e)
            raise
        return db

    def _fold_when_long(self, db: Database) -> None:
        # Nobody waits for this: what was committed is durable in the log, and the next commit tries again.
        try:
            if self._n_unfolded >= LOG_COMMITS or self._log.stat().st_size >= LOG_BYTES:
                fold(db)
                self._n_unfolded = 0
        except Exception as e:
            self._reset_after(e)

    def _finish(self, job: _Job, result: Any) -> None:
        try:
            if job.after is not None:
                job.after(result)
        finally:
            job.future.set_result(result)

    def _fail(self, job: _Job, error: Exception) -> None:
        if not job.waited_for:
            self._drop()
        # ``translate`` makes a new error each time: one shared by threads would mix their tracebacks.
        told = faults.translate(error, self._path)
        job.future.set_exception(told)
        if isinstance(told, StoreCorrupt):
            self._damaged()

    def _connection(self) -> Database:
        if self._distrusted:
            self._start_over()
        if self._db is None:
            self._db = self._connect()
        if self._unfolded:
            if not fold(self._db):
                raise StoreBusy(f"the log of {self._path} is read while it must be folded in; try again")
            self._unfolded = False
        return self._db

    def _start_over(self) -> None:
        """Forget what is believed of the disk after a sync that may have failed, and trust the log alone.

        The system calls pages clean that it could not write, and the next sync says that all is well. A
        commit that failed may then be found in the log and be taken for durable when it comes again; and
        what was folded in before the sync is not folded in again. So everything is closed, which has SQLite
        read the log from its start, and all of it is folded in before anything else is acknowledged.
        """
        # Raises OSError while the disk takes nothing: until then, readers keep the connections they have.
        probe = self._path.with_name("probe")
        files.write_private(probe, bytes(4096))
        probe.unlink()
        with self._closed_others(), kept_log(self._path):
            self._disconnect()
        self._distrusted, self._unfolded = False, True

    def _reset_after(self, error: Exception) -> None:
        if faults.unsynced(error):
            self._distrusted = True
        elif faults.poisons(error):
            self._disconnect()

    def _disconnect(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            with contextlib.suppress(dbapi2.Error):
                db.close()


@contextlib.contextmanager
def transaction(db: Database) -> Iterator[None]:
    """All of the block, durable at its end, or nothing of it."""
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.conn.execute("COMMIT")
    except BaseException:
        _rollback(db)
        raise


def checkpoint(db: Database) -> bool:
    """Fold the log into the database and empty it; False when a reader outlasted the busy timeout."""
    return bool(db.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


def fold(db: Database) -> bool:
    """Fold in what no reader needs from the log, without waiting; whether that was all of it."""
    busy, n_pages, folded = db.conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return bool(busy == 0 and n_pages == folded)


@contextlib.contextmanager
def kept_log(path: Path) -> Iterator[None]:
    """In the block, closing the last connection leaves the log as it is, where the system has locks for that.

    SQLite else folds it in then, by what it believes to be folded in already, and removes it.
    """
    with contextlib.ExitStack() as stack:
        # Closed last of all, or it would take SQLite's locks with it. A file that is gone needs no lock.
        with contextlib.suppress(OSError):
            file = stack.enter_context(path.open("rb", buffering=0))
            if hasattr(fcntl, "F_OFD_SETLK"):
                # Of the handle, not of the process: so it stands in the way of SQLite's lock for closing.
                lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        yield


@contextlib.contextmanager
def _savepoint(db: Database) -> Iterator[None]:
    db.conn.execute("SAVEPOINT job")
    try:
        yield
    except BaseException:
        # There is no savepoint any more when the error ended the transaction.
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK TO job")
            db.conn.execute("RELEASE job")
        raise
    db.conn.execute("RELEASE job")


def _rollback(db: Database) -> None:
    with contextlib.suppress(dbapi2.Error):
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
