"""What a store does for its own safety while it is open: backups, and a new start after damage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_reranker.errors import StoreCorrupt, StoreError
from edge_reranker.store import faults, recovery
from edge_reranker.store.backups import Backup, Backups, held_still
from edge_reranker.store.open import open_database
from edge_reranker.store.readers import Readers
from edge_reranker.store.start import Started, bring_up, replace_damaged
from edge_reranker.store.upkeep import DAILY_S, Upkeep
from edge_reranker.store.writer import Writer

# A store without any backup gets one this long after it was opened, or its backups were removed.
_FIRST_S = 60.0
# Readers have this long to end before the file under them is exchanged.
_READERS_S = 10.0
# A file that is damaged and has no backup is not read through again at every call that fails.
_LOOK_AGAIN_S = 600.0


class Care:
    """Thread-safe. ``restored`` is called once another file has taken the store's place."""

    def __init__(
        self,
        path: Path,
        started: Started,
        backups: Backups,
        writer: Writer,
        readers: Readers,
        restored: Callable[[], None],
    ) -> None:
        self._path = path
        self._key = started.key
        self._unclean = started.unclean
        self._backups = backups
        self._writer = writer
        self._readers = readers
        self._restored = restored
        self._lock = threading.Lock()
        self._looking = False
        self._looked_at = -_LOOK_AGAIN_S
        self._upkeep: Upkeep | None = None
        self._last_asked = self._since = time.monotonic()

    def begin(self) -> None:
        """Start the thread that makes backups, unless none are wanted. Idempotent."""
        if self._upkeep is None and self._backups.kept:
            self._upkeep = Upkeep(self._due_in_s, self._back_up_slowly, self._quiet_s)

    def close(self) -> None:
        """End the thread. Idempotent."""
        upkeep, self._upkeep = self._upkeep, None
        if upkeep is not None:
            upkeep.close()

    def asked(self) -> None:
        """Somebody wants something of the store: this is no idle moment."""
        self._last_asked = time.monotonic()

    def back_up(self, pace: Callable[[], None] = lambda: None) -> Backup:
        """A backup of what is stored now. Raises as ``Backups.make``; damage that it finds is seen to."""
        connect = partial(open_database, self._path, self._key)
        try:
            made = self._backups.make(lambda: held_still(connect, self._path), pace=pace)
        except StoreCorrupt:
            self.suspect()
            raise
        self._unclean = False
        return made

    def remove_copies(self) -> int:
        """Remove all backups and quarantined stores, which have what was forgotten, and say how many.

        Raises OSError, StoreBusy.
        """
        n_copies = self._backups.remove() + recovery.remove_quarantined(self._path.parent)
        self._since = time.monotonic()
        return n_copies

    def suspect(self) -> None:
        """Something found the store damaged: have it looked at, and exchanged if it is. Returns at once."""
        with self._lock:
            if self._looking or time.monotonic() - self._looked_at < _LOOK_AGAIN_S:
                return
            self._looking = True
        try:
            self._writer.apart(self._look)
        except StoreError:  # it is closed, or too much waits: whoever meets the damage next asks again
            self._looking = False

    def _look(self) -> None:
        """In the writer's thread, which has closed its connection."""
        try:
            with self._backups.held_off(), self._readers.kept_out(_READERS_S) as free:
                if not free:
                    return
                self._looked_at = time.monotonic()
                with faults.translated(self._path):
                    replace_damaged(
                        self._path, self._key, self._backups, StoreCorrupt(f"{self._path} is damaged")
                    )
                    # The next damage is another one.
                    self._looked_at -= _LOOK_AGAIN_S
                    bring_up(self._path, self._key, self._backups)
            self._restored()
        finally:
            self._looking = False

    def _back_up_slowly(self, pace: Callable[[], None]) -> None:
        with faults.translated(self._path):
            self.back_up(pace)

    def _due_in_s(self) -> float:
        if self._unclean:
            return 0.0
        newest = next(reversed(self._backups.list()), None)
        if newest is None:
            return self._since + _FIRST_S - time.monotonic()
        age_s = time.time() - newest.made_at
        # A clock that was set back makes the newest one of tomorrow.
        return DAILY_S - age_s if age_s >= 0 else 0.0

    def _quiet_s(self) -> float:
        return time.monotonic() - self._last_asked
