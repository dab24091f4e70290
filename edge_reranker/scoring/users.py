"""Who asks: what is known of each namespace's user, read once and kept until that changes."""

from __future__ import annotations

import threading

from edge_reranker.prompt import content_hash
from edge_reranker.ranking.context import MAX_EVENTS, contexts, telling
from edge_reranker.ranking.profile import profile
from edge_reranker.scoring.epochs import Owner
from edge_reranker.scoring.tiers import Tiers
from edge_reranker.scoring.types import User
from edge_reranker.store import Store
from edge_reranker.types import Context

# More than a profile counts: what was taken back since stands among them.
_CONTEXT_EVENTS = MAX_EVENTS
_REMEMBERED = 64


class Users:
    """Reads users from the store, and remembers some. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._users: dict[str, User] = {}

    def now(self, tiers: Tiers, namespace: str) -> User:
        """The user now; read again only when the events have changed. Raises StoreError."""
        owner = tiers.epochs.owner(namespace)
        generation = self._store.generation(namespace)
        with self._lock:
            user = self._users.get(namespace)
        if user is not None and (user.owner, user.generation) == (owner, generation):
            return user
        # Of the telling types only: a few lists' impressions must not push out what the user likes.
        context = self._store.context(namespace, _CONTEXT_EVENTS, types=telling(tiers.taste))
        lent = _lent(context, {source: tiers.epochs.owner(source) for source in context.sources})
        # The same with what was found before as without; after a forget there is none.
        told = contexts(context, tiers.taste, before=None if user is None else user.contexts)
        user = User(owner, generation, context, profile(context, tiers.taste), lent, told)
        tiers.epochs.during(owner, lambda: self._remember(user))
        return user

    def forget(self, namespace: str) -> None:
        """Drops what is remembered of a user."""
        with self._lock:
            self._users.pop(namespace, None)

    def _remember(self, user: User) -> None:
        with self._lock:
            self._users.pop(user.namespace, None)
            while len(self._users) >= _REMEMBERED:
                self._users.pop(next(iter(self._users)))
            self._users[user.namespace] = user


def _lent(context: Context, owners: dict[str, Owner]) -> dict[tuple[str, str], Owner]:
    """The items, by id and text, that only other namespaces' events are about, and whose they are."""
    if not owners:
        return {}
    lent: dict[tuple[str, str], Owner] = {}
    own: set[tuple[str, str]] = set()
    for event, namespace in zip(context.events, context.namespaces, strict=True):
        if event.item is None:
            continue
        key = (event.item.id, content_hash(event.item))
        if namespace in owners:
            lent[key] = owners[namespace]
        else:
            own.add(key)
    return {key: owner for key, owner in lent.items() if key not in own}
