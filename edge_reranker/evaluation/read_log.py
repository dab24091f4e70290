"""Reads a log of anybody's: items as JSON lines, interactions as JSON lines or Parquet; lines can be gzipped.

Row by row: besides the items and users, memory holds 17 bytes for each interaction, and about 47 at the peak,
while they are put in order (`python -m benchmarks logs`).
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_reranker.errors import InvalidArgument, Missing
from edge_reranker.evaluation.log import Builder, Log, event_type
from edge_reranker.prompt import item_text
from edge_reranker.types import EventType, Item

COLUMNS = ("user_id", "item_id", "type", "rating", "occurred_at")
# An item that was shown, skipped or searched for was not met: a server may well propose it.
TYPES = tuple(
    name
    for name in EventType.__members__
    if name not in ("UNSPECIFIED", "IMPRESSION", "SKIP", "SEARCH")
)  # fmt: skip
_CODE_OF: Mapping[str, int] = {
    spelt: EventType[name].value for name in TYPES for spelt in (name, f"EVENT_TYPE_{name}")
}
_MAX_ID_BYTES = 256
_PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
_BATCH = 65_536
_YEAR_10000_S = 253_402_300_800.0


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    """The proto's JSON mapping; null is the default there."""

    id: str
    title: str | None = None
    text: str | None = None
    tags: tuple[str, ...] | None = None
    attributes: dict[str, str] | None = None


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    user_id: str | int
    item_id: str | int
    occurred_at: float | str
    type: str | None = None
    rating: float | None = None


def read(items: Path, interactions: Path) -> Log:
    """The log in two files; every row is checked.

    ``interactions`` has the columns user_id, item_id, occurred_at (RFC 3339, or seconds since 1970 UTC), and
    type (default LIKE) or rating (1 to 5). Raises ``InvalidArgument`` that names file, row, field, value and
    what is allowed, ``Missing`` for Parquet without pyarrow, and ``OSError``.
    """
    known = read_items(items)
    builder = Builder(known)
    parquet = _begins_with(interactions, _PARQUET)
    rows = _parquet_rows(interactions) if parquet else _json_rows(interactions)
    for number, row in rows:
        try:
            user_id, item_id = _id(row.user_id, "user_id"), _id(row.item_id, "item_id")
            if item_id not in builder.row_of:
                raise _Wrong("item_id", item_id, f"the id of an item in {items.name}")
            builder.add(user_id, item_id, _type(row.type, row.rating), _seconds(row.occurred_at))
        except _Wrong as wrong:
            raise wrong.at(interactions, number) from None
    return builder.log()


def read_items(path: Path) -> tuple[Item, ...]:
    """Items, one JSON object a line: the proto's Item. Raises as ``read``."""
    if _begins_with(path, _PARQUET):
        raise InvalidArgument(path.name, "is Parquet; items are JSON lines, one object a line")
    decoder = msgspec.json.Decoder(_Item)
    row_of: dict[str, int] = {}
    items = []
    for number, line in _lines(path):
        found = _decoded(decoder, line, path, number)
        item = Item(
            found.id,
            found.title or "",
            found.text or "",
            found.tags or (),
            found.attributes or {},
        )
        try:
            _id(item.id, "id")
            if not item_text(item):
                raise _Wrong("title, text, tags", "", "a text in one of them at least, for the model to read")
            if item.id in row_of:
                raise _Wrong("id", item.id, f"an id of its own (row {row_of[item.id]} has the same)")
        except _Wrong as wrong:
            raise wrong.at(path, number) from None
        row_of[item.id] = number
        items.append(item)
    if not items:
        raise InvalidArgument(path.name, "has no items: one JSON object a line is wanted")
    return tuple(items)


class _Wrong(Exception):
    """One bad value of one row."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(field, value, allowed)

    def at(self, path: Path, row: int) -> InvalidArgument:
        """The error for people."""
        field, value, allowed = self.args
        return InvalidArgument(f"{path.name}, row {row}, {field}", f"{_shown(value)}; must be {allowed}")


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _id(value: object, field: str) -> str:
    text = value if isinstance(value, str) else str(value)
    try:
        n_bytes = len(text.encode())
    except UnicodeEncodeError:
        n_bytes = 0
    if not 0 < n_bytes <= _MAX_ID_BYTES:
        raise _Wrong(field, value, f"text of 1 to {_MAX_ID_BYTES} bytes, or a whole number")
    return text


def _type(name: str | None, rating: float | None) -> int:
    if rating is None:
        if name is None:
            return EventType.LIKE
        if name not in _CODE_OF:
            raise _Wrong(
                "type", name, f"one of {', '.join(TYPES)} (leave other rows out), or left out for LIKE"
            )
        return _CODE_OF[name]
    if name is not None:
        raise _Wrong("rating", rating, f"left out where there is a type ({_shown(name)})")
    if not 0 < rating <= 5:
        raise _Wrong(
            "rating", rating, "above 0 and at most 5: from 4 on a LIKE, from 3 on a VIEW, else a DISLIKE"
        )
    return event_type(rating)


def _seconds(value: float | str) -> float:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise _Wrong("occurred_at", value, "RFC 3339 with a time zone, such as 2026-01-31T12:00:00Z")
        seconds = moment.timestamp()
    else:
        seconds = float(value)
    if not (math.isfinite(seconds) and 0 <= seconds < _YEAR_10000_S):
        raise _Wrong("occurred_at", value, "seconds (not milliseconds) since 1970 UTC, before the year 10000")
    return seconds


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path) if _begins_with(path, _GZIP) else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield number, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidArgument(path.name, f"damaged gzip after row {number}: {error}") from None


def _json_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    decoder = msgspec.json.Decoder(_Row)
    for number, line in _lines(path):
        yield number, _decoded(decoder, line, path, number)


def _decoded(decoder: msgspec.json.Decoder[Any], line: bytes, path: Path, number: int) -> Any:
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$")
        field = where.rstrip("`").lstrip(".")
        raise InvalidArgument(
            f"{path.name}, row {number}" + (f", {field}" if field else ""),
            f"{problem}{_value_at(line, field)}; fields are {', '.join(decoder.type.__struct_fields__)}",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(
            f"{path.name}, row {number}", f"not JSON: {error}; one object a line is wanted"
        ) from None


def _value_at(line: bytes, field: str) -> str:
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError:  # a list's first line: of another kind before it is broken
        return ""
    name = re.split(r"[.\[]", field)[0]
    return f", found {_shown(value[name])}" if isinstance(value, dict) and name in value else ""


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _parquet_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Missing(
            f"{path.name} is Parquet: pip install 'edge-reranker[eval]', or give JSON lines"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(names, path)
            number = 0
            for batch in file.iter_batches(_BATCH):
                columns = {name: _plain(pyarrow, batch.column(name)) for name in names}
                absent = [None] * batch.num_rows
                for values in zip(*(columns.get(name, absent) for name in COLUMNS), strict=True):
                    number += 1
                    yield number, _row(path, number, *values)
    except pyarrow.ArrowInvalid as error:
        raise InvalidArgument(path.name, f"damaged Parquet: {' '.join(str(error).split())}") from None


def _check_columns(names: list[str], path: Path) -> None:
    missing = [name for name in ("user_id", "item_id", "occurred_at") if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    for problem, found in (("lacks", missing), ("has an unknown", unknown)):
        if found:
            raise InvalidArgument(
                path.name, f"{problem} column {_shown(found[0])}; columns are {', '.join(COLUMNS)}"
            )


def _plain(pyarrow: Any, column: Any) -> list[Any]:
    """Python values; a moment becomes seconds since 1970 UTC, one without a time zone is taken for UTC."""
    if pyarrow.types.is_timestamp(column.type):
        # Nanoseconds are more than Python's moments and a float's seconds hold.
        column = column.cast(pyarrow.timestamp("us"), safe=False)
        return [None if v is None else v.replace(tzinfo=UTC).timestamp() for v in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def _row(path: Path, number: int, user: Any, item: Any, type_: Any, rating: Any, at: Any) -> _Row:
    try:
        for field, value, kinds, allowed in (
            ("user_id", user, (str, int), "text or a whole number"),
            ("item_id", item, (str, int), "text or a whole number"),
            ("type", type_, (str, type(None)), "text"),
            ("rating", rating, (int, float, type(None)), "a number"),
            ("occurred_at", at, (int, float, str), "a moment, text or a number"),
        ):
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise _Wrong(field, value, allowed)
    except _Wrong as wrong:
        raise wrong.at(path, number) from None
    return _Row(user, item, at, type_, rating)
