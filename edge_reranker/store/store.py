"""The store's front: one object for a data directory, for any number of threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
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
from edge_reranker.store import clock as store_clock
from edge_reranker.store import events as event_rows
from edge_reranker.store import (
    export,
    faults,
    files,
    namespaces,
    prefixes,
    rankings,
    vectors,
)
from edge_reranker.store.backups import KEPT, Backups
from edge_reranker.store.care import Care
from edge_reranker.store.check import problems
from edge_reranker.store.choices import Inserted
from edge_reranker.store.clock import Clock
from edge_reranker.store.contexts import Contexts
from edge_reranker.store.forgetting import Forgetting
from edge_reranker.store.imports import Import, remove_leftovers
from edge_reranker.store.learning import Learning
from edge_reranker.store.open import open_database
from edge_reranker.store.readers import Readers
from edge_reranker.store.recording import Recording
from edge_reranker.store.rules import Rules
from edge_reranker.store.spaces import Spaces
from edge_reranker.store.start import Started, start
from edge_reranker.store.sweep import Swept
from edge_reranker.store.writer import Writer, checkpoint
from edge_reranker.types import (
    NOTHING,
    Context,
    Event,
    EventType,
    Forgotten,
    Grant,
    LoggedRanking,
    Namespace,
    PrefixState,
    Ranking,
    Record,
    Recorded,
    Retention,
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

    def __init__(
        self,
        path: Path,
        started: Started,
        *,
        kept: int = KEPT,
        device_s: Callable[[], float] = time.time,
        passed_s: Callable[[], float] = store_clock.passed_s,
    ) -> None:
        key = started.key
        self.path = path
        self.key_location = key.location
        self._connect: Callable[[], Database] = lambda: open_database(path, key)
        self._readers = Readers(lambda: open_database(path, key, read_only=True))
        self._writer = Writer(
            self._connect, path, damaged=lambda: self._care.suspect(), closed=self._log_read_anew
        )
        self._contexts = Contexts(
            self._read,
            lambda reader: self._spaces.sources(reader),
            lambda source: self._spaces.readers(source),
        )
        self._spaces = Spaces(self._writer, self._contexts.renew, started.grants)
        self._learning = Learning(self._writer, self._read, self._spaces)
        self._close_lock = threading.Lock()
        self.backups = Backups(path.parent, key, kept=kept)
        self._care = Care(path, started, self.backups, self._writer, self._readers, self._was_exchanged)
        self._forgetting = Forgetting(
            path, self._connect, self._writer, self.backups, self._care, self._remade
        )
        noted = store_clock.at_start(self._writer, self._read, device_s())
        self._clock = Clock(noted, device_s, passed_s)
        self._rules = Rules(path, self._writer, self._read, self._clock, self._swept)
        self._recording = Recording(self._writer, self._clock, self._spaces.require_open, self._recorded)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        key_source: str = "auto",
        backups: int = KEPT,
        device_s: Callable[[], float] = time.time,
        passed_s: Callable[[], float] = store_clock.passed_s,
    ) -> Store:
        """Open the store of a data directory, and make it when there is none.

        ``key_source`` "auto" keeps a new key in the keyring if there is one, "file" never asks a keyring.
        ``backups`` is how many are kept; 0: none is made unasked. A damaged store is put aside for the newest
        sound backup; see ``quarantined``. ``device_s`` is the device's clock (s since 1970), ``passed_s`` one
        that nobody can set. Raises StoreCorrupt for a file that is no store of this version or whose key is
        gone or another (it is left as it is), FailedPrecondition for a directory that cannot be private,
        StoreError.
        """
        data_dir = data_dir.absolute()
        path = data_dir / "store.db"
        files.private_dir(data_dir)
        with faults.translated(path):
            remove_leftovers(data_dir)
            started = start(path, source=key_source, kept=backups)
        store = cls(path, started, kept=backups, device_s=device_s, passed_s=passed_s)
        # Whoever must forget to get room has to get in first, and so does a doctor that holds the log.
        if started.unfinished:
            with contextlib.suppress(StoreFull, StoreBusy):
                store._forgetting.finish()
        for name in started.ending:
            # Else it goes at a later start: it has no token, and nobody can record in it.
            with contextlib.suppress(StoreError):
                store.delete_namespace(name)
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

    def record(
        self, namespace: str, events: Sequence[Event], choices: Mapping[str, bytes] = NOTHING
    ) -> Recorded:
        """Store a batch, all or nothing; on return it is durable. Known event ids change nothing.

        ``choices`` are, by event id, what learning takes from an event; kept of those that are new and name a
        ranking that is there.

        Raises InvalidArgument for what cannot be kept as it is, StoreBusy when too many writes wait. After an
        error of the disk the batch may be there all the same, whole: only a return says that it is durable.
        """
        self._care.asked()
        return self._recording.record(namespace, events, choices)

    def context(
        self, namespace: str, limit: int = 50, *, types: Collection[EventType] | None = None
    ) -> Context:
        """The newest ``limit`` events (of ``types``), oldest first, with the items as they were then.

        What rankings go by, so events of the namespaces that were granted to this one are among them.
        """
        return self._contexts.get(namespace, limit, types)

    def generation(self, namespace: str) -> int:
        """A number that changes whenever the events behind its rankings do, after the commit. No I/O."""
        return self._contexts.generation(namespace)

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
        items, and those logged since the oldest of the events was stored; choices of the events, and those
        from lists that were ranked since. Of an item that is selected by its id, vectors and rankings go even
        without an event. With everything, muted topics go, too. What only a list of candidates brought stays:
        it is public, and no event made it.

        One transaction, but on a full disk it goes in parts, of the events that were there at its beginning.
        What a crash cuts off is finished at the next ``open``. ``dry_run`` writes nothing, and returns what
        the same call without it would. Raises StoreFull, which says what is gone.
        """
        if dry_run:
            return self._forgetting.would_forget(namespace, selector)
        return self._forgetting.forget(namespace, selector)

    def export(self, namespace: str) -> Iterator[Sequence[Record]]:
        """All of a namespace that cannot be made again, page by page, as it was at the first one.

        Events as they arrived, rankings, newest first, choices, then muted topics. No page holds anything up
        while it is read or waited for. Raises StoreBusy at the end if something was forgotten meanwhile: then
        all is void.
        """
        return export.pages(self._read, namespace)

    def importing(self, namespace: str, done: Callable[[], None] = lambda: None) -> Import:
        """Begin an import: nothing of it is in the store before it is finished, then all of it is.

        ``done`` is called in between the commit and the return of ``finish``. Raises StoreError.
        """

        def committed(result: Recorded) -> None:
            self._remade(namespace, result.recorded or 1)  # known events may have new choices

        allowed = partial(self._spaces.require_open, namespace)
        return Import(self.path, self._writer, namespace, committed, done, allowed)

    def namespaces(self) -> list[Namespace]:
        """Those that the owner made, and the default one, by name."""
        return self._read(namespaces.listed)

    def namespace_names(self) -> list[str]:
        """The same, without a look at what is in them."""
        return self._read(namespaces.names)

    def require_namespace(self, name: str) -> None:
        """Raises NotFound unless there is such a namespace."""
        self._read(lambda db: namespaces.require(db, name))

    def create_namespace(self, name: str) -> None:
        """Make a namespace. Idempotent. Raises FailedPrecondition while its deletion is not finished."""
        self._spaces.create(name)

    def begin_deletion(self, name: str) -> None:
        """From here on the namespace counts as gone, and nothing is recorded in it any more.

        What is in it goes with ``delete_namespace``, or at the next opening. Raises InvalidArgument for the
        default one.
        """
        self._spaces.close(name)

    def delete_namespace(self, name: str) -> Forgotten:
        """Remove everything of a namespace, its grants, then itself. Idempotent. Raises as ``forget``."""
        self.begin_deletion(name)
        for reader in self.readers(name):
            self.revoke(name, reader)
        gone = self.forget(name, Selector(everything=True))
        for source in self.sources(name):
            self.revoke(source, name)
        self._writer.submit(lambda db: namespaces.remove(db, name))
        return gone

    def sources(self, reader: str) -> tuple[str, ...]:
        """The namespaces whose events the reader's rankings go by, besides its own. No I/O."""
        return self._spaces.sources(reader)

    def readers(self, source: str) -> tuple[str, ...]:
        """The namespaces whose rankings go by the source's events. No I/O."""
        return self._spaces.readers(source)

    def grant(self, source: str, reader: str, granted_at: float) -> Grant:
        """Let the reader's rankings go by the source's events; the grant that holds then.

        Raises NotFound for a namespace that is not there, InvalidArgument for one and the same.
        """
        return self._spaces.grant(Grant(source, reader, granted_at))

    def revoke(self, source: str, reader: str) -> None:
        """End a grant, and forget what was derived by it, also from the log. Raises as ``forget``."""

        def revoked(_: None) -> None:
            self._learning.changed()
            self._spaces.revoked(source, reader)

        self._forgetting.after(lambda db: namespaces.revoke(db, source, reader), revoked)

    def now(self) -> float:
        """The time (s since 1970) that ages are counted to: the device's, as far as it can be believed."""
        return self._clock.now().store_s

    def retention(self, namespace: str) -> Retention:
        """How long the namespace's events are kept; everything, until a rule is set."""
        return self._rules.get(namespace)

    def retentions(self) -> dict[str, Retention]:
        """The rule of each namespace that has one."""
        return self._rules.all()

    def set_retention(self, namespace: str, rule: Retention) -> None:
        """Change that; on return it is durable. ``sweep`` removes what the rule does not keep."""
        self._rules.put(namespace, rule)

    def sweep(self, namespace: str) -> Iterator[Swept]:
        """Remove what the namespace's rule does not keep, a few milliseconds of the writer's time a step.

        At the end exactly those events are gone that were over the rule when it began, with what only they
        needed. It may stop after any step, and be begun again. Raises StoreError.
        """
        return self._rules.sweep(namespace)

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
        self,
        namespace: str,
        ranking: Ranking,
        *,
        surface: str,
        session_id: str,
        created_at: float,
        sources: Sequence[str] = (),
        detail: bytes = b"",
    ) -> None:
        """Log a ranking, soon; ``flush`` waits. ``created_at`` in s since 1970. A failure is only counted.

        ``sources`` are the other namespaces by whose events it went: it goes with those. ``detail`` is what
        was shown, and by which numbers; it is kept of the newest 200 rankings.
        """
        logged = LoggedRanking(ranking, surface, session_id, created_at)
        self._recording.log(namespace, logged, sources, detail)

    def ranking(self, namespace: str, ranking_id: str) -> Ranking | None:
        """A logged ranking; None when it was never logged, not yet, or was forgotten."""
        return self._read(lambda db: rankings.get(db, namespace, ranking_id))

    def detail(self, namespace: str, ranking_id: str) -> bytes | None:
        """What was logged with a ranking as its ``detail``; None when it had none, or has not any more."""
        return self._learning.detail(namespace, ranking_id)

    def choices(self, namespace: str, after_seq: int = 0) -> list[tuple[int, bytes]]:
        """The choices of events numbered above ``after_seq``, each with its event's number, as they arrived.

        At most the newest 5,000 are kept. The number of a newest event that has gone is given again.
        """
        return self._learning.choices(namespace, after_seq)

    def choices_state(self, namespace: str) -> tuple[int, int, int]:
        """How many choices there are, and the numbers of the first and the last; zeros when there is none.

        No I/O, but for the first call after choices have gone.
        """
        return self._learning.state(namespace)

    def mute(self, namespace: str, topic: str) -> None:
        """Mute a topic, in whatever case; on return it is durable. Idempotent. Raises InvalidArgument."""
        self._learning.mute(namespace, topic)

    def unmute(self, namespace: str, topic: str) -> None:
        """Take that back; on return it is durable. Idempotent. Raises InvalidArgument."""
        self._learning.unmute(namespace, topic)

    def muted(self, namespace: str) -> tuple[str, ...]:
        """The muted topics, casefolded, in order. No I/O after the first call."""
        return self._learning.muted(namespace)

    def prefix_state(self) -> PrefixState | None:
        """The model state that was kept last, unless its user's events were forgotten since."""
        return self._read(prefixes.get)

    def put_prefix_state(self, kept: PrefixState | None) -> None:
        """Keep this one model state, or none, soon; ``flush`` waits. A failure is only counted."""
        self._writer.post(lambda db: prefixes.clear(db) if kept is None else prefixes.put(db, kept))

    def counts(self, namespace: str) -> dict[str, int]:
        """Rows of the namespace by kind: events, items, vectors, rankings."""
        return self._read(lambda db: namespaces.counts(db, namespace))

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
            now = self._clock.now()
            with contextlib.suppress(StoreError):
                self._writer.submit(lambda db: store_clock.put(db, now))
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

    def _was_exchanged(self) -> None:
        """Another file is in the store's place: what is granted is what that one says."""
        self._all_changed()
        with contextlib.suppress(StoreError):
            self._spaces.regrant(self._read(namespaces.grants))

    def _all_changed(self) -> None:
        """Whatever anybody remembers of the store, it may hold something else now."""
        self._learning.changed()
        self._contexts.all_changed()

    @contextlib.contextmanager
    def _log_read_anew(self) -> Iterator[None]:
        with self.backups.held_off(), self._readers.kept_out(_READERS_S) as free:
            if not free:
                raise StoreBusy(f"{self.path} is being read while its log must be read anew; try again")
            yield
            # A batch that failed at the last moment may be there now.
            self._all_changed()

    def _recorded(self, namespace: str, new: Inserted) -> None:
        self._learning.chosen(namespace, new)
        self._contexts.changed(namespace, new.recorded.recorded)

    def _swept(self, namespace: str, latest: dict[int, float]) -> bool:
        self._learning.changed()
        return self._contexts.removed(namespace, latest)

    def _remade(self, namespace: str | None, n_events: int) -> None:
        """Events of a namespace, or of all, have come or gone, and muted topics, too."""
        self._learning.changed()
        self._contexts.changed(namespace, n_events)
