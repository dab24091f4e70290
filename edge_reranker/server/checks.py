"""What one value of a request must be, whatever message it is in: each check and cap, once.

A check takes the field's path and its value, and returns the value, cut at its cap if it is a text; what is
not allowed raises InvalidArgument with the path, the value and the limit.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import limits

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")
V = TypeVar("V")

_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# Their token files are those of "default" and of the owner.
_RESERVED = frozenset({"app", "owner"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
_MIN_TIMESTAMP_S = -62_135_596_800  # 0001-01-01T00:00:00Z
_MAX_TIMESTAMP_S = 253_402_300_799  # 9999-12-31T23:59:59Z


def identifier(path: str, value: str) -> str:
    """Not empty, and short enough."""
    if not value:
        raise InvalidArgument(path, f"is empty; 1 to {limits.MAX_ID_BYTES} bytes are allowed")
    size = len(value.encode())
    if size > limits.MAX_ID_BYTES:
        problem = f'"{echo(value)}" has {size:,} bytes; 1 to {limits.MAX_ID_BYTES} are allowed'
        raise InvalidArgument(path, problem)
    return value


def name(path: str, value: str) -> str:
    """Short enough; a cut name would be another name."""
    if len(value) > limits.MAX_NAME:
        problem = f'"{echo(value)}" has {len(value):,} characters; at most {limits.MAX_NAME} are allowed'
        raise InvalidArgument(path, problem)
    return value


def context(path: str, values: Mapping[str, str]) -> Mapping[str, str]:
    """Few pairs, names and values short enough: what is cut would be another context."""
    if not values:
        return {}
    few(path, len(values), limits.MAX_CONTEXT)
    for key, value in values.items():
        if not 1 <= len(key) <= limits.MAX_CONTEXT_NAME:
            problem = f'a name has {len(key):,} characters ("{echo(key)}")'
            raise InvalidArgument(path, f"{problem}; 1 to {limits.MAX_CONTEXT_NAME} are allowed")
        if len(value) > limits.MAX_CONTEXT_VALUE:
            problem = f'the value of "{echo(key)}" has {len(value):,} characters ("{echo(value)}")'
            raise InvalidArgument(path, f"{problem}; at most {limits.MAX_CONTEXT_VALUE} are allowed")
    return dict(values)


def namespace(path: str, value: str, own: str = "") -> str:
    """Whose part of the store a request is about: ``own`` if it says nothing.

    Only says whether there can be one of this name; NOT_FOUND is up to the core.
    """
    if not value and own:
        return own
    if not _NAMESPACE.fullmatch(value):
        problem = f'"{echo(value)}" is not a name; 1 to 64 of a-z, 0-9, - and _ are, beginning with a letter'
        raise InvalidArgument(path, problem)
    if value in _RESERVED:
        raise InvalidArgument(path, f'"{value}" is reserved; choose another name')
    return value


def texts(values: Sequence[str], most: int) -> Sequence[str]:
    """Many texts, each cut at ``most`` characters; nearly always one look at all finds nothing to do."""
    return values if usual(values, most, empty=True) else [text(value, most) for value in values]


def usual(values: Sequence[str], most: int, *, empty: bool = False) -> bool:
    """Whether each is short and free of control characters, and not empty unless it may be.

    isprintable is one pass in C, and true of nearly every text.
    """
    if not all(values) and not empty:
        return False
    return max(map(len, values), default=0) <= most and "".join(values).isprintable()


def text(value: str, most: int) -> str:
    """Without control characters (C0 except newline and tab), cut at ``most`` characters."""
    return (value if value.isprintable() else _CONTROL.sub("", value))[:most]


def tag(path: str, value: str) -> str:
    """As items' tags are kept: without control characters, cut at the cap; not empty."""
    kept = text(value, limits.MAX_TAG)
    if not kept:
        raise InvalidArgument(path, "is empty; give a tag")
    return kept


def tags(path: str, values: Sequence[str], most: int) -> tuple[str, ...]:
    """At most ``most`` of them; empty ones are left out."""
    few(path, len(values), most)
    return tuple(each for each in texts(values, limits.MAX_TAG) if each)


def few(path: str, n: int, most: int) -> None:
    """Not more than ``most``."""
    if n > most:
        raise InvalidArgument(path, f"{n:,} given; at most {most:,} are allowed")


def finite(path: str, value: float) -> float:
    """Neither infinite nor NaN."""
    if not math.isfinite(value):
        raise InvalidArgument(path, f"{value} is not a finite number")
    return value


def not_negative(path: str, value: float) -> float:
    """Finite, and 0 or more."""
    if finite(path, value) < 0:
        raise InvalidArgument(path, f"{value:g} is negative; 0 or more is allowed")
    return value


def share(path: str, value: float) -> float:
    """Finite, and 0 to 1."""
    if not 0 <= finite(path, value) <= 1:
        raise InvalidArgument(path, f"{value:g} is outside 0 to 1")
    return value


def time(path: str, message: Timestamp) -> float:
    """Seconds since 1970 UTC."""
    seconds, nanos = message.seconds, message.nanos
    if not (_MIN_TIMESTAMP_S <= seconds <= _MAX_TIMESTAMP_S and 0 <= nanos <= 999_999_999):
        raise InvalidArgument(path, f"seconds {seconds}, nanos {nanos} is not a moment from year 1 to 9999")
    return seconds + nanos / 1e9


def shown(at_s: float) -> str:
    """Seconds since 1970 UTC as an error tells them."""
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=math.floor(at_s))
    return f"{moment.isoformat()}Z"


def column(path: str, values: Sequence[V], convert: Callable[[V], T]) -> Sequence[T]:
    """What becomes of each value; when none is set, the first one tells."""
    return each(path, values, convert) if any(values) else [convert(values[0])] * len(values)


def each(path: str, values: Iterable[V], convert: Callable[[V], T]) -> list[T]:
    """What becomes of each value; an error's path begins with ``path``, its {} filled with the place."""
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(convert(value))
        except InvalidArgument as error:
            raise inside(path.format(index), error) from None
    return converted


def echo(value: str, most: int = limits.ECHO_CHARACTERS) -> str:
    """A caller's own value, safe and short enough to stand in an error about it."""
    readable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:most])
    return readable + "…" if len(value) > most else readable


def inside(path: str, error: InvalidArgument) -> InvalidArgument:
    """The same error, with the path of the message that the field is in."""
    return InvalidArgument(f"{path}.{error.field}", error.problem)
