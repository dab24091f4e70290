"""MovieLens-100K, as its atomic files hold it: films with genres, ratings with times.

Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from edge_reranker.errors import Missing
from edge_reranker.evaluation.log import Interaction, Log, event_type
from edge_reranker.types import Item


def load(folder: Path) -> Log:
    """Read ``ml-100k.item`` and ``ml-100k.inter`` from ``folder``.

    A film's title becomes "Title (year)", its genres become tags; ratings become events. Titles keep
    the files' trailing article ("Usual Suspects, The"). Raises ``Missing`` when a file is not there or has
    other columns.
    """
    films = _rows(folder / "ml-100k.item", ("item_id", "movie_title", "release_year", "class"))
    items = tuple(Item(id=i, title=f"{title} ({year})", tags=tuple(g.split())) for i, title, year, g in films)
    rows = _rows(folder / "ml-100k.inter", ("user_id", "item_id", "rating", "timestamp"))
    return Log.of(
        items,
        (Interaction(user, item, event_type(float(stars)), float(at)) for user, item, stars, at in rows),
    )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Missing(
            f"{path.name} is not in {path.parent}: run `edge-reranker data pull movielens-100k`"
        ) from error
    reader = csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [name.split(":")[0] for name in next(reader, [])]
    if any(name not in header for name in columns):
        raise Missing(
            f"{path.name} does not have the columns {', '.join(columns)}: "
            "run `edge-reranker data pull movielens-100k` again"
        )
    at = [header.index(name) for name in columns]
    for row in reader:
        if len(row) >= len(header):
            yield tuple(row[column] for column in at)
