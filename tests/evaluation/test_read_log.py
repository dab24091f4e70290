"""Logs of anybody's: what is read, and what is said of a row that can't be."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from edge_reranker.errors import InvalidArgument, Missing
from edge_reranker.evaluation import read_log
from edge_reranker.evaluation.log import Log
from edge_reranker.types import EventType, Item

ROW = {"user_id": "u", "item_id": "a", "occurred_at": 60}


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": "a", "title": "A"}\n{"id": "b", "text": "B", "tags": ["x"]}\n')
    return path


def read(items: Path, *rows: object) -> Log:
    path = items.parent / "log.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return read_log.read(items, path)


def read_parquet(items: Path, columns: dict[str, Any]) -> Log:
    path = items.parent / "log.parquet"
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return read_log.read(items, path)


def test_interactions_come_user_by_user_in_order_of_time(items: Path) -> None:
    found = read(
        items,
        {"user_id": "v", "item_id": "b", "occurred_at": "1970-01-01T02:01:00+02:00", "type": "PURCHASE"},
        "\n",
        {"user_id": "u", "item_id": "b", "occurred_at": 70, "rating": 2},
        {**ROW, "type": "EVENT_TYPE_VIEW"},
        {**ROW, "occurred_at": 80.5},
    )
    assert list(map(tuple, found.interactions)) == [
        ("u", "a", EventType.VIEW, 60.0),
        ("u", "b", EventType.DISLIKE, 70.0),
        ("u", "a", EventType.LIKE, 80.5),
        ("v", "b", EventType.PURCHASE, 60.0),
    ]
    assert found.items == (Item("a", "A"), Item("b", text="B", tags=("x",)))


def test_parquet_says_the_same_as_json_lines(items: Path) -> None:
    stamps = pyarrow.array([60_000_000_001, 70_000_000_000, 80_000_000_000], pyarrow.timestamp("ns"))
    found = read_parquet(
        items,
        {
            "user_id": [2, 2, 1],
            "item_id": pyarrow.array(["a", "b", "a"]).dictionary_encode(),
            "type": [None, "VIEW", None],
            "rating": pyarrow.array([None, None, 5], pyarrow.int8()),
            "occurred_at": stamps,
        },
    )
    assert list(map(tuple, found.interactions)) == [
        ("1", "a", EventType.LIKE, 80.0),
        ("2", "a", EventType.LIKE, 60.0),
        ("2", "b", EventType.VIEW, 70.0),
    ]


BAD_ROWS = {
    "unknown item": ({**ROW, "item_id": "z"}, "item_id: 'z'; must be the id of an item in items.jsonl"),
    "empty user": ({**ROW, "user_id": ""}, "user_id: ''; must be text of 1 to 256 bytes"),
    "milliseconds": ({**ROW, "occurred_at": 1.7e12}, r"occurred_at: 17\d+.*seconds \(not milliseconds\)"),
    "no time zone": ({**ROW, "occurred_at": "2026-01-31T12:00:00"}, "'2026-01-31T12:00:00'.* time zone"),
    "no time": ({"user_id": "u", "item_id": "a"}, "missing required field `occurred_at`"),
    "an impression": ({**ROW, "type": "IMPRESSION"}, "type: 'IMPRESSION'; must be one of VIEW, CLICK"),
    "seven stars": ({**ROW, "rating": 7}, "rating: 7.0; must be above 0 and at most 5"),
    "both": ({**ROW, "type": "LIKE", "rating": 4}, "rating: 4.0; must be left out"),
    "misspelt": ({**ROW, "ratings": 4}, "unknown field `ratings`; fields are user_id"),
    "wrong kind": ({**ROW, "user_id": ["u"]}, r"user_id: Expected .*, found \['u'\]"),
    "cut off": ('{"user_id": "u', "not JSON"),
    "NaN": ('{"user_id": "u", "item_id": "a", "occurred_at": NaN}', "not JSON"),
    "a list over many lines": ("[\n", "Expected `object`, got `array`; fields are user_id"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named_with_field_value_and_what_is_allowed(items: Path, case: str) -> None:
    row, problem = BAD_ROWS[case]
    with pytest.raises(InvalidArgument, match=rf"^log.jsonl, row 3[,:].*{problem}"):
        read(items, ROW, "\n", row)


def test_a_bad_row_of_parquet_is_counted_over_its_groups(items: Path) -> None:
    columns = {"user_id": ["u"] * 4, "item_id": ["a", "b", "a", None], "occurred_at": [1.0, 2.0, 3.0, 4.0]}
    with pytest.raises(InvalidArgument, match=r"^log.parquet, row 4, item_id: None; must be text"):
        read_parquet(items, columns)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("user_id", "item_id"), "lacks column 'occurred_at'"),
        (("user_id", "item_id", "occurred_at", "stars"), "has an unknown column 'stars'"),
    ],
)
def test_parquet_with_other_columns_is_refused(items: Path, names: tuple[str, ...], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{problem}; columns are user_id, item_id, type"):
        read_parquet(items, {name: [1] for name in names})


def test_a_row_that_is_there_twice_counts_once(items: Path) -> None:
    """Exports repeat rows; only what differs in a column is another interaction."""
    others = [{**ROW, "type": "VIEW"}, {**ROW, "occurred_at": 61}, {**ROW, "item_id": "b"}]
    others.append({**ROW, "user_id": "v"})
    once, twice = read(items, ROW, *others), read(items, ROW, *others, ROW, *reversed(others))
    assert len(once.interactions) == 5
    assert list(twice.interactions) == list(once.interactions)


def test_gzipped_lines_read_as_the_lines_themselves(items: Path) -> None:
    plain = read(items, ROW, {**ROW, "item_id": "b"})
    packed = items.parent / "log.jsonl.gz"
    packed.write_bytes(gzip.compress((items.parent / "log.jsonl").read_bytes()))
    assert list(read_log.read(items, packed).interactions) == list(plain.interactions)


@pytest.mark.parametrize("keep", [slice(None, -12), slice(None, 12)])
def test_gzip_that_ends_too_soon_is_told(items: Path, keep: slice) -> None:
    packed = items.parent / "log.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(ROW).encode() + b"\n")[keep])
    with pytest.raises(InvalidArgument, match=r"^log.jsonl.gz: damaged gzip after row \d"):
        read_log.read(items, packed)


def test_gzip_with_a_wrong_sum_is_told(items: Path) -> None:
    packed = items.parent / "log.jsonl.gz"
    whole = gzip.compress(json.dumps(ROW).encode() + b"\n")
    packed.write_bytes(whole[:-8] + b"\0" * 4 + whole[-4:])
    with pytest.raises(InvalidArgument, match=r"damaged gzip after row \d: CRC"):
        read_log.read(items, packed)


def test_items_in_parquet_are_told_what_they_should_be(items: Path) -> None:
    parquet.write_table(pyarrow.table({"id": ["a"]}), items)
    with pytest.raises(InvalidArgument, match=r"^items.jsonl: is Parquet; items are JSON lines"):
        read_log.read_items(items)


def test_damaged_parquet_is_told(items: Path) -> None:
    path = items.parent / "log.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InvalidArgument, match=r"log.parquet: damaged Parquet"):
        read_log.read(items, path)


def test_parquet_without_pyarrow_says_what_to_install(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = items.parent / "log.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Missing, match=r"pip install 'edge-reranker\[eval\]'"):
        read_log.read(items, path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "a", "title": "again"}', r"row 3, id: 'a'; must be an id of its own \(row 1 has the same\)"),
        ('{"id": "c", "title": " "}', "row 3, title, text, tags: .*for the model to read"),
        ('{"id": 7, "title": "C"}', "row 3, id: Expected `str`, got `int`, found 7"),
        ('{"id": "c", "name": "C"}', "row 3: .*unknown field `name`; fields are id, title, text, tags"),
    ],
)
def test_a_bad_item_is_named(items: Path, line: str, problem: str) -> None:
    items.write_text(items.read_text() + line + "\n")
    with pytest.raises(InvalidArgument, match=problem):
        read_log.read_items(items)


def test_a_byte_order_mark_is_no_part_of_the_first_item(items: Path) -> None:
    items.write_text("\ufeff" + items.read_text())
    assert len(read_log.read_items(items)) == 2


def test_no_items_are_refused(items: Path) -> None:
    items.write_text("\n")
    with pytest.raises(InvalidArgument, match="has no items"):
        read_log.read_items(items)


def test_a_stretch_of_a_log_is_a_sequence(items: Path) -> None:
    found = read(items, *({**ROW, "occurred_at": at} for at in range(5))).interactions
    assert [each.at_s for each in found[1:3]] == [1.0, 2.0]
    assert (len(found[3:]), len(found[4:2]), found[-1].at_s) == (2, 0, 4.0)
    assert [each.at_s for each in found[2:].up_to(3.0)] == [2.0, 3.0]
