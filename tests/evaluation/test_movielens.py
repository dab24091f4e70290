"""Reading MovieLens' files."""

from pathlib import Path

import pytest

from edge_reranker.errors import Missing
from edge_reranker.evaluation import movielens
from edge_reranker.types import EventType

ITEMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '1\tToy Story\t1995\tAnimation Children\'s Comedy\n2\t"Heat", The\t1995\tSci-Fi\n'
)
RATINGS = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t2\t5\t30\n8\t1\t3\t10\n7\t1\t1\t20\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ml-100k.item").write_text(ITEMS)
    (tmp_path / "ml-100k.inter").write_text(RATINGS)
    return tmp_path


def test_films_come_in_file_order_with_year_and_genres(folder: Path) -> None:
    data = movielens.load(folder)
    assert [item.title for item in data.items] == ["Toy Story (1995)", '"Heat", The (1995)']
    assert data.items[0].tags == ("Animation", "Children's", "Comedy")
    assert data.row_of == {"1": 0, "2": 1}


def test_ratings_come_user_by_user_in_order_of_time_as_events(folder: Path) -> None:
    assert [(*i[:3], i.at_s) for i in movielens.load(folder).interactions] == [
        ("7", "1", EventType.DISLIKE, 20.0),
        ("7", "2", EventType.LIKE, 30.0),
        ("8", "1", EventType.VIEW, 10.0),
    ]


def test_a_missing_file_says_how_to_get_it(folder: Path) -> None:
    (folder / "ml-100k.inter").unlink()
    with pytest.raises(Missing, match="edge-reranker data pull movielens-100k"):
        movielens.load(folder)


@pytest.mark.parametrize("content", ["", "a\tb\n1\t2\n"])
def test_a_file_with_other_columns_is_refused(folder: Path, content: str) -> None:
    (folder / "ml-100k.item").write_text(content)
    with pytest.raises(Missing, match="does not have the columns"):
        movielens.load(folder)
