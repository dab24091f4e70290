"""Servers that know the user, against values worked out by hand, and how they are tuned."""

from collections.abc import Sequence

import numpy as np
import pytest

from edge_reranker.evaluation import metrics, servers, tuning
from edge_reranker.evaluation.log import Interaction, Log, event_type, times_met
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.evaluation.servers import ItemServer, Past, Reading
from edge_reranker.types import Item

ITEMS = {name: Item(name) for name in "abcde"}


def rated(user: str, stars: dict[str, float]) -> list[Interaction]:
    return [
        Interaction(user, item, event_type(given), float(at))
        for at, (item, given) in enumerate(stars.items())
    ]


USERS = [
    rated("u", {"a": 5, "b": 5}),
    rated("v", {"a": 5, "b": 4, "c": 1}),
    rated("w", {"c": 5, "d": 5}),
]


@pytest.fixture
def past() -> Past:
    return Past.of(USERS, ITEMS)


def test_the_past_has_items_that_were_met_only_most_popular_first(past: Past) -> None:
    assert [item.id for item in past.items] == ["a", "b", "c", "d"]
    assert past.counts.tolist() == [2, 2, 2, 1]
    assert past.weighted(0.25).tolist() == [[1, 1, 0, 0], [1, 1, 0.25, 0], [0, 0, 1, 1]]


def test_only_the_newest_are_read_and_those_not_liked_count_less(past: Past) -> None:
    history = rated("x", {"a": 5, "c": 2, "e": 5, "d": 4})
    assert past.read([history], Reading(last=3, low=0.5)).tolist() == [[0, 0, 0.5, 1]]


def test_an_item_that_was_met_again_is_one_item_that_was_liked() -> None:
    again = rated("u", {"a": 3}) + rated("u", {"a": 5, "b": 3}) + rated("u", {"a": 3})
    past = Past.of([again], ITEMS)
    assert past.weighted(0.25).tolist() == [[1, 0.25]]
    assert past.read([again], Reading(last=4, low=0.25)).tolist() == [[1, 0.25]]


def test_counts_of_a_log_make_the_server_that_its_records_make() -> None:
    log = Log.of(ITEMS.values(), [each for user in USERS for each in user])
    pasts = [past for name, past in log.of_users() if name != "w"]
    counted = servers.PopularityServer.of_counts(times_met(pasts, log.items), ITEMS)
    read = servers.PopularityServer((each for past in pasts for each in past), ITEMS)
    assert counted.counts == read.counts
    assert counted.order == read.order == ["a", "b", "c"]
    assert counted.candidates((), ["b"]) == read.candidates((), ["b"])
    assert times_met((), log.items) == {}


def test_knn_is_shrunken_cosine(past: Past) -> None:
    found = servers.item_knn(past, Reading(low=1.0), k=4, shrinkage=3.0).similarity
    assert found[0, 1] == pytest.approx(2 / (2 + 3))
    assert found[2, 3] == pytest.approx(1 / (np.sqrt(2) + 3))
    assert found.diagonal().tolist() == [0, 0, 0, 0]


def test_knn_lets_only_the_nearest_speak_for_a_candidate() -> None:
    """Of c's users all rated a, so a speaks for c; but what speaks for a is b."""
    users = [rated("u", {"a": 5, "b": 5}), rated("v", {"a": 5, "b": 5}), rated("w", {"a": 5, "c": 5})]
    found = servers.item_knn(Past.of(users, ITEMS), Reading(), k=1, shrinkage=0.0).similarity
    assert (found > 0).tolist() == [[False, True, True], [True, False, False], [False, False, False]]


def test_ease_regresses_every_item_on_all_others(past: Past) -> None:
    """Each column of the closed form is the ridge regression that leaves the item itself out."""
    ridge, x = 2.0, past.weighted(0.5)
    found = servers.ease(past, Reading(low=0.5), ridge).similarity
    for item in range(4):
        others = [at for at in range(4) if at != item]
        gram = x[:, others].T @ x[:, others] + ridge * np.eye(3)
        assert found[others, item] == pytest.approx(np.linalg.solve(gram, x[:, others].T @ x[:, item]))
        assert found[item, item] == 0


def test_a_server_that_knows_the_user_proposes_what_goes_with_the_history(past: Past) -> None:
    server = servers.item_knn(past, Reading(), k=4, shrinkage=0.0)
    assert [c.id for c in server.candidates(rated("x", {"d": 5}), {"d"}, 2)] == ["c", "a"]
    assert [c.id for c in server.candidates(rated("x", {"b": 5}), {"b"}, 1)] == ["a"]


def test_without_a_history_the_order_is_that_of_popularity(past: Past) -> None:
    server = servers.ease(past, Reading(), 1.0)
    assert [c.id for c in server.candidates((), ())] == ["a", "b", "c", "d"]


def cut(known: dict[str, float], targets: Sequence[str]) -> Cut:
    return Cut("x", len(known), tuple(rated("x", known)), tuple(targets))


def test_tuning_scores_the_order_that_the_server_would_send(past: Past) -> None:
    server = servers.item_knn(past, Reading(), k=4, shrinkage=0.0)
    cuts = [cut({"d": 5}, ["c", "b", "e"]), cut({"b": 5}, ["d"])]
    places = []
    for each in cuts:
        ids = [c.id for c in server.candidates(each.history, {r.item_id for r in each.history})]
        places += [ids.index(target) + 1 if target in ids else 0 for target in each.targets]
    assert 0 in places
    assert tuning.own_order(cuts)(server) == pytest.approx(metrics.ndcg(np.array(places)).mean())


@pytest.mark.parametrize("tuned", [tuning.tuned_ease, tuning.tuned_knn])
def test_tuning_finds_the_best_reading_and_says_what_it_reached(tuned: object, past: Past) -> None:
    def objective(server: ItemServer) -> float:
        return -abs(server.reading.last - 10) - abs(server.reading.low - 0.15)

    found = tuned(past, objective)  # type: ignore[operator]
    assert found.server.reading == Reading(10, 0.15)
    assert found.reached == 0
    assert "last 10, low 0.15: 0.0000" in str(found)
