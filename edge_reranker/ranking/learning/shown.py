"""What was shown, kept beside a logged ranking: all that learning from it, or explaining it, needs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Places = NDArray[np.intp]
T = TypeVar("T")

_FORMAT = 1
# 1,000 candidates with 60 columns take a quarter of a megabyte.
_MAX_BYTES = 4 * 1024 * 1024


def examination(places: NDArray[np.number] | float) -> Float64:
    """How likely places, from 1, are looked at, in units of the first one: 1 / place; same shape.

    The position-based model of clicks: Craswell et al., "An experimental comparison of click position-bias
    models", 2008; the curve of Joachims, Swaminathan and Schnabel, "Unbiased learning-to-rank with biased
    feedback", 2017. docs/decisions/0027 has what it costs where looks fall less.
    """
    return np.asarray(1.0 / np.asarray(places, np.float64), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One final answer: its candidates, their columns, and the order that was served.

    ``ids`` are in the request's order, which is the server's. ``matrix`` [n, k] has the columns ``names``,
    rounded to single precision; ``weights`` [k] is what was used of each, 0 where the pack has none.
    ``order`` [n_served] are indices into ``ids`` as served, after the list policy; ``ours`` [n] are all of
    them by fused score, before it. ``exposure`` [n] is the expected ``examination`` of each candidate when
    the order was drawn at random, else None. ``with_model`` says which prior's weights were used, and
    ``by_server`` that the gate had the server's order served. Raises ValueError for shapes that do not fit.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    weights: Float64
    matrix: Float64
    order: Places
    ours: Places
    with_model: bool
    pack: str
    by_server: bool = False
    exposure: Float64 | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        with np.errstate(over="ignore"):
            single = np.asarray(self.matrix, np.float32)
        set_(self, "matrix", single.astype(np.float64) + 0.0)  # without -0, which encoding would lose
        set_(self, "weights", np.asarray(self.weights, np.float64))
        set_(self, "order", np.asarray(self.order, np.intp))
        set_(self, "ours", np.asarray(self.ours, np.intp))
        if self.exposure is not None:
            set_(self, "exposure", np.asarray(self.exposure, np.float64))
        problem = self._problem()
        if problem:
            raise ValueError(f"what was shown: {problem}")

    def encode(self) -> bytes:
        """As bytes, compressed; ``decode`` gives the same record back."""
        kept = [at for at in range(len(self.names)) if self.matrix[:, at].any()]
        record = _Record(
            _FORMAT,
            self.pack,
            self.with_model,
            self.by_server,
            list(self.ids),
            list(self.names),
            self.weights.astype("<f8").tobytes(),
            kept,
            np.ascontiguousarray(self.matrix[:, kept].T, "<f4").tobytes(),
            self.order.astype("<u2").tobytes(),
            self.ours.astype("<u2").tobytes(),
            b"" if self.exposure is None else self.exposure.astype("<f8").tobytes(),
        )
        return zlib.compress(msgspec.msgpack.encode(record), 1)

    @classmethod
    def decode(cls, data: bytes) -> Shown:
        """The record of these bytes. Raises ValueError when they are damaged or of another version."""
        record = unpacked(data, _Record, _MAX_BYTES, _FORMAT)
        n, k = len(record.ids), len(record.names)
        if record.kept and (max(record.kept) >= k or min(record.kept) < 0):
            raise ValueError("what was shown: a column has no name")
        matrix = np.zeros((n, k))
        values = numbers(record.matrix, "<f4", n * len(record.kept))
        matrix[:, record.kept] = values.reshape(len(record.kept), n).T
        return cls(
            ids=tuple(record.ids),
            names=tuple(record.names),
            weights=numbers(record.weights, "<f8", k),
            matrix=matrix,
            order=numbers(record.order, "<u2", len(record.order) // 2).astype(np.intp),
            ours=numbers(record.ours, "<u2", n).astype(np.intp),
            with_model=record.with_model,
            pack=record.pack,
            by_server=record.by_server,
            exposure=numbers(record.exposure, "<f8", n) if record.exposure else None,
        )

    def _problem(self) -> str:
        n, k = len(self.ids), len(self.names)
        if not 0 < n <= 65_535 or len(set(self.ids)) != n:
            return f"{n} candidates; 1 to 65,535 are allowed, each id once"
        if len(set(self.names)) != k or "server_rank" not in self.names:
            return "names must be distinct and have server_rank"
        if self.matrix.shape != (n, k) or self.weights.shape != (k,):
            return f"matrix {self.matrix.shape} and weights {self.weights.shape} are not {n} x {k} and {k}"
        if not (np.isfinite(self.matrix).all() and np.isfinite(self.weights).all()):
            return "matrix and weights must be finite"
        if self.ours.shape != (n,) or not _distinct(self.ours, n):
            return "ours is not a permutation of the candidates"
        if self.order.ndim != 1 or not _distinct(self.order, n):
            return "order names a candidate twice, or one that is not there"
        if self.exposure is not None and (
            self.exposure.shape != (n,) or not np.isfinite(self.exposure).all() or (self.exposure < 0).any()
        ):
            return "exposure must be one finite number per candidate, not negative"
        return ""


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    pack: str
    with_model: bool
    by_server: bool
    ids: list[str]
    names: list[str]
    weights: bytes
    kept: list[int]
    matrix: bytes
    order: bytes
    ours: bytes
    exposure: bytes


def unpacked(data: bytes, kind: type[T], max_bytes: int, version: int) -> T:
    """The msgspec struct of these compressed bytes.

    Raises ValueError when they are damaged, larger than ``max_bytes``, or of another format than ``version``.
    """
    try:
        stream = zlib.decompressobj()
        plain = stream.decompress(data, max_bytes)
        if not stream.eof or stream.unused_data:
            raise ValueError("damaged: too long, or cut off")
        record = msgspec.msgpack.decode(plain, type=kind)
    except (zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"damaged: {error}") from error
    if getattr(record, "format", None) != version:
        raise ValueError(f"of another version than {version}")
    return record


def numbers(data: bytes, kind: str, n: int) -> Float64:
    """The ``n`` numbers of a numpy ``kind`` in these bytes; raises ValueError when they are not as many."""
    if len(data) != n * np.dtype(kind).itemsize:
        raise ValueError(f"damaged: {len(data)} bytes where {n} numbers were expected")
    return np.frombuffer(data, kind).astype(np.float64)


def _distinct(indices: Places, n: int) -> bool:
    if not len(indices):
        return True
    return bool(indices.min() >= 0 and indices.max() < n and len(np.unique(indices)) == len(indices))
