"""A catalogue in JSON lines or Parquet is read row by row; the first wrong row is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from edge_reranker.backend.catalogue import Catalogue, Shard
from edge_reranker.errors import InvalidArgument
from edge_reranker.types import Item
from tests.backend.catalogues import catalogue, lines

ROWS: list[dict[str, Any]] = [
    {"id": "a", "title": "Heat", "text": "Two men.", "tags": ["Crime", "Thriller"]},
    {"id": "b", "title": "Babe", "text": None, "tags": None},
    {"id": "c", "title": None, "text": "No title.", "tags": []},
]
ITEMS = [
    Item("a", "Heat", "Two men.", ("Crime", "Thriller")),
    Item("b", "Babe"),
    Item("c", "", "No title."),
]


def in_parquet(folder: Path, columns: dict[str, Any], name: str = "items.parquet") -> Catalogue:
    parquet.write_table(pyarrow.table(columns), folder / name)
    return Catalogue(folder / name, name)


def read(items: Catalogue, shard: Shard | None = None) -> list[Item]:
    return [item for batch in items.batches(shard or Shard(), 100) for item in batch]


def test_json_lines_and_parquet_give_the_same_items(tmp_path: Path) -> None:
    text = "\ufeff" + "\n\n".join(json.dumps(row) for row in ROWS)
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    for items in (catalogue(tmp_path, text), in_parquet(tmp_path, columns)):
        assert items.check(Shard()) == 3
        assert read(items) == ITEMS


def test_numbers_are_ids_and_fields_of_a_candidate_may_be_there(tmp_path: Path) -> None:
    row = '{"id": 7, "title": "Heat", "serverScore": 1, "published_at": "2026-01-01T00:00:00Z"}'
    assert read(catalogue(tmp_path, row)) == [Item("7", "Heat")]
    columns = {"server_score": [1.0], "title": ["Heat"], "id": [7]}
    assert read(in_parquet(tmp_path, columns)) == [Item("7", "Heat")]


BAD = [
    ("not json", "items.jsonl, row 2: not JSON"),
    ("[1]", "items.jsonl, row 2: Expected `object`"),
    ('{"title": "Heat"}', "missing required field `id`; fields are id, title, text, tags"),
    ('{"id": true, "title": "Heat"}', "row 2, id: Expected `int | str`, got `bool`, found True"),
    ('{"id": "", "title": "Heat"}', "row 2, id: ''; must be text of 1 to 256 bytes, or a whole number"),
    ('{"id": "' + "x" * 257 + '", "title": "Heat"}', "…; must be text of 1 to 256 bytes"),
    ('{"id": "b", "titel": "Heat"}', "unknown field `titel`"),
    (
        '{"id": "b", "title": "Heat", "tags": "Crime"}',
        "row 2, tags: Expected `array | null`, got `str`, found 'Crime'",
    ),
    ('{"id": "b", "title": " ", "tags": [""]}', "row 2, title, tags, text: all empty for id 'b'; give one"),
    ('{"id": "a", "title": "Heat"}', "row 2, id: 'a' is that of row 1 too; leave one of them out"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_the_first_wrong_row_is_named_with_its_field_its_value_and_the_way_out(
    tmp_path: Path, line: str, message: str
) -> None:
    items = catalogue(tmp_path, '{"id": "a", "title": "Heat"}\n' + line + "\nworse\n")
    if "row 1 too" in message:
        items = catalogue(tmp_path, '{"id": "a", "title": "Heat"}\n' + line + "\n")
    with pytest.raises(InvalidArgument) as refused:
        items.check(Shard())
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_without_line_breaks_is_not_taken_into_memory(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"row 1: longer than 4194304 bytes; one JSON object a line"):
        catalogue(tmp_path, "[" + " " * 5_000_000).check(Shard())


def test_a_catalogue_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"items\.jsonl: has no items"):
        catalogue(tmp_path, "\n").check(Shard())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": ["Heat"]}, "has no column id; columns are id, title, text, tags"),
        ({"id": ["a"], "titel": ["Heat"]}, "has an unknown column 'titel'"),
        ({"id": ["a", None], "title": ["Heat", "Babe"]}, "row 2, id: Expected `int | str`, got `null`"),
        ({"id": ["a"], "title": [1.5]}, "row 1, title: Expected `str | null`, got `float`, found 1.5"),
        ({"id": ["a"], "tags": [["Crime", None]]}, "row 1, tags[1]: Expected `str`, got `null`"),
        ({"id": ["a", "a"], "title": ["Heat", "Babe"]}, "row 2, id: 'a' is that of row 1 too"),
    ],
)
def test_the_first_wrong_row_of_parquet_is_named_too(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        in_parquet(tmp_path, columns).check(Shard())
    assert message in str(refused.value)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    items = in_parquet(tmp_path, {"id": ["a"], "title": ["Heat"]})
    whole = items.path.read_bytes()
    for damaged in (whole[:-20], whole[:20] + b"\xff" * 40 + whole[60:]):
        items.path.write_bytes(damaged)
        with pytest.raises(InvalidArgument, match=r"items\.parquet: damaged Parquet after row 0"):
            items.check(Shard())


def test_the_shards_of_a_catalogue_are_the_whole_and_share_nothing(tmp_path: Path) -> None:
    items = catalogue(tmp_path, lines(500))
    shards = [Shard(index, 7) for index in range(1, 8)]
    found = [read(items, shard) for shard in shards]
    assert [items.check(shard) for shard in shards] == [len(each) for each in found]
    assert sorted((item for each in found for item in each), key=lambda item: int(item.id)) == read(items)
    assert all(40 < len(each) < 110 for each in found)


def test_an_items_shard_is_what_the_documentation_says() -> None:
    """The first eight bytes of the id's SHA-256, big-endian, modulo the number of shards."""
    # printf 1 | sha256sum begins with 6b86b273ff34fce1.
    assert 0x6B86B273FF34FCE1 % 8 == 1
    assert [Shard(index, 8).has("1") for index in range(1, 9)] == [index == 2 for index in range(1, 9)]
