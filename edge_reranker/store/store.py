"""The store's front: one object for a data directory, for any number of threads."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from edge_reranker.errors import (
    EdgeRerankerError,
    InvalidArgument,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
)
from edge_reranker.store import (
    digest,
    export,
    faults,
    files,
    forget,
    prefixes,
    promises,
    rankings,
    recovery,
    vectors,
)
from edge_reranker.store import events as event_rows
from edge_reranker.store.backups import KEPT, Backups
from edge_reranker.store.care import Care
from edge_reranker.store.check import problems
from edge_reranker.store.erasure import Erasure
from edge_reranker.store.imports import Import, remove_leftovers
from edge_reranker.store.open import open_database
from edge_reranker.store.promises import Promise
from edge_reranker.store.readers import Readers
from edge_reranker.store.reserve import Reserve
from edge_reranker.store.start import Started, start
from edge_reranker.store.writer import Writer, checkpoint
from edge_reranker.types import (
    Context,
    Event,
    EventType,
    Forgotten,
    LoggedRanking,
    PrefixState,
    Ranking,
    Recorded,
    Selector,
)

_T = TypeVar("_T")
_MAX_PAGE = 100_000
# Reads take milliseconds; one that takes longer is not waited for.
_READERS_S = 1.0


class Store:
    """What the user did, kept encrypted in ``store.db``. Thread-safe; made by ``open``.

    ``path`` is the database, ``key_location`` is "keyring" or "file". Methods raise StoreFull when the disk
    is, StoreCorrupt when the file is damaged, StoreError for anything else that the database cannot do.
    """

    def __init__(self, path: Path, started: Started, *, kept: int = KEPT) -> None:
        key = started.key
        self.path = path
        self.key_location = key.location
        self._connect: Callable[[], Database] = lambda: open_database(path, key)
        self._readers = Readers(lambda: open_database(path, key, read_only=True))
        self._writer = Writer(
            self._connect, path, damaged=lambda: self._care.suspect(), closed=self._log_read_anew
        )
        self._reserve = Reserve(path.with_name("reserve"))
        self._reserve.make()
        self._generations: dict[str, int] = {}
        self._of_all = 0  # the part of every namespace's generation that changes with all of them
        self._restored = 0
        self._lock = threading.Lock()
        self._forgetting = threading.Lock()
        self._close_lock = threading.Lock()
        self.backups = Backups(path.parent, key, kept=kept)
        self._care = Care(path, started, self.backups, self._writer, self._readers, self._was_restored)

    @classmethod
    def open(cls, data_dir: Path, *, key_source: str = "auto", backups: int = KEPT) -> Store:
        """Open the store of a data directory, and make it when there is none.

        ``key_source`` "auto" keeps a new key in the keyring if there is one, "file" never asks a keyring.
        ``backups`` is how many are kept; 0: none is made unasked. A damaged store is put aside for the newest
        sound backup; see ``quarantined``. Raises StoreCorrupt for a file that is no store of this version or
        whose key is gone or another (it is left as it is), FailedPrecondition for a directory that cannot be
        private, StoreError.
        """
        data_dir = data_dir.absolute()
        path = data_dir / "store.db"
        files.private_dir(data_dir)
        with faults.translated(path):
            remove_leftovers(data_dir)
            started = start(path, source=key_source, kept=backups)
        store = cls(path, started, kept=backups)
        # Whoever must forget to get room has to get in first, and so does a doctor that holds the log.
        with contextlib.suppress(StoreFull, StoreBusy):
            with faults.translated(path), contextlib.closing(open_database(path, started.key)) as db:
                cut_off = promises.unfinished(db)
            if cut_off:
                store._erase(None)
        return store

    def keep_safe(self) -> None:
        """From now on make a backup every day, at an idle moment, and check every page with it."""
        self._care.begin()

    def back_up(self) -> None:
        """Make a backup now. Raises StoreFull, StoreCorrupt for a damaged store, StoreBusy, StoreError."""
        with faults.translated(self.path):
            self._care.back_up()

    @property
    def commits(self) -> int:
        """Shared transactions committed so far; fewer than calls when calls came together."""
        return self._writer.commits

    @property
    def dropped(self) -> int:
        """Vectors and rankings that nobody waited for and that could not be stored."""
        return self._writer.dropped

    def record(self, namespace: str, events: Sequence[Event]) -> Recorded:
        """Store a batch, all or nothing; on return it is durable. Known event ids change nothing.

        Raises InvalidArgument for what cannot be kept as it is, StoreBusy when too many writes wait. After an
        error of the disk the batch may be there all the same, whole: only a return says that it is durable.
        """
        self._care.asked()
        rows = event_rows.encode(events)
        if not rows:
            return Recorded(0, 0)
        return self._writer.submit(
            lambda db: event_rows.insert(db, namespace, rows),
            lambda result: self._changed(namespace, result.recorded),
        )

    def context(
        self, namespace: str, limit: int = 50, *, types: Collection[EventType] | None = None
    ) -> Context:
        """The newest ``limit`` events (of ``types``), oldest first, with the items as they were then."""
        if limit <= 0:
            return Context()
        found = self._read(lambda db: event_rows.newest(db, namespace, limit, types))
        return Context(tuple(reversed(found)))

    def generation(self, namespace: str) -> int:
        """A number that changes whenever the namespace's events do, after the commit. No I/O."""
        return self._restored + self._of_all + self._generations.get(namespace, 0)

    def events(self, namespace: str, limit: int, page_token: str = "") -> tuple[list[Event], str]:
        """A page of at most ``limit`` events, newest first, and the token of the next, "" at the end.

        Raises InvalidArgument for a limit below 1 or a token that no page ended with.
        """
        if not 1 <= limit <= _MAX_PAGE:
            raise InvalidArgument("page_size", f"is {limit}; it must be from 1 to {_MAX_PAGE}")
        return self._read(lambda db: event_rows.page(db, namespace, limit, page_token))

    def forget(self, namespace: str, selector: Selector, *, dry_run: bool = False) -> Forgotten:
        """Remove events and all that only they needed, also from the log, and every backup. Idempotent.

        That is: snapshots that no other event has; vectors of texts that only those had, and all of an item
        without any snapshot left; what a model made of the user's events; rankings that list the events'
        items, and those logged since the oldest of the events was stored. Of an item that is selected by its
        id, vectors and rankings go even without an event. What only a list of candidates brought stays: it is
        public, and no event made it.

        One transaction, but on a full disk it goes in parts, of the events that were there at its beginning.
        What a crash cuts off is finished at the next ``open``. ``dry_run`` writes nothing, and returns what
        the same call without it would. Raises StoreFull, which says what is gone.
        """
        if dry_run:
            return self._would_forget(namespace, selector)
        with self._forgetting:
            gone = self._erase(Promise(namespace, selector))
            if selector.all_namespaces:
                return gone
            # On a connection of its own, beside what is being written now.
            with self._beside() as db:
                return dataclasses.replace(gone, remaining_digest=digest.remaining(db, namespace))

    def _would_forget(self, namespace: str, selector: Selector) -> Forgotten:
        with self._beside() as db:
            found = forget.gather(db, namespace, selector)
            left = "" if selector.all_namespaces else digest.remaining(db, namespace)
        n_copies = len(self.backups.list()) + recovery.n_quarantined(self.path.parent)
        return dataclasses.replace(found, backups=n_copies, remaining_digest=left)

    @contextlib.contextmanager
    def _beside(self) -> Iterator[Database]:
        """A connection that sees one moment, and writes to temporary tables only, which are there."""
        with faults.translated(self.path):
            db = self._connect()
            try:
                db.conn.execute("BEGIN")
                forget.prepare(db)
                yield db
            finally:
                db.close()

    def _erase(self, promise: Promise | None) -> Forgotten:
        def removed(promise: Promise, gone: Forgotten) -> None:
            self._changed(None if promise.selector.all_namespaces else promise.namespace, gone.events)

        erasure = Erasure(self.path, promise, removed, self._care.remove_copies)
        # A backup that is being made would have what is forgotten, and keep the log from being emptied.
        with self.backups.held_off():
            return erasure.run(self._writer, self._reserve)

    def export(self, namespace: str) -> Iterator[list[Event] | list[LoggedRanking]]:
        """All of a namespace that cannot be made again, page by page, as it was at the first one.

        Events as they arrived, then rankings, newest first. No page holds anything up while it is read or
        waited for. Raises StoreBusy at the end if something was forgotten meanwhile: then all is void.
        """
        return export.pages(self._read, namespace)

    def importing(self, namespace: str, done: Callable[[], None] = lambda: None) -> Import:
        """Begin an import: nothing of it is in the store before it is finished, then all of it is.

        ``done`` is called in between the commit and the return of ``finish``. Raises StoreError.
        """

        def committed(result: Recorded) -> None:
            self._changed(namespace, result.recorded)

        return Import(self.path, self._writer, namespace, committed, done)

    def vectors(self, namespace: str, space: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The vectors that are known in a space, by content hash."""
        if not hashes:
            return {}
        return self._read(lambda db: vectors.get(db, namespace, space, hashes))

    def put_vectors(self, namespace: str, space: str, rows: Sequence[tuple[str, str, bytes]]) -> None:
        """Keep (content hash, item id, vector) rows, soon; ``flush`` waits. A failure is only counted."""
        kept = list(rows)
        if kept:
            self._writer.post(lambda db: vectors.put(db, namespace, space, kept))

    def put_ranking(
        self, namespace: str, ranking: Ranking, *, surface: str, session_id: str, created_at: float
    ) -> None:
        """Log a ranking, soon; ``flush`` waits. ``created_at`` in s since 1970. A failure is only counted."""

        def run(db: Database) -> None:
            rankings.put(
                db,
                namespace,
                ranking.ranking_id,
                rankings.encode(ranking),
                surface=surface,
                session_id=session_id,
                created_at=created_at,
            )

        self._writer.post(run)

    def ranking(self, namespace: str, ranking_id: str) -> Ranking | None:
        """A logged ranking; None when it was never logged, not yet, or was forgotten."""
        return self._read(lambda db: rankings.get(db, namespace, ranking_id))

    def prefix_state(self) -> PrefixState | None:
        """The model state that was kept last, unless its user's events were forgotten since."""
        return self._read(prefixes.get)

    def put_prefix_state(self, kept: PrefixState | None) -> None:
        """Keep this one model state, or none, soon; ``flush`` waits. A failure is only counted."""
        self._writer.post(lambda db: prefixes.clear(db) if kept is None else prefixes.put(db, kept))

    def counts(self, namespace: str) -> dict[str, int]:
        """Rows of the namespace by kind: events, items, vectors, rankings."""

        def count(db: Database) -> dict[str, int]:
            sql = "SELECT count(*) FROM {} WHERE namespace = ?"
            kinds = ("events", "items", "vectors", "rankings")
            return {kind: db.conn.execute(sql.format(kind), (namespace,)).fetchone()[0] for kind in kinds}

        return self._read(count)

    def flush(self) -> None:
        """Return once everything handed over before is stored, or was counted in ``dropped``."""
        self._writer.alone(lambda db: None)

    def check(self) -> list[str]:
        """What is wrong with the file, by HMAC of every page and by structure; empty when it is sound."""
        try:
            # In the writer's thread, so that no checkpoint changes a page while it is being checked.
            return self._writer.alone(lambda _: problems(self._connect))
        except EdgeRerankerError as e:
            return [str(e)]

    def close(self) -> None:
        """Store what waits, fold the log into the database, close. Idempotent."""
        with self._close_lock:
            self._care.close()
            # Closed before, or the disk is full: the log is durable and is folded in at the next start.
            with contextlib.suppress(StoreError):
                self._writer.alone(checkpoint)
            self._readers.close()
            self._writer.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self, query: Callable[[Database], _T]) -> _T:
        self._care.asked()
        try:
            with faults.translated(self.path), self._readers.one() as db:
                return query(db)
        except StoreCorrupt:
            self._care.suspect()
            raise

    def _was_restored(self) -> None:
        """Whatever anybody remembers of the events, it may be of others now."""
        with self._lock:
            self._restored += 1

    @contextlib.contextmanager
    def _log_read_anew(self) -> Iterator[None]:
        with self.backups.held_off(), self._readers.kept_out(_READERS_S) as free:
            if not free:
                raise StoreBusy(f"{self.path} is being read while its log must be read anew; try again")
            yield
            # A batch that failed at the last moment may be there now.
            self._was_restored()

    def _changed(self, namespace: str | None, n_events: int) -> None:
        """Events of a namespace, or of all, have come or gone."""
        with self._lock:
            if n_events and namespace is None:
                self._of_all += 1
            elif n_events and namespace is not None:
                self._generations[namespace] = self._generations.get(namespace, 0) + 1
