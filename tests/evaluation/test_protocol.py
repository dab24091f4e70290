"""The protocol: nobody is learned from and tested on, and nothing from the future is known."""

from pathlib import Path

import pytest

from edge_reranker.errors import FailedPrecondition
from edge_reranker.evaluation import movielens, protocol
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.evaluation.protocol import cuts
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.types import EventType, Item


def met(user: str, *items: str, type_: EventType = EventType.LIKE) -> tuple[Interaction, ...]:
    return tuple(Interaction(user, item, type_, float(at)) for at, item in enumerate(items))


def of_one_user(times: list[float], type_: EventType = EventType.LIKE) -> dict[str, tuple[Interaction, ...]]:
    return {"u": tuple(Interaction("u", str(at), type_, time) for at, time in enumerate(times))}


def test_targets_are_the_next_five_liked_items() -> None:
    found = cuts(of_one_user([float(at) for at in range(30)]))
    assert [(c.n_events, c.targets) for c in found] == [
        (10, ("10", "11", "12", "13", "14")),
        (20, ("20", "21", "22", "23", "24")),
    ]
    assert [len(c.history) for c in found] == [10, 20]


def test_items_that_share_the_last_known_events_time_are_no_targets() -> None:
    found = cuts(of_one_user([*range(9), 9.0, 9.0, 9.0, 10.0, 11.0]))
    assert [c.targets for c in found] == [("12", "13")]


def test_items_that_were_only_viewed_are_no_targets() -> None:
    assert cuts(of_one_user([float(at) for at in range(30)], EventType.VIEW)) == ()


def test_a_user_with_too_few_events_has_no_cut() -> None:
    assert cuts(of_one_user([float(at) for at in range(10)])) == ()


def log_of(n_users: int, n_each: int = 15, *, apart_s: float = 100.0) -> Log:
    """Users who start one after another and like every item in turn."""
    return Log.of(
        [Item(str(at)) for at in range(n_each)],
        [
            Interaction(f"u{user:05}", str(at), EventType.LIKE, user * apart_s + at)
            for user in range(n_users)
            for at in range(n_each)
        ],
    )


def test_an_item_that_was_met_before_or_is_liked_twice_is_no_further_target() -> None:
    again = (*met("u", *map(str, range(10))), *met("u", "3", "x", "x", "y"))
    late = tuple(each._replace(at_s=float(at)) for at, each in enumerate(again))
    assert [c.targets for c in cuts({"u": late})] == [("x", "y")]


@pytest.mark.parametrize(
    ("n_users", "n_each", "step", "needed", "there"),
    [(6, 15, "head", 5, 4), (12, 10, "fusion", 2, 0)],
)
def test_too_few_users_for_a_step_says_how_many_are_needed_and_how_many_there_are(
    n_users: int, n_each: int, step: str, needed: int, there: int
) -> None:
    with pytest.raises(
        FailedPrecondition, match=rf"for the {step} step: {needed} are needed .* has {there} "
    ):
        protocol.split(log_of(n_users, n_each))


def test_where_all_users_start_together_nobody_is_left_to_test_on() -> None:
    with pytest.raises(FailedPrecondition, match=r"for the test step: 2 are needed .* has 0 "):
        protocol.split(log_of(20, 20, apart_s=0.0))


def test_twenty_five_users_are_enough() -> None:
    split = protocol.split(log_of(25))
    assert len(split.head) == 13
    assert len({c.user_id for c in split.test}) == 7


def test_of_very_many_users_a_sample_has_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_LIST_USERS", 10)
    split = protocol.split(log_of(200))
    assert len({c.user_id for c in split.fusion}) == len({c.user_id for c in split.test}) == 10
    assert (split.n_earlier, split.n_later) == (140, 60)
    assert len(split.head) == 98


def test_a_log_without_interactions_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="no interactions"):
        protocol.split(Log.of([Item("a")], []))


def test_users_are_parted_by_the_moment_they_start() -> None:
    split = protocol.split(log_of(n_users=20))
    test = {c.user_id for c in split.test}
    fusion = {c.user_id for c in split.fusion}
    assert split.n_earlier + split.n_later == 20
    assert test == {f"u{user:05}" for user in range(14, 20)}
    assert not test & fusion
    assert not (test | fusion) & set(split.head)
    assert all(r.at_s <= split.at_s for of_user in split.head.values() for r in of_user)
    assert all(c.history[0].at_s > split.at_s for c in split.test)


def test_the_popularity_server_leaves_out_what_was_seen_and_breaks_ties_by_id() -> None:
    known = met("a", "x", "y") + met("b", "z", "y")
    server = PopularityServer(known, {name: Item(name) for name in "wxyz"})
    assert [c.id for c in server.candidates((), ())] == ["y", "x", "z"]
    assert [c.id for c in server.candidates((), {"y"})] == ["x", "z"]
    assert [c.id for c in server.candidates((), (), 1)] == ["y"]


@pytest.fixture(scope="module")
def real(movielens_dir: Path) -> tuple[Log, protocol.Split]:
    data = movielens.load(movielens_dir)
    return data, protocol.split(data)


@pytest.mark.model
def test_movielens_gives_the_known_numbers_of_users_and_cases(
    real: tuple[Log, protocol.Split],
) -> None:
    data, split = real
    assert (len(data.items), len(data.interactions)) == (1682, 100_000)
    assert (split.n_earlier, split.n_later) == (674, 269)
    assert len(split.head) == 472
    assert sum(len(c.targets) for c in split.test) == 3034


@pytest.mark.model
def test_no_movielens_user_is_in_two_parts(real: tuple[Log, protocol.Split]) -> None:
    _, split = real
    parts = [set(split.head), {c.user_id for c in split.fusion}, {c.user_id for c in split.test}]
    assert len(set.union(*parts)) == sum(map(len, parts))


@pytest.mark.model
def test_no_movielens_cut_knows_its_future(real: tuple[Log, protocol.Split]) -> None:
    data, split = real
    at = {(r.user_id, r.item_id): r.at_s for r in data.interactions}
    for cut in (*split.fusion, *split.test):
        assert max(r.at_s for r in cut.history) == cut.now_s
        assert all(at[cut.user_id, target] > cut.now_s for target in cut.targets)
        assert not set(cut.targets) & {r.item_id for r in cut.history}


@pytest.mark.model
def test_nothing_that_trains_is_from_after_the_split(
    real: tuple[Log, protocol.Split],
) -> None:
    data, split = real
    at = {(r.user_id, r.item_id): r.at_s for r in data.interactions}
    assert all(r.at_s <= split.at_s for of_user in split.head.values() for r in of_user)
    assert all(at[c.user_id, target] <= split.at_s for c in split.fusion for target in c.targets)
    assert all(r.at_s > split.at_s for c in split.test for r in c.history)
