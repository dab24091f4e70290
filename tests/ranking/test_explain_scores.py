"""What a score is made of, which events can have moved it, and how that is said."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_reranker.ranking import explain
from edge_reranker.ranking.features import FEATURES
from edge_reranker.ranking.fusion import Weights, fuse
from edge_reranker.ranking.partly import EXPECTED
from edge_reranker.ranking.profile import Taste, profile
from edge_reranker.types import Context, Event, EventType, Item

UTC = datetime.UTC
NAMES = (*FEATURES, "price")
NUMBERS = st.floats(-20, 20, width=32)
ITEM = Item("i", "Heat  (1995)\n")
# A Thursday.
NOW_S = datetime.datetime(2026, 11, 26, 2, 0, tzinfo=UTC).timestamp()
DAY_S = 86_400.0

matrices = arrays.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(len(NAMES))), elements=NUMBERS)
means = arrays.arrays(np.float64, len(NAMES), elements=NUMBERS)


@given(matrices, means)
def test_contributions_sum_to_the_score(matrix: np.ndarray, mean: np.ndarray) -> None:
    weights = Weights(NAMES, mean, np.eye(len(NAMES)))
    scored = explain.scored(matrix, NAMES, weights)
    assert np.array_equal(scored.scores, fuse(matrix, NAMES, weights))
    for parts, score in zip(scored.parts, scored.scores, strict=True):
        told = explain.contributions(parts, NAMES)
        assert sum(each.value for each in told) == pytest.approx(score, abs=1e-9)
        sizes = [abs(each.value) for each in told]
        assert sizes == sorted(sizes, reverse=True)
        assert 0.0 not in sizes
    assert sorted(scored.place) == list(range(len(matrix)))
    best = np.argmin(scored.place)
    assert scored.scores[best] == scored.scores.max()


@given(matrices, means)
def test_nothing_changed_is_no_change(matrix: np.ndarray, mean: np.ndarray) -> None:
    scored = explain.scored(matrix, NAMES, Weights(NAMES, mean, np.eye(len(NAMES))))
    change = explain.change(scored, scored)
    assert not change.score.any()
    assert not change.place.any()


def test_a_change_names_the_feature_by_which_it_came() -> None:
    names = ("server_rank", "tags", "content")
    weights = Weights(names, np.array([0.0, 1.0, 2.0]), np.eye(3))
    now = explain.scored(np.array([[0.0, 3.0, 1.0], [0.0, 0.0, 0.0]]), names, weights)
    without = explain.scored(np.array([[0.0, 0.5, 1.5], [0.0, 1.0, 1.0]]), names, weights)
    change = explain.change(now, without)
    assert change.score.tolist() == [1.5, -3.0]
    assert [names[at] for at in change.feature] == ["tags", "content"]
    assert change.place.tolist() == [0, 0]
    assert explain.change(now, explain.scored(now.parts, names, weights, as_served=True)).place.tolist() == [
        0,
        0,
    ]


events = st.lists(
    st.builds(
        lambda kind, number, days: (kind, number, days),
        st.sampled_from([kind for kind in EventType if kind is not EventType.UNSPECIFIED]),
        st.integers(0, 4),
        st.integers(0, 90),
    ),
    max_size=14,
)


@given(events, st.integers(1, 6))
def test_an_event_that_is_not_told_of_can_be_left_out_for_nothing(
    drawn: list[tuple[EventType, int, int]], max_events: int
) -> None:
    taste = Taste(max_events=max_events)
    made = []
    for at, (kind, number, days) in enumerate(drawn):
        item = None if kind is EventType.SEARCH else Item(f"i{number}", f"Film {number}", tags=("a", "b"))
        made.append(Event(f"e{at}", kind, NOW_S - DAY_S * days, item, "" if item else f"film {number}"))
    context = Context(tuple(made), ("other",), tuple("own" for _ in made))
    told = set(explain.telling(context, taste))
    as_is = profile(context, taste)
    for at in range(len(made)):
        less = explain.without(context, at)
        assert len(less.events) == len(less.namespaces) == len(made) - 1
        found = profile(less, taste)
        same = (
            (found.items, dict(found.words), dict(found.tags))
            == (as_is.items, dict(as_is.words), dict(as_is.tags))
            and np.array_equal(found.weights, as_is.weights)
            and np.array_equal(found.recent_weights, as_is.recent_weights)
        )
        assert same or at in told


@pytest.mark.parametrize(
    ("kind", "score_change", "by", "says"),
    [
        (EventType.LIKE, 0.5, "tags", "because you liked Heat (1995) today"),
        (EventType.LIKE, -0.5, "tags", "although you liked Heat (1995) today"),
        (EventType.LIKE, 0.5, "item_to_item", "like others who liked Heat (1995), as you did today"),
        (EventType.LIKE, -0.5, "item_to_item", "although you liked Heat (1995) today"),
        (EventType.DISLIKE, 0.5, "content", "because you disliked Heat (1995) today"),
        (EventType.PURCHASE, 0.5, "content", "because you bought Heat (1995) today"),
        (EventType.DWELL, 0.5, "content", "because you spent time with Heat (1995) today"),
        (EventType.HIDE, -0.5, "content", "although you hid Heat (1995) today"),
    ],
)
def test_what_an_event_did_is_said_in_words(kind: EventType, score_change: float, by: str, says: str) -> None:
    assert explain.phrase(Event("e", kind, NOW_S, ITEM), score_change, by, now_s=NOW_S, zone=UTC) == says


def test_a_search_is_named_by_its_words_and_an_item_without_a_title_by_its_id() -> None:
    search = Event("e", EventType.SEARCH, NOW_S - DAY_S, None, "film  noir")
    said = explain.phrase(search, 1.0, "history_text", now_s=NOW_S, zone=UTC)
    assert said == 'because you searched for "film noir" yesterday'
    assert explain.title(Event("e", EventType.LIKE, NOW_S, Item("i7"))) == "i7"
    assert len(explain.title(Event("e", EventType.LIKE, NOW_S, Item("i", "x" * 200)))) == 80


@pytest.mark.parametrize(
    ("days_ago", "says"),
    [
        (-1, "on 27 November 2026"),
        (0, "today"),
        (1, "yesterday"),
        (2, "on Tuesday"),
        (6, "on Friday"),
        (7, "on 19 November 2026"),
        (365, "on 26 November 2025"),
    ],
)
def test_a_day_is_told_so_that_it_can_be_one_day_only(days_ago: int, says: str) -> None:
    assert explain.day(NOW_S - DAY_S * days_ago, NOW_S, UTC) == says


def test_a_day_ends_where_the_device_is() -> None:
    """Two in the morning in UTC is still the evening before in New York."""
    assert explain.day(NOW_S - 3 * 3600, NOW_S, UTC) == "yesterday"
    assert explain.day(NOW_S - 3 * 3600, NOW_S, ZoneInfo("America/New_York")) == "today"


def test_every_feature_has_words_of_its_own() -> None:
    assert set(explain.DESCRIPTIONS) == {*FEATURES, EXPECTED}
    texts = [explain.feature(name).description for name in FEATURES]
    assert len(set(texts)) == len(texts)
    assert explain.feature("price", ("price",)).description == 'the app\'s own number "price"'
    assert explain.feature("price", ("price",)).group == "app"
