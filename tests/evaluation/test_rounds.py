"""Simulated rounds on a made-up world: what is held out is never shown, and taste that can be learned is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_reranker.evaluation import adversaries, lists, metrics, protocol, report, rounds, run, simulated
from edge_reranker.evaluation.clicks import Attraction, PositionBased
from edge_reranker.evaluation.lists import Lister
from edge_reranker.evaluation.rounds import Mark, Person, Setting
from edge_reranker.models.pack import Pack
from edge_reranker.ranking import fusion
from edge_reranker.ranking.learning.learned import Learned
from tests.evaluation.test_full import plain_pack
from tests.planted import World, world

SETTING = Setting(n=30, n_rounds=12, checkpoints=(0, 12), clicks=PositionBased(depth=15))


@pytest.fixture(scope="module")
def planted() -> World:
    return world(n_users=60)


@pytest.fixture(scope="module")
def who(planted: World) -> list[Person]:
    return rounds.people(protocol.split(planted[0]).test)


@pytest.fixture(scope="module")
def lister(planted: World) -> Lister:
    data, hidden = planted
    return run.lister(data, protocol.split(data), plain_pack(), hidden)


def started(pack: Pack | None = None) -> Learned:
    return simulated.started(pack or plain_pack())


def test_the_cases_are_the_protocols_and_what_is_liked_before_them_is_clicked_on(
    planted: World, who: list[Person]
) -> None:
    later = [cut for cut in protocol.split(planted[0]).test if cut.n_events > min(protocol.CUTS)]
    assert [person.cut.targets for person in who] == [cut.targets for cut in later]
    for person in who:
        history = person.cut.history
        assert person.known == tuple(history[: min(protocol.CUTS)])
        assert person.liked == {each.item_id for each in history[len(person.known) :] if each.liked}
        assert not person.liked & set(person.cut.targets)
        assert not person.liked & person.met


class Watching:
    """A server that keeps what it was told to leave out and what it sent."""

    def __init__(self, lister: Lister) -> None:
        self.server = lister.server
        self.sent: list[list[str]] = []

    def candidates(self, history, seen, n=100):  # type: ignore[no-untyped-def]
        found = self.server.candidates(history, seen, n)
        self.sent.append([each.id for each in found])
        return found


def test_no_list_of_a_round_has_what_measures_and_none_that_measures_what_was_known_by_then(
    who: list[Person], lister: Lister
) -> None:
    for person in who[:4]:
        watching = Watching(lister)
        rounds.run([person], replace(lister, server=watching), started(), SETTING)
        held, past = set(person.cut.targets), {each.item_id for each in person.cut.history}
        assert watching.sent
        for sent in watching.sent:
            assert not set(sent) & person.met
            assert not (set(sent) & held and set(sent) & past)


def test_the_shown_order_is_the_one_that_fusion_gives_with_the_learned_weights(
    who: list[Person], lister: Lister
) -> None:
    listed = lister.listed(who[0].cut)
    learned = started()
    found = rounds.shown(listed, learned)
    expected = fusion.order(fusion.fuse(listed.matrix, lists.NAMES, learned.with_model))
    assert found.order.tolist() == expected.tolist()
    assert found.ids == listed.ids


def test_clicks_that_fit_the_model_make_it_better_on_likes_that_were_never_clicked(
    who: list[Person], lister: Lister
) -> None:
    """The device starts without a clue what the towers are worth for anybody."""
    clueless = fusion.Weights(("server_rank", "towers"), np.zeros(2), np.diag([1.0, 25.0]))
    traces = rounds.run(who, lister, Learned.start(clueless, clueless, "plain"), SETTING)
    after = np.concatenate([trace.marks[-1].places[rounds.SERVED] for trace in traces])
    before = np.concatenate([trace.marks[-1].places[rounds.NOTHING] for trace in traces])
    assert metrics.ndcg(after).mean() > 1.5 * metrics.ndcg(before).mean()
    assert np.mean([trace.marks[-1].n_clicks for trace in traces]) > 1


def test_who_never_clicks_teaches_nothing(who: list[Person], lister: Lister) -> None:
    nobody = replace(SETTING, attraction=Attraction(0.0, 0.0))
    for trace in rounds.run(who[:4], lister, started(), nobody):
        last = trace.marks[-1]
        assert last.n_clicks == 0
        assert all(
            (last.places[name] == last.places[rounds.NOTHING]).all() for name in (rounds.BOTH, rounds.SERVED)
        )


def test_the_same_seed_gives_the_same_rounds(who: list[Person], lister: Lister) -> None:
    def places(seed: int) -> list[list[int]]:
        traces = rounds.run(who[:3], lister, started(), replace(SETTING, seed=seed))
        return [trace.marks[-1].places[rounds.SERVED].tolist() for trace in traces]

    assert places(0) == places(0)


def test_ratings_are_those_of_the_log(who: list[Person], lister: Lister) -> None:
    """With ratings a click has a second event, so more is learned from the same clicks."""
    clicks, ratings = (
        rounds.run(who[:2], lister, started(), replace(SETTING, rates=rates)) for rates in (False, True)
    )
    assert [trace.marks[-1].n_clicks for trace in clicks] != [0, 0]
    assert all(trace.marks[-1].n_clicks <= 30 for trace in ratings)


def test_whose_likes_are_made_up_likes_as_told(who: list[Person], lister: Lister) -> None:
    """Likes by the server's places are on its top, contrary ones at the end of ours, and others anywhere."""
    weights = started().with_model
    listed = lister.listed(who[0].cut)
    ours = fusion.order(fusion.fuse(listed.matrix, lists.NAMES, weights))
    likes = {}
    for taste in adversaries.TASTES:
        person = adversaries.made_up(who, weights, taste)[0]
        assert person.appeal is not None
        likes[taste] = person.appeal(listed)
        assert ((likes[taste] > 0) & (likes[taste] < 1)).all()
    assert likes[adversaries.SERVERS_TASTE].argmax() == 0
    assert likes[adversaries.CONTRARY].argmax() == ours[-1]
    place = np.arange(len(ours))
    assert abs(np.corrcoef(likes[adversaries.NO_TASTE], place)[0, 1]) < 0.5


def test_made_up_people_are_measured_by_what_they_like(who: list[Person], lister: Lister) -> None:
    """To whom the server's order says it all, no other is better."""
    made_up = adversaries.made_up(who[:6], started().with_model, adversaries.SERVERS_TASTE)
    for trace in rounds.run(made_up, lister, started(), SETTING):
        for mark in trace.marks:
            gains = {name: metrics.ndcg(places).mean() for name, places in mark.places.items()}
            assert len(mark.places[rounds.SERVER]) == rounds.N_DRAWN
            assert gains[rounds.SERVER] > gains[rounds.NOTHING]
        assert trace.marks[-1].n_clicks > 0


def test_worse_by_chance_is_nobody_when_the_servers_order_is_served(
    who: list[Person], lister: Lister
) -> None:
    traces = rounds.run(who, lister, started(), SETTING)
    marks = [trace.marks[-1] for trace in traces]
    same = [replace(mark, places_served=np.arange(1, len(mark.chances) + 1)) for mark in marks]
    share = simulated.by_chance(traces, same)
    assert isinstance(share, dict)
    assert share["mean"] == 0
    moved: list[Mark] = marks
    own = simulated.by_chance(traces, moved)
    assert isinstance(own, dict)
    assert 0 <= own["low"] <= own["mean"] <= own["high"] <= 1
    assert own["mean"] > 0


def test_every_section_says_that_it_is_a_simulation() -> None:
    data, hidden = world(n_users=30)
    tables = simulated.evaluate(data, plain_pack(), hidden, pools=(20,), n_rounds=2)
    assert len(tables["sections"]) == 4
    assert all(section["title"].startswith("Simulation") for section in tables["sections"])
    curve = tables["sections"][0]["rows"]
    assert {row["rounds"] for row in curve} == {0, 2}
    assert report.html(tables).count("<svg") == 4
    assert all(row["served - nothing learned"]["mean"] == 0 for row in curve if row["rounds"] == 0)  # type: ignore[index]
