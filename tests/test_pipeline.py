"""Events and candidates in, an order out: with a real store, and a fake engine where one is needed."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Stop
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.pipeline import Pipeline
from edge_reranker.scoring import Tiers
from edge_reranker.store import Store
from edge_reranker.types import (
    Candidate,
    Cap,
    DegradedReason,
    DiversityMethod,
    EventType,
    Item,
    Neighbour,
    Pin,
    Policy,
    Ranking,
    RerankQuery,
    Selector,
)
from tests.parts import N_DIMS, film, films, liked, pipeline, small_pack

LONG = Deadline()


def ids(ranking: Ranking) -> list[str]:
    return [result.id for result in ranking.results]


def served(n: int) -> list[str]:
    return [f"f{number}" for number in range(n)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 60),
    history=st.lists(st.integers(0, 80), max_size=12, unique=True),
    budget_ms=st.sampled_from([-50.0, 0.0, 3.0, 15.0, 5_000.0]),
    query=st.sampled_from(["", "film 3 comedy"]),
    data=st.data(),
)
def test_the_answer_is_always_a_complete_permutation_whatever_the_time(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    history: list[int],
    budget_ms: float,
    query: str,
    data: st.DataObject,
) -> None:
    blocked = tuple(data.draw(st.lists(st.sampled_from(["crime", "DRAMA"]), max_size=2)))
    pins = data.draw(st.dictionaries(st.integers(0, n - 1), st.integers(0, n - 1), max_size=3))
    distinct = {position: id_ for id_, position in pins.items()}
    unwanted_tags = {tag.casefold() for tag in blocked}
    strength = st.sampled_from([0.0, 0.5, 1.0])
    policy = Policy(
        blocked,
        tuple(Pin(f"f{id_}", position) for position, id_ in distinct.items()),
        data.draw(strength),
        data.draw(st.sampled_from(DiversityMethod)),
        data.draw(strength),
        data.draw(strength),
        data.draw(st.sampled_from([(), (Cap(2, 10, tag="comedy"), Cap(3, 5, each_tag=True))])),
    )
    engine = FakeEngine(ms_per_sequence=1.0)
    with pipeline(tmp_path_factory.mktemp("p"), encoder=engine, scorer=FakeEngine()) as whole:
        whole.record("a", liked(*history))
        answers = list(
            whole.rerank_stream(
                "a", RerankQuery(films(n), query, policy=policy), Deadline.after_ms(budget_ms)
            )
        )
    pinned = {pin.id: pin.position for pin in policy.pins}
    unwanted = [
        id_
        for id_ in served(n)
        if id_ not in pinned and film(int(id_[1:])).tags[0].casefold() in unwanted_tags
    ]
    for answer in answers:
        assert sorted([*ids(answer), *answer.blocked_ids]) == sorted(served(n))
        assert list(answer.blocked_ids) == unwanted
        assert 0 <= answer.coverage <= 1
        end = len(ids(answer)) - len(pinned)
        assert all(ids(answer)[place] == id_ for id_, place in pinned.items() if place < end)
    assert [answer.final for answer in answers] == [False] * (len(answers) - 1) + [True]


def test_with_no_history_the_servers_order_stands(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        answer = whole.rerank("a", RerankQuery(films(20)), LONG)
    assert ids(answer) == served(20)
    assert answer.degraded_reason == DegradedReason.NO_HISTORY
    assert {result.tier for result in answer.results} == {0}


def test_an_event_changes_the_next_order(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        orders = [ids(whole.rerank("a", RerankQuery(films(30)), LONG))]
        for number in (101, 202, 303):
            whole.record("a", liked(number, at_s=1e9 + number))
            orders.append(ids(whole.rerank("a", RerankQuery(films(30)), LONG)))
    assert len({tuple(order) for order in orders}) == 4


def test_an_item_that_reads_like_what_was_liked_rises_to_the_top(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(29))
        answer = whole.rerank("a", RerankQuery(films(30)), LONG)
    assert ids(answer)[0] == "f29"
    assert answer.results[0].tier == 1
    assert answer.coverage == 1.0
    assert answer.degraded_reason == DegradedReason.UNSPECIFIED


def test_one_users_events_say_nothing_about_another(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        assert ids(whole.rerank("b", RerankQuery(films(20)), LONG)) == served(20)


def test_a_query_is_answered_even_for_somebody_unknown(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        answer = whole.rerank("a", RerankQuery(films(20), query="comedy 13"), LONG)
    assert ids(answer)[0] == "f13"


def test_after_forgetting_everything_the_order_is_that_of_a_store_that_never_knew(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(3, 7))
        assert ids(whole.rerank("a", RerankQuery(films(20)), LONG)) != served(20)
        receipt = whole.forget("a", Selector(everything=True))
        assert receipt.events == 2
        assert ids(whole.rerank("a", RerankQuery(films(20)), LONG)) == served(20)


def test_after_forgetting_one_event_the_order_is_that_of_the_others(tmp_path: Path) -> None:
    with (
        pipeline(tmp_path / "one", encoder=FakeEngine()) as one,
        pipeline(tmp_path / "two", encoder=FakeEngine()) as two,
    ):
        one.record("a", liked(3, 7))
        two.record("a", liked(3))
        one.rerank("a", RerankQuery(films(20)), LONG)
        one.forget("a", Selector(event_id="e7"))
        expected = ids(two.rerank("a", RerankQuery(films(20)), LONG))
        assert ids(one.rerank("a", RerankQuery(films(20)), LONG)) == expected


def test_without_a_model_the_lower_tier_serves_and_says_so(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(2))
        answer = whole.rerank("a", RerankQuery(films(20)), LONG)
    assert answer.degraded_reason == DegradedReason.NO_MODEL
    assert ids(answer)[0] == "f2"  # the same tag, and the first of those by the server
    assert {result.tier for result in answer.results} == {0}
    assert answer.coverage == 0.0


def test_vectors_that_come_with_the_candidates_serve_tier_one_without_a_model(tmp_path: Path) -> None:
    pack = small_pack()
    random = np.random.default_rng(1)
    shipped = tuple(
        c._replace(vector=tuple(random.standard_normal(N_DIMS)), vector_space=pack.id) for c in films(20)
    )
    engine = FakeEngine()
    with pipeline(tmp_path / "without") as without, pipeline(tmp_path / "with", encoder=engine) as with_model:
        for whole in (without, with_model):
            whole.rerank("a", RerankQuery(shipped), LONG)  # shown before, so the picked item has a vector
            whole.record("a", liked(2))
            answer = whole.rerank("a", RerankQuery(shipped), LONG)
            assert answer.degraded_reason == DegradedReason.UNSPECIFIED
            assert {result.tier for result in answer.results} == {1}
    assert engine.encoded == 0


def test_a_dead_worker_means_the_lower_tier_and_a_reason(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine(fail_with=Stop.DIED)) as whole:
        whole.record("a", liked(2))
        answer = whole.rerank("a", RerankQuery(films(20)), LONG)
    assert answer.degraded_reason == DegradedReason.MODEL_UNAVAILABLE
    assert ids(answer)[0] == "f2"


def test_candidates_are_reached_from_the_top_of_the_current_order_down(tmp_path: Path) -> None:
    """But for one whose place nothing is likely to change: f5 was liked, and is far ahead of the others."""
    with pipeline(tmp_path, encoder=FakeEngine(ms_per_sequence=10.0)) as whole:
        whole.record("a", liked(5))
        orders = [
            (ids(answer), {result.id for result in answer.results if result.tier == 1})
            for answer in whole.rerank_stream("a", RerankQuery(films(40)), Deadline.after_ms(150))
        ]
    before, _ = orders[0]
    _, reached = orders[-1]
    assert 0 < len(reached) < 40
    assert reached <= set(before[: len(reached) + 3])


def test_a_stream_gets_better_informed_with_each_answer(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine(), scorer=FakeEngine()) as whole:
        whole.record("a", liked(5))
        answers = list(whole.rerank_stream("a", RerankQuery(films(30)), LONG))
    informed = [sum(result.tier for result in answer.results) for answer in answers]
    assert informed == sorted(informed)
    assert informed[0] == 0
    assert sum(result.tier == 2 for result in answers[-1].results) == 20
    assert len({answer.ranking_id for answer in answers}) == 1


def test_before_the_last_answer_nothing_is_called_missing(tmp_path: Path) -> None:
    """A stream's early answers cover what the deepest tier has reached by then: first nothing, then some."""
    with pipeline(tmp_path, encoder=FakeEngine(ms_per_sequence=10.0)) as whole:
        whole.record("a", liked(5))
        answers = list(whole.rerank_stream("a", RerankQuery(films(60)), Deadline.after_ms(250)))
    *early, last = answers
    assert early[0].coverage == 0.0
    assert 0 < early[-1].coverage < 1
    assert {answer.degraded_reason for answer in early} == {DegradedReason.UNSPECIFIED}
    assert last.degraded_reason == DegradedReason.DEADLINE
    assert 0 < last.coverage < 1


def test_coverage_is_that_of_the_deepest_tier_due(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine(), scorer=FakeEngine()) as whole:
        whole.record("a", liked(5))
        answers = list(whole.rerank_stream("a", RerankQuery(films(30)), LONG))
        search = list(whole.rerank_stream("nobody", RerankQuery(films(30), query="film"), LONG))
    read = [any(result.tier == 2 for result in answer.results) for answer in answers]
    assert [answer.coverage > 0 for answer in answers] == read
    assert {answer.coverage for answer in search} == {1.0}, "words decide, and no tier above is due"


def test_an_answer_names_the_model_and_the_pack_only_if_they_had_a_say(tmp_path: Path) -> None:
    pack = small_pack()
    with pipeline(tmp_path / "whole", encoder=FakeEngine(), pack=pack) as whole:
        nobody = whole.rerank("a", RerankQuery(films(9)), LONG)
        search = whole.rerank("a", RerankQuery(films(9), query="film"), LONG)
        whole.record("a", liked(5))
        first, *_, last = whole.rerank_stream("a", RerankQuery(films(9)), LONG)
        late = whole.rerank("a", RerankQuery(films(9)), Deadline.after_ms(-50))
    with pipeline(tmp_path / "dead", encoder=FakeEngine(fail_with=Stop.DIED), pack=pack) as dead:
        dead.record("a", liked(5))
        without = dead.rerank("a", RerankQuery(films(9)), LONG)
    named = [(answer.model, answer.pack) for answer in (nobody, search, first, last, late, without)]
    assert named == [("", ""), ("", pack.id), ("", pack.id), ("fake", pack.id), ("", ""), ("", pack.id)]


def test_tier_two_takes_no_part_while_the_pack_gives_it_no_weight(tmp_path: Path) -> None:
    pack = small_pack(scorer_weight=0.0)
    with pipeline(tmp_path, encoder=FakeEngine(), scorer=FakeEngine(), pack=pack) as whole:
        whole.record("a", liked(5))
        answer = whole.rerank("a", RerankQuery(films(30)), LONG)
    assert {result.tier for result in answer.results} == {1}


def test_tier_two_moves_the_order_when_the_pack_gives_it_weight(tmp_path: Path) -> None:
    orders = []
    for scorer in (None, FakeEngine()):
        with pipeline(tmp_path / str(scorer is None), encoder=FakeEngine(), scorer=scorer) as whole:
            whole.record("a", liked(5))
            orders.append(ids(whole.rerank("a", RerankQuery(films(30)), LONG)))
    assert orders[0] != orders[1]


def test_impressions_never_push_out_what_the_user_likes(tmp_path: Path) -> None:
    shown = [
        dataclasses.replace(event, event_id=f"i{n}", type=EventType.IMPRESSION, occurred_at=2e9 / 2 + n)
        for n, event in enumerate(liked(*range(400)))
    ]
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(29, at_s=1e9 - 10))
        whole.record("a", shown)
        answer = whole.rerank("a", RerankQuery(films(30)), LONG)
    assert ids(answer)[0] == "f29"


@pytest.mark.parametrize("query", ["", "film"])
def test_nothing_that_was_under_way_is_stored_after_a_forget(tmp_path: Path, query: str) -> None:
    """Neither the background's item nor a request of many chunks writes behind the receipt."""
    with Store.open(tmp_path, key_source="file") as store:
        whole = Pipeline(store, make_tiers(small_pack(), store, FakeEngine(ms_per_sequence=20.0), None))
        whole.record("a", liked(1, 2))
        request = threading.Thread(
            target=whole.rerank, args=("a", RerankQuery(films(60, first=3), query), Deadline.after_ms(1_200))
        )
        request.start()
        time.sleep(0.3)
        store.flush()
        assert store.counts("a")["vectors"] > 0, "the request is under way"
        whole.forget("a", Selector(everything=True))
        request.join(10)
        time.sleep(0.3)
        store.flush()
        assert store.counts("a") == {"events": 0, "items": 0, "vectors": 0, "rankings": 0}
        whole.record("a", liked(1))
        whole.warmup(LONG)
        assert ids(whole.rerank("a", RerankQuery(films(5)), LONG))[0] == "f1"
        store.flush()
        assert store.counts("a")["vectors"] == 5, "and what comes after the forget is kept again"
        whole.close()


def test_a_space_whose_vectors_changed_length_is_not_compared(tmp_path: Path) -> None:
    def own(number: int, *vector: float) -> Candidate:
        return Candidate(Item(f"v{number}", f"Thing {number}"), vector=vector, vector_space="backend")

    mixed = (own(0, 1.0, 0.0), own(1, 0.0, 1.0, 0.5), own(2, 0.1, 0.9))
    with pipeline(tmp_path) as whole:
        whole.rerank("a", RerankQuery(mixed), LONG)
        whole.record(
            "a",
            [dataclasses.replace(event, item=c.item) for event, c in zip(liked(0, 1), mixed, strict=False)],
        )
        assert sorted(ids(whole.rerank("a", RerankQuery(mixed), LONG))) == ["v0", "v1", "v2"]


def test_an_item_of_nothing_but_control_strings_or_no_text_stops_nobody(tmp_path: Path) -> None:
    odd = (Candidate(Item("empty")), Candidate(Item("marks", "\u200b\u200b")))
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        answer = whole.rerank("a", RerankQuery((*odd, *films(5))), LONG)
    assert answer.degraded_reason == DegradedReason.UNSPECIFIED
    assert {result.id: result.tier for result in answer.results} == {
        "empty": 0, "marks": 0, "f0": 1, "f1": 1, "f2": 1, "f3": 1, "f4": 1,
    }  # fmt: skip
    assert answer.coverage == 1.0, "they need no vector, so none is missing"


def test_where_no_text_is_read_no_vector_is_missing(tmp_path: Path) -> None:
    """Nothing of the candidates, or nothing of what the user did, has a text."""
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        whole.record("b", [dataclasses.replace(liked(5)[0], item=Item("empty"))])
        answers = [
            whole.rerank("a", RerankQuery((Candidate(Item("x")), Candidate(Item("y")))), LONG),
            whole.rerank("b", RerankQuery(films(5)), LONG),
        ]
    for answer in answers:
        assert (answer.coverage, answer.degraded_reason) == (1.0, DegradedReason.UNSPECIFIED)
        assert {result.tier for result in answer.results} == {0}


def test_neighbours_of_what_was_liked_rise(tmp_path: Path) -> None:
    near = films(1, first=9)[0]._replace(neighbours=(Neighbour("f777", 1.0),))
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(777))
        answer = whole.rerank("a", RerankQuery((*films(9), near)), LONG)
    assert ids(answer)[0] == "f9"


def test_a_vector_of_the_backends_own_space_counts_once_an_item_with_one_was_picked(tmp_path: Path) -> None:
    def own(number: int, *vector: float) -> Candidate:
        return Candidate(Item(f"v{number}", f"Thing {number}"), vector=vector, vector_space="backend")

    things = (own(0, 1.0, 0.0), own(1, 0.0, 1.0), own(2, 0.1, 0.9))
    for reopened in (False, True):
        folder = tmp_path / str(reopened)
        with pipeline(folder) as whole:
            whole.rerank("a", RerankQuery(things), LONG)
            event = dataclasses.replace(liked(1)[0], item=things[1].item)
            whole.record("a", [event])
            if not reopened:
                assert ids(whole.rerank("a", RerankQuery(things), LONG))[:2] == ["v1", "v2"]
        with pipeline(folder) as whole:
            assert ids(whole.rerank("a", RerankQuery(things), LONG))[:2] == ["v1", "v2"]


def test_without_a_usable_pack_the_servers_order_stands_and_says_why(tmp_path: Path) -> None:
    with Store.open(tmp_path, key_source="file") as store:
        whole = Pipeline(store, Tiers())
        whole.record("a", liked(5))
        answer = whole.rerank("a", RerankQuery(films(9)), LONG)
        policy = Policy(blocked_tags=("crime",))
        blocked = whole.rerank("a", RerankQuery(films(9), policy=policy), LONG)
    assert ids(answer) == served(9)
    assert answer.degraded_reason == DegradedReason.PACK_INVALID
    assert list(blocked.blocked_ids) == [id_ for id_ in served(9) if film(int(id_[1:])).tags == ("Crime",)]
    assert ids(blocked) == [id_ for id_ in served(9) if id_ not in blocked.blocked_ids]


def test_what_is_not_shown_is_logged_with_the_rest(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(5))
        query = RerankQuery(films(9), policy=Policy(blocked_tags=("Crime",), pins=(Pin("f4", 0),)))
        answer = whole.rerank("a", query, LONG)
    assert answer.blocked_ids == ("f0", "f8")
    assert ids(answer)[0] == "f4"
    with Store.open(tmp_path, key_source="file") as store:
        logged = store.ranking("a", answer.ranking_id)
    assert logged is not None
    assert (logged.results, logged.blocked_ids) == (answer.results, answer.blocked_ids)


@pytest.mark.parametrize("known", [False, True])
def test_diversity_is_seen_to_for_a_newcomer_too(tmp_path: Path, known: bool) -> None:
    candidates = tuple(Candidate(film(number)) for number in (0, 4, 8, 12, 1, 2, 3))
    with pipeline(tmp_path) as whole:
        if known:
            whole.record("a", liked(16))
        plain = whole.rerank("a", RerankQuery(candidates), LONG)
        varied = whole.rerank("a", RerankQuery(candidates, policy=Policy(diversity=0.9)), LONG)
    assert len({film(int(id_[1:])).tags for id_ in ids(plain)[:4]}) == 1
    assert len({film(int(id_[1:])).tags for id_ in ids(varied)[:4]}) == 4
    assert varied.degraded_reason == plain.degraded_reason


def test_vectors_of_tier_1_keep_apart_what_has_no_tags(tmp_path: Path) -> None:
    """Two texts that are the same have the same vector, and nothing else tells that they are alike."""
    twin = Item("twin", "Film 29", tags=())
    candidates = (Candidate(twin), *(Candidate(Item(f"n{at}", f"Film {at}")) for at in (29, 31, 7, 8)))
    with pipeline(tmp_path, encoder=FakeEngine(), pack=small_pack(n_learned=1)) as whole:
        whole.record("a", [dataclasses.replace(liked(29)[0], item=twin)])
        plain = whole.rerank("a", RerankQuery(candidates), LONG)
        varied = whole.rerank("a", RerankQuery(candidates, policy=Policy(diversity=0.9)), LONG)
    assert set(ids(plain)[:2]) == {"twin", "n29"}
    assert set(ids(varied)[:2]) != {"twin", "n29"}


def test_a_policy_that_there_is_no_time_for_is_left_out_with_a_reason_but_blocks_hold(tmp_path: Path) -> None:
    policy = Policy(diversity=1.0, blocked_tags=("crime",), caps=(Cap(0, 2, tag="Comedy"),))
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        whole._lists._policy_paces.of("a").measured(1, 1e6)
        query = RerankQuery(films(9), policy=policy)
        *_, answer = whole.rerank_stream("a", query, Deadline.after_ms(5_000.0))
        plain = whole.rerank("a", RerankQuery(films(9)), LONG)
    assert answer.degraded_reason == DegradedReason.DEADLINE
    assert answer.coverage == 1.0
    assert answer.blocked_ids == ("f0", "f4", "f8")
    assert plain.degraded_reason == DegradedReason.UNSPECIFIED
    first = [film(int(id_[1:])).tags for id_ in ids(answer)[:2]]
    assert ("Comedy",) not in first


def test_exploration_tries_out_other_orders_and_none_leaves_the_order(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
        policy = Policy(exploration=1.0)
        plain = {tuple(ids(whole.rerank("a", RerankQuery(films(9)), LONG))) for _ in range(3)}
        tried = {tuple(ids(whole.rerank("a", RerankQuery(films(9), policy=policy), LONG))) for _ in range(9)}
    assert len(plain) == 1
    assert len(tried) > 1


def test_a_store_that_cannot_be_read_means_the_servers_order(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5))
    # The store is closed now: whatever the reason, reads fail.
    answer = whole.rerank("a", RerankQuery(films(9)), LONG)
    assert ids(answer) == served(9)
    assert answer.degraded_reason == DegradedReason.STORE_UNAVAILABLE


def test_a_ranking_is_logged_for_the_events_that_come_of_it(tmp_path: Path) -> None:
    with Store.open(tmp_path, key_source="file") as store:
        whole = Pipeline(store, Tiers())
        answer = whole.rerank("a", RerankQuery(films(5)), LONG)
        store.flush()
        logged = store.ranking("a", answer.ranking_id)
    assert logged is not None
    assert logged.results == answer.results


def test_the_same_request_gives_the_same_order(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(5, 9, 14))
        orders = {tuple(ids(whole.rerank("a", RerankQuery(films(50)), LONG))) for _ in range(5)}
    assert len(orders) == 1


def test_a_ranking_has_a_name_that_can_be_typed_as_it_is(tmp_path: Path) -> None:
    """A name that begins with a dash would be taken for an option."""
    with pipeline(tmp_path) as whole:
        names = {whole.rerank("a", RerankQuery(films(1)), LONG).ranking_id for _ in range(300)}
    assert len(names) == 300
    assert all(name.isalnum() for name in names)
