"""Copies of the store in ``backups/``: encrypted with the same key, verified, the newest few kept.

They are made with SQLite's backup interface, page by page. Of a page whose HMAC is wrong SQLCipher's copies
zeros, without an error and with a right HMAC; so every page of the source is checked before a copy counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlcipher3 import dbapi2
from sqlite_utils import Database

from edge_reranker.errors import NotFound, StoreBusy, StoreCorrupt, StoreFull
from edge_reranker.store import damage, files
from edge_reranker.store.keys import Key
from edge_reranker.store.open import open_still, open_target
from edge_reranker.store.reserve import RESERVE_BYTES
from edge_reranker.store.writer import checkpoint

KEPT = 3
# What a backup leaves free: room for what is recorded and forgotten meanwhile, beside the reserve.
_LEAVE_BYTES = 2 * RESERVE_BYTES
_NAME = re.compile(r"(\d{6,})-(\d{8}T\d{6}Z)\.db")
_TIME = "%Y%m%dT%H%M%SZ"
_PATIENCE_S = 5.0
_TRIES = 100
# 256 KiB between two looks at whether somebody is in a greater hurry.
_STEP_PAGES = 64


class HeldOff(StoreBusy):
    """The copy was given up because somebody was in a greater hurry; the next one comes soon."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One copy; ``made_at`` in s since 1970, as the clock was then."""

    path: Path
    number: int
    made_at: float

    @property
    def name(self) -> str:
        """What `restore` calls it."""
        return self.path.name

    @property
    def when(self) -> str:
        """``made_at`` for people, in UTC."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.made_at))


class Backups:
    """The copies of one data directory. Thread-safe; ``kept`` newest ones stay, of those the key opens."""

    def __init__(self, data_dir: Path, key: Key, *, kept: int = KEPT) -> None:
        self.folder = data_dir / "backups"
        self.kept = kept
        self.key = key
        self._making = threading.Lock()
        self._holders = 0
        self._holding = threading.Lock()

    def list(self) -> list[Backup]:
        """All there are, oldest first."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            name = _NAME.fullmatch(path.name)
            if name is not None and path.is_file() and not path.is_symlink():
                with contextlib.suppress(ValueError):
                    made_at = datetime.strptime(name[2], _TIME).replace(tzinfo=UTC).timestamp()
                    found.append(Backup(path, int(name[1]), made_at))
        # By number, not by time: a clock that was wrong for a day must not make a copy the oldest.
        return sorted(found, key=lambda backup: backup.number)

    def named(self, name: str) -> Backup:
        """The one called ``name``. Raises NotFound."""
        for backup in self.list():
            if backup.name == name:
                return backup
        raise NotFound(f"no backup is called {name!r}; see `edge-reranker backup list`")

    def sound(self, backup: Backup) -> bool:
        """Whether a copy can take the store's place; reads all of it. Raises StoreError."""
        return not damage.problems_of_copy(backup.path, self.key)

    def n_events(self, backup: Backup) -> int | None:
        """How many events a copy has; None when the key does not open it."""
        try:
            with contextlib.closing(open_still(backup.path, self.key)) as db:
                return int(db.conn.execute("SELECT count(*) FROM events").fetchone()[0])
        except dbapi2.Error:
            return None

    def make(
        self,
        snapshot: Callable[[], contextlib.AbstractContextManager[Database]],
        *,
        pace: Callable[[], None] = lambda: None,
    ) -> Backup:
        """Copy what ``snapshot`` holds still, a connection to a database whose log is empty.

        ``pace`` is called every few pages. Raises StoreFull when it would take the last room, StoreCorrupt
        when the source is damaged (then no copy is made), HeldOff, StoreBusy, OSError and the database's own.
        """
        with self._alone(), snapshot() as source:
            self._step(pace)
            path = Path(source.conn.execute("PRAGMA database_list").fetchone()[2])
            self._make_room(path.stat().st_size)
            number = max((backup.number for backup in self.list()), default=0) + 1
            made_at = time.time()
            name = f"{number:06d}-{datetime.fromtimestamp(made_at, UTC).strftime(_TIME)}.db"
            part = self.folder / f"{name}.part"
            try:
                copy(source, part, self.key, pace=lambda: self._step(pace))
                if damage.wrong_pages_of(source) or damage.problems_of_copy(part, self.key):
                    raise StoreCorrupt(
                        f"{path} is damaged, so it was not backed up; run `edge-reranker doctor`"
                    )
                self._step(pace)
                files.sync_file(part)
                part.replace(self.folder / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise
            files.sync_dir(self.folder)
            self._prune()
            return self.named(name)

    def clean(self) -> None:
        """Remove what a crash left of a copy that was being made. Raises StoreBusy while one is made."""
        if self.folder.is_dir():
            with self._alone():
                for part in self.folder.glob("*.part*"):
                    part.unlink(missing_ok=True)

    def remove(self, *, but: Backup | None = None) -> int:
        """Remove all copies, whatever key they have, and say how many. Raises StoreBusy, OSError."""
        if not self.folder.is_dir():
            return 0
        with self.held_off(), self._alone(wait_s=_PATIENCE_S):
            gone = [backup for backup in self.list() if but is None or backup.name != but.name]
            for backup in gone:
                backup.path.unlink(missing_ok=True)
            if gone:
                files.sync_dir(self.folder)
        return len(gone)

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """No copy is being made during the block. One that is under way is given up at its next step.

        Most steps take milliseconds; the last ones, which check the whole file, a second per 40 MB.
        """
        with self._holding:
            self._holders += 1
        try:
            # Not held for the block, whose own thread may want it: ``_holders`` keeps others out.
            with self._making:
                pass
            yield
        finally:
            with self._holding:
                self._holders -= 1

    @contextlib.contextmanager
    def _alone(self, wait_s: float = 0.0) -> Iterator[None]:
        """One at a time, also among processes."""
        until = time.monotonic() + wait_s
        with self._making:
            files.private_dir(self.folder)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                while not _locked(descriptor):
                    if time.monotonic() >= until:
                        raise StoreBusy(f"another process makes a backup in {self.folder}; try again")
                    time.sleep(0.05)
                yield
            finally:
                os.close(descriptor)

    def _step(self, pace: Callable[[], None]) -> None:
        pace()
        if self._holders:
            raise HeldOff("the backup was given up for something more urgent; it is made later")

    def _make_room(self, size_bytes: int) -> None:
        """Raises StoreFull unless there is room to spare, for which older copies go if need be."""
        older = self.list()[:-1]
        while shutil.disk_usage(self.folder).free < size_bytes + _LEAVE_BYTES:
            if not older:
                raise StoreFull(
                    f"no backup was made in {self.folder}: it needs {(size_bytes + _LEAVE_BYTES) >> 20} MiB "
                    "of free space, most of which stays free; free some"
                )
            older.pop(0).path.unlink(missing_ok=True)

    def _prune(self) -> None:
        # What this key does not open is left: its key may be found again.
        ours = [backup for backup in self.list() if self.n_events(backup) is not None]
        for backup in ours[: -self.kept]:
            backup.path.unlink(missing_ok=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def held_still(connect: Callable[[], Database], path: Path) -> Iterator[Database]:
    """A connection to the database ``path``, of which nobody changes the file during the block.

    Others go on reading and writing: what they write stays in the log. Raises StoreBusy when they write
    without a pause, and the database's own errors.
    """
    log = path.with_name(path.name + "-wal")
    with contextlib.closing(connect()) as db:
        for _ in range(_TRIES):
            checkpoint(db)
            db.conn.execute("BEGIN")
            db.conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # Whoever begins to read while the log is empty keeps others from folding it into the file.
            if not log.exists() or log.stat().st_size == 0:
                try:
                    yield db
                finally:
                    db.conn.execute("ROLLBACK")
                return
            db.conn.execute("ROLLBACK")
            time.sleep(0.02)
    raise StoreBusy(f"{path} is being written to without a pause; try again later")


def copy(source: Database, target: Path, key: Key, *, pace: Callable[[], None] = lambda: None) -> None:
    """Copy an open database to the new file ``target`` under ``key``, which may be another one.

    ``pace`` is called every few pages; what it raises ends the copy. Raises OSError, the database's errors.
    """
    target.unlink(missing_ok=True)
    files.private_file(target)
    with contextlib.closing(open_target(target, key)) as db:
        source.conn.backup(db.conn, pages=_STEP_PAGES, progress=lambda *_: pace())
    files.sync_file(target)
