"""Reads a catalogue of items, JSON lines or Parquet, row by row: memory does not grow with texts."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_reranker.backend.arrow import require_arrow
from edge_reranker.errors import InvalidArgument
from edge_reranker.prompt import item_text
from edge_reranker.types import Item

MAX_ID_BYTES = 256  # as the service allows
_MAX_LINE_BYTES = 4 * 1024 * 1024
_PARQUET = b"PAR1"
_ROWS_READ = 1_024
_SHOWN_CHARS = 80
_COLUMNS = ("id", "title", "text", "tags")


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """A candidate in the protos' JSON mapping; null is the default there. Only the first four are read: the
    others may be there, in both of that mapping's spellings.
    """

    id: str | int
    title: str | None = None
    text: str | None = None
    tags: tuple[str, ...] | None = None
    attributes: Any = None
    features: Any = None
    neighbours: Any = None
    vector: Any = None
    serverScore: Any = None
    server_score: Any = None
    publishedAt: Any = None
    published_at: Any = None
    vectorSpace: Any = None
    vector_space: Any = None


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``n`` shares of a catalogue, counted from 1; an item's id alone says in which it is."""

    index: int = 1
    n: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.n}"

    def has(self, item_id: str) -> bool:
        """Whether an item is in this share."""
        return _hash(item_id) % self.n == self.index - 1


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A file of items, and what errors call it."""

    path: Path
    name: str

    def check(self, shard: Shard) -> int:
        """Reads it all, 8 bytes of memory a row; how many items are in ``shard``.

        Raises InvalidArgument for the first row that is wrong, or whose id an earlier row has.
        """
        hashes = array("Q")
        n = 0
        for _, item in self._rows():
            hashes.append(_hash(item.id))
            n += shard.has(item.id)
        if not hashes:
            raise InvalidArgument(self.name, "has no items; one JSON object a line is wanted, or Parquet")
        ordered = np.sort(np.frombuffer(hashes, np.uint64))
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            self._name_duplicate({int(value) for value in twice})
        return n

    def batches(self, shard: Shard, size: int) -> Iterator[list[Item]]:
        """The items of a shard in the catalogue's order, ``size`` at a time. Raises as ``check`` does."""
        batch: list[Item] = []
        for _, item in self._rows():
            if shard.has(item.id):
                batch.append(item)
                if len(batch) == size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _name_duplicate(self, hashes: set[int]) -> None:
        first: dict[str, int] = {}
        for number, item in self._rows():
            if _hash(item.id) in hashes:
                known = first.setdefault(item.id, number)
                if known != number:
                    problem = f"{_shown(item.id)} is that of row {known} too; leave one of them out"
                    raise InvalidArgument(_where(self.name, number, "id"), problem)

    def _rows(self) -> Iterator[tuple[int, Item]]:
        with self.path.open("rb") as file:
            parquet = file.read(len(_PARQUET)) == _PARQUET
        for number, row in self._parquet_rows() if parquet else self._json_rows():
            item = Item(str(row.id), row.title or "", row.text or "", row.tags or ())
            self._check_item(number, item)
            yield number, item

    def _check_item(self, number: int, item: Item) -> None:
        try:
            n_bytes = len(item.id.encode())
        except UnicodeEncodeError:  # half a surrogate pair
            n_bytes = 0
        if not 0 < n_bytes <= MAX_ID_BYTES:
            allowed = f"text of 1 to {MAX_ID_BYTES} bytes, or a whole number"
            raise InvalidArgument(_where(self.name, number, "id"), f"{_shown(item.id)}; must be {allowed}")
        if not item_text(item):
            raise InvalidArgument(
                _where(self.name, number, "title, tags, text"),
                f"all empty for id {_shown(item.id)}; give one of them, or leave the row out",
            )

    def _json_rows(self) -> Iterator[tuple[int, _Row]]:
        decoder = msgspec.json.Decoder(_Row)
        with self.path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > _MAX_LINE_BYTES:
                    problem = f"longer than {_MAX_LINE_BYTES} bytes; one JSON object a line is wanted"
                    raise InvalidArgument(_where(self.name, number), problem)
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not text.strip():
                    continue
                try:
                    yield number, decoder.decode(text)
                except msgspec.ValidationError as error:
                    raise self._misfit(number, error, msgspec.json.decode(text)) from None
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise InvalidArgument(_where(self.name, number), f"not JSON: {error}") from None

    def _parquet_rows(self) -> Iterator[tuple[int, _Row]]:
        pyarrow = require_arrow(f"{self.name} is Parquet", "give JSON lines")
        from pyarrow import parquet

        number = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                columns = self._columns(file.schema_arrow.names)
                for batch in file.iter_batches(_ROWS_READ, columns=columns):
                    for values in batch.to_pylist():
                        number += 1
                        try:
                            row = msgspec.convert(values, _Row)
                        except msgspec.ValidationError as error:
                            raise self._misfit(number, error, values) from None
                        yield number, row
        except (pyarrow.ArrowException, OSError) as error:
            problem = " ".join(str(error).split())
            raise InvalidArgument(self.name, f"damaged Parquet after row {number}: {problem}") from None

    def _columns(self, names: list[str]) -> list[str]:
        known = _Row.__struct_encode_fields__
        if "id" not in names:
            raise InvalidArgument(self.name, f"has no column id; columns are {', '.join(_COLUMNS)}")
        for name in names:
            if name not in known:
                problem = f"has an unknown column {_shown(name)}; columns are {', '.join(_COLUMNS)}"
                raise InvalidArgument(self.name, problem)
        return [name for name in _COLUMNS if name in names]

    def _misfit(self, number: int, error: msgspec.ValidationError, row: Any) -> InvalidArgument:
        """What msgspec said of a row, with the field, its value and the way out."""
        problem, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        name = re.split(r"[.\[]", field)[0]
        found = f", found {_shown(row[name])}" if isinstance(row, dict) and name in row else ""
        problem = f"{problem}{found}; fields are {', '.join(_COLUMNS)}"
        return InvalidArgument(_where(self.name, number, field), problem)


def _where(name: str, number: int, field: str = "") -> str:
    return f"{name}, row {number}" + (f", {field}" if field else "")


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _hash(item_id: str) -> int:
    """The same everywhere and for ever: machines that share a catalogue need not talk."""
    return int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big")
