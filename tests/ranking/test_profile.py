"""The profile: what recent events say about a user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.ranking.profile import Profile, Taste, profile
from edge_reranker.types import Context, Event, EventType, Item

DAY_S = 86_400.0


def event(item_id: str, day: float = 0.0, type: EventType = EventType.LIKE, **item: object) -> Event:
    return Event(f"{item_id}-{day}-{type}", type, 1e9 + day * DAY_S, item=Item(item_id, **item))  # type: ignore[arg-type]


def weight_of(found: Profile) -> dict[str, float]:
    return {item.id: float(w) for item, w in zip(found.items, found.weights, strict=True)}


def test_no_events_give_a_profile_that_knows_nothing() -> None:
    found = profile(Context())
    assert not found
    assert found.items == ()
    assert found.weights.shape == (0,)


@pytest.mark.parametrize("type", [EventType.IMPRESSION, EventType.SKIP, EventType.DISLIKE, EventType.HIDE])
def test_being_shown_or_refusing_an_item_is_no_liking(type: EventType) -> None:
    assert not profile(Context((event("a", type=type, title="Alien", tags=("Horror",)),)))


def test_a_like_counts_more_than_a_view_at_the_same_time() -> None:
    weights = weight_of(profile(Context((event("seen", type=EventType.VIEW), event("liked")))))
    assert weights["liked"] > weights["seen"] > 0


def test_an_event_one_half_life_older_counts_half() -> None:
    taste = Taste(half_life_days=10.0)
    weights = weight_of(profile(Context((event("old", 0.0), event("new", 10.0))), taste))
    assert weights["old"] == pytest.approx(weights["new"] / 2)


@given(st.lists(st.floats(0, 3000), min_size=2, max_size=20, unique=True))
def test_older_events_never_count_more(days: list[float]) -> None:
    days = sorted(days)
    context = Context(tuple(event(str(at), day) for at, day in enumerate(days)))
    weights = weight_of(profile(context))
    assert [weights[str(at)] for at in range(len(days))] == sorted(weights.values())


def test_a_user_who_was_away_for_years_is_still_known() -> None:
    recent = profile(Context((event("a", 0.0), event("b", 1.0))))
    long_ago = profile(Context((event("a", -9000.0), event("b", -8999.0))))
    np.testing.assert_array_equal(recent.weights, long_ago.weights)


def test_only_the_newest_events_that_count_are_used_and_impressions_take_no_room() -> None:
    likes = tuple(event(str(at), float(at)) for at in range(5))
    shown = tuple(event(f"shown{at}", 10.0 + at, EventType.IMPRESSION) for at in range(100))
    found = profile(Context(likes + shown), Taste(max_events=3))
    assert [item.id for item in found.items] == ["4", "3", "2"]


def test_hiding_an_item_takes_back_an_earlier_like_but_not_a_later_one() -> None:
    hidden = event("a", 1.0, EventType.HIDE)
    assert not profile(Context((event("a", 0.0), hidden)))
    assert profile(Context((hidden, event("a", 2.0))))


def test_several_events_about_one_item_make_one_item_with_their_sum() -> None:
    found = profile(
        Context((event("a", type=EventType.VIEW), event("a"), event("b"))),
        Taste(event_weights={EventType.VIEW: 0.5, EventType.LIKE: 1.0}),
    )
    assert weight_of(found) == pytest.approx({"a": 1.5 / 2.5, "b": 1.0 / 2.5})


def test_a_search_teaches_words_without_an_item() -> None:
    found = profile(Context((Event("s", EventType.SEARCH, 1e9, query="Jazz piano"),)))
    assert found
    assert set(found.words) == {"jazz", "piano"}
    assert found.items == ()


def test_tags_and_words_ignore_case_and_have_length_one() -> None:
    found = profile(Context((event("a", title="Star Wars", tags=("Sci-Fi",)), event("b", tags=("sci-fi",)))))
    assert found.tags == pytest.approx({"sci-fi": 1.0})
    assert set(found.words) == {"star", "wars"}
    assert sum(w * w for w in found.words.values()) == pytest.approx(1.0)
