"""Writes vectors where other programs read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_reranker.backend.arrow import require_arrow
from edge_reranker.prompt import content_hash
from edge_reranker.types import Item

Float16 = npt.NDArray[np.float16]
Encoded = Iterable[tuple[Sequence[Item], Float16]]
"""Items and their vectors [n_items, n_dims], batch by batch."""

_ROW_GROUP = 65_536


@dataclass(frozen=True, slots=True)
class Made:
    """What vectors were made by: the pack, whose id is their space, and the encoder's file."""

    pack_id: str
    encoder_sha256: str
    n_dims: int


def write_parquet(path: Path, batches: Encoded, made: Made, about: Mapping[str, str]) -> None:
    """Columns id, vector, vector_space and text_hash; ``about`` and ``made`` in the schema's metadata.

    The vectors are halves, written as 32-bit floats: what they hold is the same, the proto's field has that
    type too, and not every reader of Parquet knows halves (docs/backend.md). Raises Missing, OSError.
    """
    pyarrow = require_arrow(f"{path.name} is Parquet", "write to a .jsonl file")
    from pyarrow import parquet

    columns = [
        ("id", pyarrow.string()),
        ("vector", pyarrow.list_(pyarrow.float32())),
        ("vector_space", pyarrow.string()),
        ("text_hash", pyarrow.string()),
    ]
    metadata = {
        "edge_reranker.pack": made.pack_id,
        "edge_reranker.encoder_sha256": made.encoder_sha256,
        "edge_reranker.n_dims": str(made.n_dims),
        **{f"edge_reranker.{name}": value for name, value in about.items()},
    }
    schema = pyarrow.schema(
        [pyarrow.field(name, kind, nullable=False) for name, kind in columns], metadata=metadata
    )
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=["vector_space"]) as writer:
        for group in _groups(_tables(pyarrow, schema, batches, made)):
            writer.write_table(pyarrow.concat_tables(group), row_group_size=_ROW_GROUP)


def _tables(pyarrow: Any, schema: Any, batches: Encoded, made: Made) -> Iterator[Any]:
    for items, vectors in batches:
        ends = np.arange(0, vectors.size + 1, made.n_dims, dtype=np.int32)
        floats = pyarrow.array(vectors.astype(np.float32).ravel())
        columns = [
            pyarrow.array([item.id for item in items]),
            pyarrow.ListArray.from_arrays(ends, floats),
            pyarrow.array([made.pack_id] * len(items)),
            pyarrow.array([content_hash(item) for item in items]),
        ]
        yield pyarrow.Table.from_arrays(columns, schema=schema)


def _groups(tables: Iterator[Any]) -> Iterator[list[Any]]:
    """Tables of ``_ROW_GROUP`` rows together, and the rest."""
    group: list[Any] = []
    for table in tables:
        group.append(table)
        if sum(len(each) for each in group) >= _ROW_GROUP:
            yield group
            group = []
    if group:
        yield group
