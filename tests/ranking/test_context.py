"""Contexts: what is told apart, what tells anything, and what it then says of candidates."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edge_reranker.ranking import context, features, fusion
from edge_reranker.ranking.context import Contexts, Informative, contexts, informative, placed
from edge_reranker.ranking.profile import profile
from edge_reranker.types import Candidate, Context, Event, EventType, Item, RerankQuery

MONDAY_S = 1_700_438_400.0  # 2023-11-20T00:00:00Z
HOUR_S, DAY_S = 3_600.0, 86_400.0
TAGS = tuple(f"t{at}" for at in range(10))


def event(name: str, at_s: float, *tags: str, kind: EventType = EventType.LIKE, **more: object) -> Event:
    return Event(name, kind, at_s, Item(name, tags=tags), **more)  # type: ignore[arg-type]


def history(n: int, seed: int, planted: float = 0.0, per_visit: int = 1, mood: float = 0.0) -> list[Event]:
    """Visits at any hour, ``per_visit`` likes each with a ``mood`` of its own; in the evening, ``planted`` of
    the likes are of other topics.
    """
    rng = np.random.default_rng(seed)
    usual, evening = rng.dirichlet(np.ones(10)), rng.dirichlet(np.ones(10) * 0.3)
    events: list[Event] = []
    at_s = MONDAY_S
    while len(events) < n:
        at_s += rng.uniform(3, 30) * HOUR_S
        visit = rng.dirichlet(np.ones(10) * 0.3)
        for at in range(min(per_visit, n - len(events))):
            now_s = at_s + 60 * at
            chances = (1 - mood) * usual + mood * visit
            if time.gmtime(now_s).tm_hour >= 18:
                chances = (1 - planted) * chances + planted * evening
            tag = TAGS[rng.choice(10, p=chances / chances.sum())]
            surface = str(rng.choice(["home", "search"]))
            events.append(event(f"e{len(events)}", now_s, tag, surface=surface))
    return events


def of(found: Sequence[Informative], name: str, about: str = "topics") -> Informative:
    return next(each for each in found if (each.name, each.about) == (name, about))


def evenings(n_days: int = 60) -> list[Event]:
    """Every morning news, every evening films."""
    return [
        event(f"{kind}{day}", MONDAY_S + day * DAY_S + hour * HOUR_S, kind)
        for day in range(n_days)
        for hour, kind in ((8, "news"), (20, "film"))
    ]


def test_an_event_knows_its_part_of_the_day_surface_depth_and_what_the_app_told() -> None:
    first = event("a", MONDAY_S + 7 * HOUR_S, surface="home", context={"battery": "low"})
    second = event("b", first.occurred_at + 60)
    later = event("c", MONDAY_S + 5 * DAY_S + 23 * HOUR_S)
    found = [each.values for each in placed([second, later, first], time.gmtime)]
    assert found[0] == {
        "hour": "morning", "weekday": "weekday", "surface": "home", "depth": "start", "context.battery": "low"
    }  # fmt: skip
    assert found[1] == {"hour": "morning", "weekday": "weekday", "depth": "early"}
    assert found[2] == {"hour": "evening", "weekday": "weekend", "depth": "start"}


def test_a_visit_ends_after_half_an_hour_or_with_its_session() -> None:
    steps = (("s", 0), ("s", 1_700), ("t", 1_750), ("s", 1_800), ("s", 5_000))
    events = [event(str(at), MONDAY_S + at, session_id=session) for session, at in steps]
    assert [each.visit for each in placed(events)] == [0, 0, 1, 0, 2]
    assert [each.values["depth"] for each in placed(events)] == ["start", "early", "start", "early", "start"]


def test_events_of_one_moment_are_equally_deep() -> None:
    events = [event(str(at), MONDAY_S) for at in range(9)]
    assert {each.values["depth"] for each in placed(events)} == {"start"}


def test_the_hour_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = event("a", MONDAY_S + 12 * HOUR_S)
    for zone, part in (("UTC", "afternoon"), ("Asia/Tokyo", "evening"), ("America/Los_Angeles", "night")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert placed([noon])[0].values["hour"] == part
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.mark.parametrize("shape", [{}, {"per_visit": 8, "mood": 0.8}])
def test_where_nothing_is_planted_nothing_is_found(shape: dict[str, float]) -> None:
    """Each user looks at three or four features; of 80, more than 9 finds would be rare at 5 %.

    Likes of one visit are alike: dealt out one by one, they would show an hour or a depth for most users.
    """
    finds = [
        any(each.used for each in informative(history(120, seed, **shape), local=time.gmtime))  # type: ignore[arg-type]
        for seed in range(80)
    ]
    assert sum(finds) <= 9


def test_a_planted_dependence_is_found_from_about_a_hundred_events_on() -> None:
    found = [of(informative(history(150, seed, 0.9), local=time.gmtime), "hour").used for seed in range(20)]
    assert sum(found) >= 16
    few = [informative(history(6, seed, 0.9), local=time.gmtime) for seed in range(5)]
    assert not any(each.tells for found in few for each in found)


def test_the_order_in_which_events_come_changes_nothing() -> None:
    events = history(120, 3, 0.9)
    ties = [replace(each, occurred_at=each.occurred_at // DAY_S * DAY_S) for each in events]
    for each in (events, ties):
        mixed = random.Random(1).sample(each, len(each))
        assert informative(each) == informative(mixed)


def test_whether_the_user_engages_is_told_where_both_are_there_but_never_used() -> None:
    events = [
        event(f"{day}-{at}", MONDAY_S + day * DAY_S + hour * HOUR_S + at, "t", kind=kind)
        for day in range(40)
        for hour, kind in ((8, EventType.CLICK), (20, EventType.IMPRESSION))
        for at in range(2)
    ]
    found = of(informative(events, local=time.gmtime), "hour", "engagement")
    assert found.tells
    assert not found.used
    assert found.bits == pytest.approx(1.0, abs=0.05)
    taken = [each for each in events if each.type is EventType.CLICK]
    assert all(each.about == "topics" for each in informative(taken))


def test_what_was_shown_and_then_taken_was_not_passed_over() -> None:
    shown = [event(f"s{day}", MONDAY_S + day * DAY_S, "t", kind=EventType.IMPRESSION) for day in range(20)]
    taken = [
        Event(f"c{day}", EventType.CLICK, MONDAY_S + day * DAY_S + 5, Item(f"s{day}", tags=("t",)))
        for day in range(20)
    ]
    assert all(each.about == "topics" for each in informative(shown + taken))


def test_the_column_leans_to_what_is_liked_at_this_hour() -> None:
    told = contexts(Context(tuple(evenings())), local=time.gmtime)
    assert [each.name for each in told.found if each.used] == ["hour"]
    candidates = [
        Candidate(Item("a", tags=("Film",))),
        Candidate(Item("b", tags=("news",))),
        Candidate(Item("c")),
    ]
    query = RerankQuery(tuple(candidates))
    day_s = MONDAY_S + 61 * DAY_S
    evening = told.column(candidates, query, day_s + 21 * HOUR_S, time.gmtime)
    morning = told.column(candidates, query, day_s + 9 * HOUR_S, time.gmtime)
    assert evening[0] > 0.1 > 0.0 > evening[1]
    assert morning[1] > 0.1 > 0.0 > morning[0]
    assert evening[2] == morning[2] == 0.0
    assert (told.column(candidates, query, day_s + 2 * HOUR_S, time.gmtime) == 0).all()  # nothing is known


def test_the_column_is_nothing_where_no_context_tells_anything() -> None:
    told = contexts(Context(tuple(history(100, 0))), local=time.gmtime)
    candidates = tuple(Candidate(Item(tag, tags=(tag,))) for tag in TAGS)
    assert not told.leaning
    assert (told.column(candidates, RerankQuery(candidates), MONDAY_S) == 0).all()
    assert (Contexts().column(candidates, RerankQuery(candidates), MONDAY_S) == 0).all()


def test_the_column_stands_among_the_features_as_it_is() -> None:
    """Every event on the surface of its topic: it counts there whatever the hour."""
    events = [
        event(f"{kind}{day}", MONDAY_S + day * DAY_S, kind, surface=kind)
        for day in range(30)
        for kind in ("news", "film")
    ]
    known = Context(tuple(events))
    told = contexts(known)
    candidates = (Candidate(Item("a", tags=("film",))), Candidate(Item("b", tags=("news",))))
    query = RerankQuery(candidates, surface="film")
    matrix = features.features(profile(known), query, now_s=MONDAY_S + 40 * DAY_S, contexts=told)
    at = features.FEATURES.index("context_tags")
    assert matrix[0, at] > 0 > matrix[1, at]
    assert matrix[:, at] == pytest.approx(told.column(candidates, query, MONDAY_S + 40 * DAY_S))


def test_a_request_is_as_deep_as_its_session_is_now() -> None:
    events = [
        event(f"{kind}{day}-{at}", MONDAY_S + day * DAY_S + at * 60, kind, session_id=f"s{day}")
        for day in range(40)
        for at, kind in enumerate(["news", *["film"] * 5])
    ]
    told = contexts(Context(tuple(events[-200:])))
    assert [each.name for each in told.found if each.used] == ["depth"]
    now_s = events[-1].occurred_at + 60
    asked = RerankQuery((Candidate(Item("a")),), session_id="s39")
    assert told.of_request(asked, now_s)["depth"] == "deep"
    assert told.of_request(asked, now_s + 2 * HOUR_S)["depth"] == "start"
    assert told.of_request(replace(asked, session_id="new"), now_s)["depth"] == "start"


def test_what_the_app_tells_can_be_informative() -> None:
    events = [
        event(f"{day}-{at}", MONDAY_S + day * DAY_S + at * 4 * HOUR_S, tag, context={"network": network})
        for day in range(30)
        for at, (tag, network) in enumerate((("film", "wifi"), ("news", "mobile"), ("film", "wifi")))
    ]
    told = contexts(Context(tuple(events)))
    assert of(told.found, "context.network").used
    candidates = (Candidate(Item("a", tags=("film",))), Candidate(Item("b", tags=("news",))))
    query = RerankQuery(candidates, context={"network": "mobile"})
    column = told.column(candidates, query, MONDAY_S + 31 * DAY_S)
    assert column[1] > column[0]


def test_after_a_forget_the_contexts_are_those_of_who_never_saw_it() -> None:
    events = evenings()
    extra = event("x", MONDAY_S + 30 * DAY_S + 20 * HOUR_S, "gossip")
    seen = sorted([*events, extra], key=lambda each: each.occurred_at)
    assert contexts(Context(tuple(seen))) != contexts(Context(tuple(events)))
    left = [each for each in seen if each.event_id != "x"]
    assert contexts(Context(tuple(left))) == contexts(Context(tuple(events)))


def test_what_was_found_before_changes_nothing() -> None:
    """Event after event, with what was found before and without; mostly, it was found in the same."""
    events = [*history(140, 4, 0.9), *evenings(45)]
    events.sort(key=lambda each: each.occurred_at)
    told, n_same = Contexts(), 0
    for n in range(150, 230):
        window = Context(tuple(events[max(0, n - context.MAX_EVENTS) : n]))
        after = contexts(window, local=time.gmtime, before=told)
        assert after == contexts(window, local=time.gmtime)
        n_same += after.found is told.found
        told = after
    assert told.found
    assert n_same > 20


def test_days_that_may_lack_events_are_not_tested() -> None:
    """Nor today; but somebody who did it all in two days is tested by what there is."""
    found = [event(f"{day}", MONDAY_S + day * DAY_S + HOUR_S, "t") for day in range(10)]
    assert [each.event.event_id for each in context._settled(placed(found), full=False)] == list("012345678")
    assert [each.event.event_id for each in context._settled(placed(found), full=True)] == list("12345678")
    assert len(context._settled(placed(found[:2]), full=True)) == 2


def test_what_was_taken_back_says_nothing_of_its_context() -> None:
    events = evenings()
    hidden = [replace(each, event_id=f"h{at}", type=EventType.HIDE, occurred_at=MONDAY_S + 90 * DAY_S)
              for at, each in enumerate(events)]  # fmt: skip
    assert contexts(Context((*events, *hidden))) == Contexts()


def test_many_values_are_told_apart_up_to_a_bound() -> None:
    assert context.kept_values(["a", "b"]) == {"a", "b"}
    kept = context.kept_values([f"{at:02}" for at in range(30)] + ["29"])
    assert kept == {"29", "00", "01", "02", "03", "04", "05", "(other)"}


def test_a_prior_for_a_column_without_a_weight_changes_no_order() -> None:
    weights = fusion.Weights(("server_rank", "tags"), np.array([0.1, 2.0]), np.diag([0.5, 0.25]))
    wider = fusion.with_priors(weights, context.PRIORS)
    assert wider.names == ("server_rank", "tags", "context_tags")
    assert wider.covariance == pytest.approx(np.diag([0.5, 0.25, 0.25]))
    matrix = np.random.default_rng(0).normal(size=(5, 3))
    names = ("server_rank", "tags", "context_tags")
    assert fusion.fuse(matrix, names, wider) == pytest.approx(fusion.fuse(matrix, names, weights))
    assert fusion.with_priors(wider, context.PRIORS).names == wider.names
