"""MovieLens-100K, as its atomic files hold it: films with genres, ratings with times.

Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reranker.errors import Missing
from edge_reranker.types import Event, EventType, Item


@dataclass(frozen=True, slots=True)
class Rating:
    """One user's rating (1 to 5) of one film; ``at_s`` is in seconds since 1970 UTC."""

    user_id: str
    item_id: str
    stars: float
    at_s: float


@dataclass(frozen=True, slots=True)
class MovieLens:
    """Films in file order, and every rating ordered by time (ties by user, then film)."""

    items: tuple[Item, ...]
    ratings: tuple[Rating, ...]

    @property
    def row_of(self) -> dict[str, int]:
        """Film id to its row in ``items`` and in arrays aligned with it."""
        return {item.id: row for row, item in enumerate(self.items)}


def load(folder: Path) -> MovieLens:
    """Read ``ml-100k.item`` and ``ml-100k.inter`` from ``folder``.

    A film's title becomes "Title (year)", its genres become tags. Titles keep the files' trailing
    article ("Usual Suspects, The"). Raises ``Missing`` when a file is not there or has other columns.
    """
    films = _rows(folder / "ml-100k.item", ("item_id", "movie_title", "release_year", "class"))
    items = tuple(Item(id=i, title=f"{title} ({year})", tags=tuple(g.split())) for i, title, year, g in films)
    rows = _rows(folder / "ml-100k.inter", ("user_id", "item_id", "rating", "timestamp"))
    ratings = [Rating(user, item, float(stars), float(at)) for user, item, stars, at in rows]
    ratings.sort(key=lambda r: (r.at_s, r.user_id, r.item_id))
    return MovieLens(items, tuple(ratings))


def events(ratings: Sequence[Rating], items: Mapping[str, Item]) -> tuple[Event, ...]:
    """Ratings as the events an app would record: 4 and 5 stars LIKE, 3 VIEW, 1 and 2 DISLIKE."""
    return tuple(
        Event(
            event_id=f"{r.user_id}-{r.item_id}",
            type=event_type(r.stars),
            occurred_at=r.at_s,
            item=items[r.item_id],
        )
        for r in ratings
    )


def event_type(stars: float) -> EventType:
    """The event that a rating stands for."""
    if stars >= 4:
        return EventType.LIKE
    return EventType.VIEW if stars >= 3 else EventType.DISLIKE


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
