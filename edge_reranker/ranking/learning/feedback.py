"""From an event and the list that it happened in to a choice: the evidence in it, and no more."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import fusion
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.shown import Shown, examination, numbers, unpacked
from edge_reranker.types import EventType

Float64 = NDArray[np.float64]

# How many choices an event is worth. A click is one; what costs the user more says more.
COUNTS: Mapping[EventType, float] = MappingProxyType(
    {
        EventType.VIEW: 0.25,
        EventType.CLICK: 1.0,
        EventType.LIKE: 1.5,
        EventType.SHARE: 1.5,
        EventType.PURCHASE: 2.0,
        EventType.DISLIKE: 0.5,
        EventType.HIDE: 0.5,
        EventType.SKIP: 0.1,
    }
)
AGAINST = frozenset({EventType.DISLIKE, EventType.HIDE, EventType.SKIP})
# A stay that long is worth a click; a shorter one its share.
DWELL_S = 30.0

# Rows of a list that a choice keeps: all of its head, and a sample of what comes after.
HEAD, TAIL = 24, 8

# No event is worth more; what an import says is not believed beyond it.
_MOST_COUNTED = 4.0

_FORMAT = 1
_MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One item picked from a list, or pushed away, with what it is compared to.

    ``matrix`` [m, k] are the columns ``names`` of the kept rows, ``served`` [m] their places as served, from
    1, and ``stands_for`` [m] how many of the list's candidates each stands for: 1 in the head, more in the
    sampled rest. ``items`` [m] tell items apart, and ``expected`` [m] is the chance that each was given of
    being the one that is chosen. ``chosen`` is the row of the item, ``against`` says that it was pushed away,
    ``count`` how many choices it is worth. ``our_place`` and ``server_place`` are the item's places among
    what was served, by our order and by the server's; ``exposure`` is its expected examination.
    ``most_gain`` and ``most_loss`` are the most that our order could have gained on the server's, or lost, by
    any choice from the list (see ``gate``); ``list_id`` tells it from others.
    """

    pack: str
    with_model: bool
    by_server: bool
    list_id: bytes
    names: tuple[str, ...]
    matrix: Float64
    served: Float64
    stands_for: Float64
    items: NDArray[np.uint64]
    expected: Float64
    chosen: int
    against: bool
    count: float
    our_place: int
    server_place: int
    exposure: float
    most_gain: float
    most_loss: float

    def __post_init__(self) -> None:
        m, k = len(self.served), len(self.names)
        fits = (
            self.matrix.shape == (m, k)
            and self.served.shape == self.stands_for.shape == (m,)
            and np.isfinite(self.matrix).all()
            and (self.served >= 1).all()
            and np.isfinite(self.stands_for).all()
            and (self.stands_for >= 1).all()
            and self.items.shape == self.expected.shape == (m,)
            and ((self.expected >= 0) & (self.expected <= 1)).all()
        )
        if not fits or len(set(self.names)) != k or "server_rank" not in self.names:
            raise ValueError("choice: names, rows and places do not fit each other")
        if not 0 <= self.chosen < m:
            raise ValueError(f"choice: row {self.chosen} is not one of {m}")
        if not (0 < self.count <= _MOST_COUNTED and 0 < self.exposure < math.inf):
            raise ValueError("choice: count or exposure is out of range")
        if not (0 <= self.most_gain < math.inf and 0 <= self.most_loss < math.inf):
            raise ValueError("choice: most_gain or most_loss is out of range")
        if self.our_place < 1 or self.server_place < 1:
            raise ValueError("choice: places count from 1")

    def encode(self) -> bytes:
        """As bytes, one to three kilobytes; ``decode`` gives the same record back."""
        record = _Record(
            _FORMAT,
            self.pack,
            self.with_model,
            self.by_server,
            self.list_id,
            list(self.names),
            np.ascontiguousarray(self.matrix.T, "<f4").tobytes(),
            self.served.astype("<u2").tobytes(),
            self.stands_for.astype("<f8").tobytes(),
            self.items.astype("<u8").tobytes(),
            self.expected.astype("<f4").tobytes(),
            self.chosen,
            self.against,
            self.count,
            self.our_place,
            self.server_place,
            self.exposure,
            self.most_gain,
            self.most_loss,
        )
        return zlib.compress(msgspec.msgpack.encode(record), 6)

    @classmethod
    def decode(cls, data: bytes) -> Choice:
        """The record of these bytes. Raises ValueError when they are damaged or of another version."""
        record = unpacked(data, _Record, _MAX_BYTES, _FORMAT)
        m, k = len(record.served) // 2, len(record.names)
        return cls(
            pack=record.pack,
            with_model=record.with_model,
            by_server=record.by_server,
            list_id=record.list_id,
            names=tuple(record.names),
            matrix=np.ascontiguousarray(numbers(record.matrix, "<f4", m * k).reshape(k, m).T),
            served=numbers(record.served, "<u2", m),
            stands_for=numbers(record.stands_for, "<f8", m),
            items=_items(record.items, m),
            expected=numbers(record.expected, "<f4", m),
            chosen=record.chosen,
            against=record.against,
            count=record.count,
            our_place=record.our_place,
            server_place=record.server_place,
            exposure=record.exposure,
            most_gain=record.most_gain,
            most_loss=record.most_loss,
        )


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    pack: str
    with_model: bool
    by_server: bool
    list_id: bytes
    names: list[str]
    matrix: bytes
    served: bytes
    stands_for: bytes
    items: bytes
    expected: bytes
    chosen: int
    against: bool
    count: float
    our_place: int
    server_place: int
    exposure: float
    most_gain: float
    most_loss: float


def choice_of(
    shown: Shown, item_id: str, event_type: EventType, dwell_s: float = 0.0, position: int | None = None
) -> Choice | None:
    """What an event with ``item_id`` says about the list ``shown``; None when it says nothing.

    That is so for an item that was not in the list, for a list of one, and for types that are neither for
    nor against an item. ``position`` is the zero-based place at which the app says it was; it is believed
    for this item, the service's own order for all others.

    A long list is cut to ``HEAD`` rows and ``TAIL`` drawn from the rest without regard to what was chosen,
    except that the chosen one is always kept. Each drawn row stands for its share of the rest, which is
    McFadden's correction for sampled alternatives ("Modelling the choice of residential location", 1978): the
    weights found stay consistent.
    """
    count = _count(event_type, dwell_s)
    if count <= 0 or len(shown.order) < 2 or item_id not in shown.ids:
        return None
    index = shown.ids.index(item_id)
    at = np.flatnonzero(shown.order == index)
    if not len(at):
        return None
    place = int(at[0])
    list_id = _list_id(shown)
    kept, stands_for = _kept(len(shown.order), place, list_id)
    rows = shown.order[kept]
    columns = [
        j for j, name in enumerate(shown.names) if name == "server_rank" or shown.matrix[rows, j].any()
    ]
    served = np.asarray(kept + 1.0, np.float64)
    chosen = int(np.flatnonzero(kept == place)[0])
    if position is not None:
        served[chosen] = 1.0 + min(max(position, 0), len(shown.order) - 1)
    ours, server = _places(shown)
    exposure = examination(np.arange(1, len(shown.order) + 1))
    exposure[place] = examination(served[chosen])
    if shown.exposure is not None:
        # What the policy can never show cannot be chosen; this keeps a rounding error from dividing by 0.
        exposure = np.maximum(shown.exposure[shown.order], examination(float(len(shown.ids))))
    gained = (examination(ours) - examination(server)) / exposure
    return Choice(
        pack=shown.pack,
        with_model=shown.with_model,
        by_server=shown.by_server,
        list_id=list_id,
        names=tuple(shown.names[j] for j in columns),
        matrix=np.ascontiguousarray(shown.matrix[rows][:, columns]),
        served=served,
        stands_for=stands_for,
        items=np.array([_item(shown.ids[row]) for row in rows], np.uint64),
        expected=_expected(shown, rows, served, stands_for),
        chosen=chosen,
        against=event_type in AGAINST,
        count=count,
        our_place=int(ours[place]),
        server_place=int(server[place]),
        exposure=float(exposure[place]),
        most_gain=float(max(0.0, gained.max())),
        most_loss=float(max(0.0, -gained.min())),
    )


def _expected(shown: Shown, rows: NDArray[np.intp], served: Float64, stands_for: Float64) -> Float64:
    """The chance of each row to be chosen, by the weights that were used and the place; single precision."""
    used = Weights(shown.names, shown.weights, np.zeros((0, 0)))
    chances = fusion.fuse(shown.matrix[rows], shown.names, used) + np.log(examination(served))
    chances = np.exp(chances - chances.max())
    return np.asarray(chances / (chances @ stands_for), np.float32).astype(np.float64)


def _item(item_id: str) -> int:
    """Tells items apart in 64 bits."""
    return int.from_bytes(hashlib.blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _items(data: bytes, m: int) -> NDArray[np.uint64]:
    if len(data) != 8 * m:
        raise ValueError(f"damaged: {len(data)} bytes where {m} items were expected")
    return np.frombuffer(data, "<u8").astype(np.uint64)


def _count(event_type: EventType, dwell_s: float) -> float:
    if event_type == EventType.DWELL:
        return min(1.0, dwell_s / DWELL_S) if dwell_s > 0 else 0.0
    return COUNTS.get(event_type, 0.0)


def _list_id(shown: Shown) -> bytes:
    """Eight bytes that tell lists apart."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update("\0".join(shown.ids).encode("utf-8", "surrogatepass"))
    digest.update(shown.order.astype("<u2").tobytes())
    digest.update(shown.matrix.tobytes())
    return digest.digest()


def _kept(n: int, place: int, seed: bytes) -> tuple[NDArray[np.intp], Float64]:
    """Zero-based places that are kept of ``n``, ascending, and how many each stands for."""
    if n <= HEAD + TAIL:
        return np.arange(n), np.ones(n)
    drawn = HEAD + np.random.default_rng(int.from_bytes(seed, "little")).permutation(n - HEAD)
    if place >= HEAD:
        drawn = np.concatenate([[place], drawn[drawn != place]])
    kept = np.concatenate([np.arange(HEAD), np.sort(drawn[:TAIL])])
    return kept, np.where(kept < HEAD, 1.0, (n - HEAD) / TAIL)


def _places(shown: Shown) -> tuple[Float64, Float64]:
    """Places from 1 by our order and by the server's, of what was served, in the order served."""
    was_served = np.zeros(len(shown.ids), np.bool_)
    was_served[shown.order] = True
    ours = np.zeros(len(shown.ids))
    best_first = shown.ours[was_served[shown.ours]]
    ours[best_first] = np.arange(1, len(best_first) + 1)
    server = np.cumsum(was_served).astype(np.float64)
    return ours[shown.order], server[shown.order]
