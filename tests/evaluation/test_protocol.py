"""The protocol: nobody is learned from and tested on, and nothing from the future is known."""

from pathlib import Path

import pytest

from edge_reranker.evaluation import movielens, protocol
from edge_reranker.evaluation.movielens import MovieLens, Rating
from edge_reranker.evaluation.protocol import cuts
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.types import Item


def rated(user: str, *moments: tuple[str, float, float]) -> tuple[Rating, ...]:
    return tuple(Rating(user, item, stars, at) for item, stars, at in moments)


def of_one_user(stars: float, times: list[float]) -> dict[str, tuple[Rating, ...]]:
    return {"u": rated("u", *((str(at), stars, time) for at, time in enumerate(times)))}


def test_targets_are_the_next_five_liked_items() -> None:
    found = cuts(of_one_user(5.0, [float(at) for at in range(30)]))
    assert [(c.n_events, c.targets) for c in found] == [
        (10, ("10", "11", "12", "13", "14")),
        (20, ("20", "21", "22", "23", "24")),
    ]
    assert [len(c.history) for c in found] == [10, 20]


def test_items_that_share_the_last_known_events_time_are_no_targets() -> None:
    found = cuts(of_one_user(5.0, [*range(9), 9.0, 9.0, 9.0, 10.0, 11.0]))
    assert [c.targets for c in found] == [("12", "13")]


def test_items_rated_below_four_are_no_targets() -> None:
    assert cuts(of_one_user(3.0, [float(at) for at in range(30)])) == ()


def test_a_user_with_too_few_events_has_no_cut() -> None:
    assert cuts(of_one_user(5.0, [float(at) for at in range(10)])) == ()


def test_users_are_parted_by_the_moment_they_start() -> None:
    ratings = [
        Rating(f"u{user:02}", str(at), 5.0, user * 100.0 + at) for user in range(20) for at in range(15)
    ]
    split = protocol.split(MovieLens(tuple(Item(str(at)) for at in range(15)), tuple(ratings)))
    test = {c.user_id for c in split.test}
    fusion = {c.user_id for c in split.fusion}
    assert split.n_earlier + split.n_later == 20
    assert test == {f"u{user:02}" for user in range(14, 20)}
    assert not test & fusion
    assert not (test | fusion) & set(split.head)
    assert all(r.at_s <= split.at_s for of_user in split.head.values() for r in of_user)
    assert all(c.history[0].at_s > split.at_s for c in split.test)


def test_the_popularity_server_leaves_out_what_was_seen_and_breaks_ties_by_id() -> None:
    ratings = rated("a", ("x", 1, 0), ("y", 5, 0)) + rated("b", ("z", 5, 0), ("y", 3, 0))
    server = PopularityServer(ratings, {name: Item(name) for name in "wxyz"})
    assert [c.id for c in server.candidates((), ())] == ["y", "x", "z"]
    assert [c.id for c in server.candidates((), {"y"})] == ["x", "z"]
    assert [c.id for c in server.candidates((), (), 1)] == ["y"]


@pytest.fixture(scope="module")
def real(movielens_dir: Path) -> tuple[movielens.MovieLens, protocol.Split]:
    data = movielens.load(movielens_dir)
    return data, protocol.split(data)


@pytest.mark.model
def test_movielens_gives_the_known_numbers_of_users_and_cases(
    real: tuple[movielens.MovieLens, protocol.Split],
) -> None:
    data, split = real
    assert (len(data.items), len(data.ratings)) == (1682, 100_000)
    assert (split.n_earlier, split.n_later) == (674, 269)
    assert len(split.head) == 472
    assert sum(len(c.targets) for c in split.test) == 3034


@pytest.mark.model
def test_no_movielens_user_is_in_two_parts(real: tuple[movielens.MovieLens, protocol.Split]) -> None:
    _, split = real
    parts = [set(split.head), {c.user_id for c in split.fusion}, {c.user_id for c in split.test}]
    assert len(set.union(*parts)) == sum(map(len, parts))


@pytest.mark.model
def test_no_movielens_cut_knows_its_future(real: tuple[movielens.MovieLens, protocol.Split]) -> None:
    data, split = real
    at = {(r.user_id, r.item_id): r.at_s for r in data.ratings}
    for cut in (*split.fusion, *split.test):
        assert max(r.at_s for r in cut.history) == cut.now_s
        assert all(at[cut.user_id, target] > cut.now_s for target in cut.targets)
        assert not set(cut.targets) & {r.item_id for r in cut.history}


@pytest.mark.model
def test_nothing_that_trains_is_from_after_the_split(
    real: tuple[movielens.MovieLens, protocol.Split],
) -> None:
    data, split = real
    at = {(r.user_id, r.item_id): r.at_s for r in data.ratings}
    assert all(r.at_s <= split.at_s for of_user in split.head.values() for r in of_user)
    assert all(at[c.user_id, target] <= split.at_s for c in split.fusion for target in c.targets)
    assert all(r.at_s > split.at_s for c in split.test for r in c.history)
