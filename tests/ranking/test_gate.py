"""Do no harm: the test of our order against the server's, on the user's own choices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.gate import ALPHA, EVERY, Gate
from edge_reranker.ranking.learning.learned import Learned, replay
from edge_reranker.ranking.learning.shown import Shown, examination
from edge_reranker.types import EventType
from tests.ranking.made_up import NAMES, PACK, PRIOR, a_list, clicked

FOLLOWS_THE_SERVER = np.zeros(len(NAMES))


def chosen(shown: Shown, item: str) -> Choice:
    choice = choice_of(shown, item, EventType.CLICK)
    assert choice is not None
    return choice


def at(our_place: int, server_place: int, served: int) -> Any:
    """A choice as the gate sees it."""
    gain = float(examination(our_place) - examination(server_place)) / float(examination(served))
    return SimpleNamespace(
        against=False,
        our_place=our_place,
        server_place=server_place,
        exposure=float(examination(served)),
        most_gain=max(0.0, gain),
        most_loss=max(0.0, -gain),
    )


@settings(max_examples=60)
@given(
    st.integers(0, 10_000), st.booleans(), st.integers(2, 60), st.sampled_from(["ours", "server", "other"])
)
def test_the_bet_is_fair_wherever_both_orders_are_equally_good(
    seed: int, server_wins: bool, n: int, by: str
) -> None:
    """Summed over all choices with their chances, no capital grows: Ville's 5 % hold."""
    rng = np.random.default_rng(seed)
    ours = rng.permutation(n)
    served = {"ours": ours, "server": np.arange(n), "other": rng.permutation(n)}[by]
    shown = a_list(rng, n=n, order=served, ours=ours)
    gate = Gate(server_wins=server_wins, n_choices=EVERY - 1)
    chances = examination(np.arange(1, n + 1)) / examination(np.arange(1, n + 1)).sum()
    after = [gate.after(chosen(shown, shown.ids[index])) for index in served]
    grown = [a.capital if a.server_wins == server_wins else gate.needed for a in after]
    assert float(chances @ grown) <= gate.capital * (1 + 1e-9)


def test_a_choice_that_our_order_served_better_speaks_for_it_and_the_other_way_round() -> None:
    for server_wins, served in ((False, 2), (True, 9)):
        gate = Gate(server_wins=server_wins)
        for_ours = gate.after(at(2, 9, served)).capital
        for_servers = gate.after(at(9, 2, 9 if not server_wins else 2)).capital
        assert (for_servers > gate.capital > for_ours) != server_wins


def test_a_choice_against_an_item_says_nothing() -> None:
    choice = choice_of(a_list(np.random.default_rng(0)), "i3", EventType.DISLIKE)
    assert choice is not None
    assert Gate().after(choice) == Gate()


def falls_after(rng: np.random.Generator, n_choices: int, equal: bool) -> int | None:
    """How many choices of a user without any taste, or with the server's, the gate stood."""
    gate = Gate()
    for n in range(1, n_choices + 1):
        ours = rng.permutation(30) + 1
        appeal = np.ones(30) if equal else 1.0 / np.arange(1, 31)
        chances = appeal * examination(ours)
        item = int(rng.choice(30, p=chances / chances.sum()))
        gate = gate.after(at(int(ours[item]), item + 1, int(ours[item])))
        if gate.server_wins:
            return n
    return None


def test_where_ours_is_as_good_hardly_anybody_is_taken_from_it() -> None:
    rng = np.random.default_rng(0)
    fell = [falls_after(rng, 100, equal=True) for _ in range(150)]
    assert sum(each is not None for each in fell) <= 1.5 * ALPHA * len(fell)


def test_who_wants_what_the_server_has_on_top_gets_it_after_a_few_choices() -> None:
    rng = np.random.default_rng(1)
    fell = [falls_after(rng, 200, equal=False) or np.inf for _ in range(100)]
    assert np.median(fell) <= 15
    assert np.mean(np.array(fell) <= 50) >= 0.85


def test_after_a_long_good_time_a_bad_one_is_noticed() -> None:
    gate = Gate()
    for _ in range(1000):
        gate = gate.after(at(1, 8, 1))
    assert not gate.server_wins
    n_bad = 0
    while not gate.server_wins:
        gate = gate.after(at(6, 1, 6))
        n_bad += 1
    assert n_bad < 2 * EVERY


def test_ours_comes_back_when_it_would_have_served_better_and_the_next_fall_takes_more() -> None:
    gate = Gate()
    needed = [gate.needed]
    for our_place, server_place, served in ((6, 1, 6), (1, 6, 6), (6, 1, 6)):
        before = gate.server_wins
        while gate.server_wins == before:
            gate = gate.after(at(our_place, server_place, served))
        needed.append(gate.needed)
    assert gate.server_wins
    assert gate.n_falls == 2
    assert needed == [20, 20, 40, 20]


def test_learning_goes_on_while_the_servers_order_is_served() -> None:
    rng = np.random.default_rng(2)
    learned = Learned.start(PRIOR, PRIOR, PACK)
    for _ in range(100):
        ours = rng.permutation(20)
        shown = a_list(rng, order=ours, ours=ours)
        learned = learned.after(chosen(shown, clicked(rng, shown, FOLLOWS_THE_SERVER)))
        if learned.gate.server_wins:
            break
    assert learned.gate.server_wins
    shown = a_list(rng, learned.with_model, order=np.arange(20), by_server=True)
    after = learned.after(chosen(shown, clicked(rng, shown, FOLLOWS_THE_SERVER)))
    assert (after.with_model.mean != learned.with_model.mean).any()


def test_several_events_about_one_item_of_one_list_are_one_choice_for_the_gate() -> None:
    shown = a_list(np.random.default_rng(3))
    events = [
        choice_of(shown, "i5", type_) for type_ in (EventType.CLICK, EventType.LIKE, EventType.PURCHASE)
    ]
    learned = replay(Learned.start(PRIOR, PRIOR, PACK), [each for each in events if each])
    assert learned.gate == Gate().after(chosen(shown, "i5"))


@pytest.mark.parametrize("n", [0, 1, EVERY - 1, EVERY, EVERY + 1, 7 * EVERY])
def test_the_capital_is_one_before_any_bet_is_decided(n: int) -> None:
    gate = Gate()
    for _ in range(n):
        gate = gate.after(at(4, 4, 4))
    assert gate.capital == pytest.approx(1.0)
