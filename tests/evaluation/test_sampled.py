"""Sampled lists: what may be drawn, how often, and how the usual rankers order them."""

from collections import Counter

import numpy as np
import pytest

from edge_reranker.evaluation import sampled, servers
from edge_reranker.evaluation.lists import Lister
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.evaluation.sampled import Negatives
from edge_reranker.ranking.profile import Taste
from edge_reranker.types import EventType, Item

ITEMS = [Item(str(at), title=f"Thing {'red' if at % 2 else 'blue'}") for at in range(20)]
HISTORY = (Interaction("u", "0", EventType.LIKE, 0.0), Interaction("u", "2", EventType.LIKE, 1.0))
CUT = Cut("u", 2, HISTORY, ("4", "5"))
LOGS = {"u": {"0", "2", "4", "5", "6"}}
COUNTS = Counter({"1": 9, "3": 1, "4": 5, "7": 2})


def negatives(n: int, chances: list[float], seed: int = 0) -> Negatives:
    return Negatives(n, ITEMS, np.array(chances), LOGS, seed)


@pytest.fixture
def lister() -> Lister:
    return Lister(servers.PopularityServer((), {}), {item.id: item for item in ITEMS}, Taste())


def test_negatives_are_distinct_and_never_in_the_users_log() -> None:
    drawn = negatives(12, [1.0] * 20).drawn(CUT, 0)
    assert len(set(drawn)) == 12
    assert not set(drawn) & LOGS["u"]


def test_all_that_a_user_ever_met_is_known_by_id() -> None:
    items = [Item("b"), Item("a"), Item("c")]
    met = [("u", "a"), ("v", "b"), ("u", "c"), ("u", "a")]
    found = sampled.met(Log.of(items, (Interaction(*each, EventType.VIEW, 0.0) for each in met)))
    assert found == {"u": {"a", "c"}, "v": {"b"}}


def test_what_has_no_chance_is_not_drawn() -> None:
    assert set(negatives(12, [0.0, 1.0, 1.0, 1.0] + [0.0] * 16).drawn(CUT, 0)) == {"1", "3"}


def test_negatives_are_drawn_as_often_as_their_chances_say() -> None:
    chances = [0.0, 3.0, 0.0, 1.0] + [0.0] * 16
    drawn = [negatives(1, chances, seed).drawn(CUT, 0)[0] for seed in range(400)]
    assert drawn.count("1") / 400 == pytest.approx(0.75, abs=0.07)


def test_every_target_has_its_own_draw_and_a_seed_repeats_it() -> None:
    make = negatives(5, [1.0] * 20)
    assert make.drawn(CUT, 0) == make.drawn(CUT, 0)
    assert make.drawn(CUT, 0) != make.drawn(CUT, 1)
    assert make.drawn(CUT, 0) != negatives(5, [1.0] * 20, seed=1).drawn(CUT, 0)


def test_a_trial_is_one_target_among_its_negatives_in_order_of_popularity(lister: Lister) -> None:
    found = sampled.trials(
        lister, [CUT], negatives(3, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0] + [0.0] * 12), COUNTS
    )
    assert [each.ids for each in found] == [("1", "4", "7", "3"), ("1", "7", "3", "5")]
    assert [each.targets for each in found] == [(1,), (3,)]


def test_words_that_the_liked_history_shares_come_first(lister: Lister) -> None:
    found = sampled.trials(lister, [CUT], negatives(14, [1.0] * 20), COUNTS)
    blue, red = sampled.by_words(found, ITEMS, lister)
    n_blue = sum(int(item_id) % 2 == 0 for item_id in found[0].ids)
    assert blue <= n_blue < red
    assert sampled.by_column(found, "history_text").tolist()[0] <= n_blue


def test_tf_idf_gives_no_weight_to_a_word_that_all_items_have() -> None:
    vectors = sampled.tf_idf(ITEMS)
    assert vectors["1"] == {"thing": 0.0, "red": 1.0}


def test_an_item_that_a_server_does_not_know_scores_nothing(lister: Lister) -> None:
    users = [[Interaction("v", "0", EventType.LIKE, 0.0), Interaction("v", "4", EventType.LIKE, 1.0)]]
    server = servers.item_knn(servers.Past.of(users, lister.items), servers.Reading(), 5, 0.0)
    found = sampled.trials(lister, [CUT], negatives(4, [1.0] * 20), Counter())
    known, unknown = sampled.by_server(found, server)
    assert known == 1
    assert unknown == found[1].targets[0] + 1
