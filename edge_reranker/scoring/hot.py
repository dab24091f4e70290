"""The user's context in the model, kept hot: decoded ahead of requests, kept over restarts."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine, SavedPrefix
from edge_reranker.errors import StoreError
from edge_reranker.scoring.epochs import Epochs
from edge_reranker.scoring.tier2 import CrossScorer
from edge_reranker.scoring.types import User
from edge_reranker.store import Store
from edge_reranker.types import PrefixState

# Megabytes each time: what is decoded in between costs its own tokens once more after a crash.
_SAVE_EVERY_S = 300.0
_SAVE_MS = 5_000.0
_READY_MS = 60_000.0


class HotPrefix:
    """Keeps one scorer's prefix ready. ``fingerprint`` names what its state depends on besides its tokens.

    Saved states lie in the encrypted store, one at most; each forget removes its user's.
    """

    def __init__(
        self, scorer: CrossScorer, engine: Engine, store: Store, epochs: Epochs, fingerprint: str
    ) -> None:
        self._scorer = scorer
        self._engine = engine
        self._store = store
        self._epochs = epochs
        self._fingerprint = fingerprint
        self._saved: tuple[int, ...] = ()
        self._saved_at_s = -_SAVE_EVERY_S

    def prefill(self, user: User) -> bool:
        """Decodes a slice of the user's context; whether nothing is left to do. Saves it now and then."""
        if not self._scorer.prefill(user):
            return False
        if time.monotonic() - self._saved_at_s > _SAVE_EVERY_S:
            self.save()
        return True

    def start(self) -> None:
        """Restores in a thread of its own: the model may take seconds to load."""
        threading.Thread(target=self._restore, name="restore-prefix", daemon=True).start()

    def _restore(self) -> None:
        # Without it, the context is decoded when it is next needed.
        with contextlib.suppress(StoreError):
            self.restore()

    def restore(self) -> bool:
        """Gives the engine the state that was saved, if it is of this model; whether it took it."""
        kept = self._store.prefix_state()
        if kept is None:
            return False
        ids = tuple(np.frombuffer(kept.token_ids, "<i4").tolist())
        if kept.fingerprint != self._fingerprint:
            self._store.put_prefix_state(None)  # it will be made again from the events
            return False
        # At once, so that a request that comes before the model is ready begins where the state does.
        self._scorer.resume(kept.namespace, kept.first_event)
        deadline = Deadline.after_ms(_READY_MS)
        if not self._engine.wait_ready(deadline):
            return False
        if not self._engine.restore_prefix(SavedPrefix(ids, kept.state), deadline):
            return False
        self._saved = ids
        return True

    def forget(self, namespace: str) -> None:
        """Drops what is kept of a user."""
        self._saved = ()  # another's will be saved once more, which harms nobody

    def save(self) -> None:
        """Keeps what the engine holds, unless it is another user's, forgotten, or kept already."""
        told = self._scorer.last
        if told is None:
            return
        self._saved_at_s = time.monotonic()
        saved = self._engine.save_prefix(Deadline.after_ms(_SAVE_MS))
        if saved is None or saved.ids[: len(told.ids)] != tuple(told.ids):
            return
        if saved.ids != self._saved:
            ids = np.asarray(saved.ids, "<i4").tobytes()
            kept = PrefixState(told.owner.namespace, self._fingerprint, told.window.first, ids, saved.state)
            self._epochs.during(told.owner, lambda: self._store.put_prefix_state(kept))
            self._saved = saved.ids
