"""Insights: breadth of taste, what stands out where, drift."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from edge_reranker.ranking.insights import insights
from edge_reranker.types import Event, EventType, Item
from tests.ranking.test_context import DAY_S, HOUR_S, MONDAY_S, evenings, event


def weeks(seed: int, moved: bool) -> tuple[list[Event], float]:
    """Ten weeks of two likes a day, one visit each; in the last, of other topics if ``moved``."""
    rng = np.random.default_rng(seed)
    usual, new = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(8))
    events = []
    for day in range(70):
        chances = new if moved and day >= 63 else usual
        for part in range(2):
            at_s = MONDAY_S + day * DAY_S + (9 + 5 * part) * HOUR_S
            events.append(event(f"{day}-{part}", at_s, f"t{rng.choice(8, p=chances)}"))
    return events, MONDAY_S + 70 * DAY_S


def test_four_topics_equally_often_are_two_bits() -> None:
    events = [event(f"e{at}", MONDAY_S + at * HOUR_S, f"t{at % 4}") for at in range(80)]
    found = insights(events, MONDAY_S + 10 * DAY_S)
    assert found.bits == pytest.approx(2.0)
    assert found.n_topics == pytest.approx(4.0)
    assert [each.share for each in found.topics] == pytest.approx([0.25] * 4)
    assert all(each.low <= each.share <= each.high for each in found.topics)
    assert (found.n_events, found.n_telling) == (80, 80)


def test_many_rare_topics_all_count() -> None:
    events = [event(f"e{at}", MONDAY_S + at * HOUR_S, f"t{at % 64}") for at in range(640)]
    assert insights(events, MONDAY_S + 30 * DAY_S).n_topics == pytest.approx(64.0)


def test_of_nothing_nothing_is_said() -> None:
    shown = [event("a", MONDAY_S, "t", kind=EventType.IMPRESSION), Event("b", EventType.LIKE, 1e9, Item("b"))]
    for events in ([], shown):
        found = insights(events, MONDAY_S)
        assert (found.n_telling, found.bits, found.n_topics) == (0, 0.0, 0.0)
        assert not found.topics
        assert not found.stands_out
        assert not any(each.tells for each in found.contexts)
        assert not found.drift.is_drifting


def test_what_stands_out_is_said_of_the_features_that_tell() -> None:
    found = insights(evenings(), MONDAY_S + 60 * DAY_S, local=time.gmtime)
    assert [each.name for each in found.contexts if each.tells] == ["hour"]
    assert [(each.value, each.topic) for each in found.stands_out] == [
        ("evening", "film"),
        ("morning", "news"),
    ]
    assert {(each.share, each.usual, each.n_events) for each in found.stands_out} == {(1.0, 0.5, 60)}


def test_when_the_user_engages_is_said_in_shares() -> None:
    events = [
        event(f"{day}-{hour}", MONDAY_S + day * DAY_S + hour * HOUR_S, "t", kind=kind)
        for day in range(30)
        for hour, kind in ((8, EventType.CLICK), (20, EventType.SKIP), (21, EventType.SKIP))
    ]
    found = insights(events, MONDAY_S + 40 * DAY_S, local=time.gmtime)
    (told,) = [each for each in found.stands_out if each.name == "hour"]
    assert (told.value, told.topic, told.share, told.n_events) == ("morning", "engaged", 1.0, 30)
    assert told.usual == pytest.approx(1 / 3)


def test_drift_is_said_where_it_is_and_seldom_where_it_is_not() -> None:
    """Of 40 who stay as they are, more than 6 would be a rare chance at 5 %."""
    moved = [insights(*weeks(seed, True)).drift for seed in range(12)]
    same = [insights(*weeks(seed, False)).drift for seed in range(40)]
    assert sum(each.is_drifting for each in moved) >= 9
    assert sum(each.is_drifting for each in same) <= 6
    assert (moved[0].n_now, moved[0].n_before) == (14, 126)
    assert {each.topic for each in moved[0].now} == {each.topic for each in moved[0].before}


def test_there_is_no_drift_without_a_week_before() -> None:
    events = [event(f"e{at}", MONDAY_S + at * HOUR_S, "t") for at in range(20)]
    found = insights(events, MONDAY_S + DAY_S).drift
    assert (found.n_now, found.n_before, found.p) == (20, 0, 1.0)


def test_the_order_in_which_events_come_changes_nothing() -> None:
    events, now_s = weeks(0, True)
    assert insights(random.Random(2).sample(events, len(events)), now_s) == insights(events, now_s)
