"""A log of interactions: who met which item, when, and how; columns, not objects.

An interaction takes 17 bytes (user, item, type, time), and becomes a record only when it is asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from edge_reranker.types import Event, EventType, Item

LIKED = frozenset({EventType.LIKE, EventType.PURCHASE, EventType.SHARE})
"""The types that a good order puts first."""


class Interaction(NamedTuple):
    """What one user did with one item; ``at_s`` is in seconds since 1970 UTC."""

    user_id: str
    item_id: str
    type: EventType
    at_s: float

    @property
    def liked(self) -> bool:
        """Whether it is one that a good order would have put first."""
        return self.type in LIKED


def event_type(rating: float) -> EventType:
    """The event that a rating from 1 to 5 stands for: from 4 on LIKE, from 3 on VIEW, below DISLIKE."""
    if rating >= 4:
        return EventType.LIKE
    return EventType.VIEW if rating >= 3 else EventType.DISLIKE


def events(interactions: Iterable[Interaction], items: Mapping[str, Item]) -> tuple[Event, ...]:
    """Interactions as the events that an app would record."""
    return tuple(
        Event(event_id=f"{i.user_id}-{i.item_id}", type=i.type, occurred_at=i.at_s, item=items[i.item_id])
        for i in interactions
    )


@dataclass(frozen=True, eq=False)
class Log:
    """Items, and interactions ordered by user id, then time (ties by item id).

    ``user`` and ``item`` are rows of ``users`` and ``items``; ``type`` and ``at_s`` are aligned with them.
    """

    items: tuple[Item, ...]
    users: tuple[str, ...]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    type: NDArray[np.int8]
    at_s: NDArray[np.float64]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Item id to its row in ``items`` and in arrays aligned with it."""
        return {item.id: row for row, item in enumerate(self.items)}

    @property
    def interactions(self) -> Interactions:
        """All of them."""
        return Interactions(self, 0, len(self.at_s))

    def of_users(self) -> Iterator[tuple[str, Interactions]]:
        """Every user's interactions, users by id."""
        starts = np.searchsorted(self.user, np.arange(len(self.users) + 1)).tolist()
        for name, start, stop in zip(self.users, starts[:-1], starts[1:], strict=True):
            yield name, Interactions(self, start, stop)

    @classmethod
    def of(cls, items: Iterable[Item], interactions: Iterable[Interaction]) -> Log:
        """A log of records. Raises ``KeyError`` for an item that is not among ``items``."""
        builder = Builder(items)
        for each in interactions:
            builder.add(each.user_id, each.item_id, each.type, each.at_s)
        return builder.log()


class Interactions(Sequence[Interaction]):
    """A stretch of a log."""

    __slots__ = ("_log", "_start", "_stop")

    def __init__(self, log: Log, start: int, stop: int) -> None:
        self._log, self._start, self._stop = log, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, at: int) -> Interaction: ...
    @overload
    def __getitem__(self, at: slice) -> Interactions: ...
    def __getitem__(self, at: int | slice) -> Interaction | Interactions:
        where = range(self._start, self._stop)[at]
        if isinstance(where, int):
            return self._record(where)
        if where.step != 1:
            raise ValueError("a stretch of a log has no steps")
        return Interactions(self._log, where.start, max(where.start, where.stop))

    def __iter__(self) -> Iterator[Interaction]:
        return map(self._record, range(self._start, self._stop))

    def up_to(self, at_s: float) -> Interactions:
        """Those of one user until ``at_s``, itself included."""
        n = int(np.searchsorted(self.at_s, at_s, side="right"))
        return Interactions(self._log, self._start, self._start + n)

    @property
    def rows(self) -> NDArray[np.int32]:
        """Their items' rows."""
        return self._log.item[self._start : self._stop]

    @property
    def types(self) -> NDArray[np.int8]:
        """Their event types' numbers."""
        return self._log.type[self._start : self._stop]

    @property
    def at_s(self) -> NDArray[np.float64]:
        """Their times."""
        return self._log.at_s[self._start : self._stop]

    def _record(self, at: int) -> Interaction:
        log = self._log
        return Interaction(
            log.users[log.user[at]],
            log.items[log.item[at]].id,
            EventType(log.type[at]),
            float(log.at_s[at]),
        )


def times_met(pasts: Iterable[Interactions], items: Sequence[Item]) -> dict[str, int]:
    """How often each of a log's ``items`` was met in stretches of it; what was not is left out."""
    rows = [past.rows for past in pasts]
    counts = np.bincount(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
    return {items[row].id: int(counts[row]) for row in np.flatnonzero(counts).tolist()}


class Builder:
    """Takes interactions one by one, in any order."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = tuple(items)
        self.row_of = {item.id: row for row, item in enumerate(self._items)}
        self._code_of: dict[str, int] = {}
        self._user, self._item = array("i"), array("i")
        self._type, self._at_s = array("b"), array("d")

    def add(self, user_id: str, item_id: str, type_: EventType | int, at_s: float) -> None:
        """Raises ``KeyError`` for an item that is not known."""
        self._item.append(self.row_of[item_id])
        self._user.append(self._code_of.setdefault(user_id, len(self._code_of)))
        self._type.append(type_)
        self._at_s.append(at_s)

    def log(self) -> Log:
        """What was added, in order; what was added twice, alike in all columns, is there once."""
        users = sorted(self._code_of)
        user = _places([self._code_of[name] for name in users])[np.frombuffer(self._user, np.int32)]
        ids = [item.id for item in self._items]
        by_id = _places(sorted(range(len(ids)), key=ids.__getitem__))
        item = np.frombuffer(self._item, np.int32)
        at_s, type_ = np.frombuffer(self._at_s, np.float64), np.frombuffer(self._type, np.int8)
        order = np.lexsort((type_, by_id[item], at_s, user))
        user, item, at_s, type_ = user[order], item[order], at_s[order], type_[order]
        del order
        new = np.ones(len(user), bool)
        new[1:] = False
        for column in (user, item, at_s, type_):
            new[1:] |= column[1:] != column[:-1]
        if not new.all():
            user, item, at_s, type_ = user[new], item[new], at_s[new], type_[new]
        return Log(self._items, tuple(users), user, item, type_, at_s)


def _places(order: Sequence[int]) -> NDArray[np.int32]:
    """The inverse of a permutation."""
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places
