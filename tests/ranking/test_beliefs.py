"""What is believed of a user follows from the events behind it, and goes with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.ranking.beliefs import MAX_BELIEFS, beliefs
from edge_reranker.ranking.profile import Taste
from edge_reranker.types import Context, Event, EventType, Item

DAY_S = 86_400.0
L, D, H = EventType.LIKE, EventType.DISLIKE, EventType.HIDE


def event(name: str, kind: EventType, item: str, *tags: str, days: float = 0.0) -> Event:
    return Event(name, kind, 1e9 - days * DAY_S, Item(item, item.title(), tags=tags))


def context(*events: Event) -> Context:
    return Context(tuple(sorted(events, key=lambda each: each.occurred_at)))


def weights(*events: Event) -> dict[str, float]:
    return {each.topic: each.weight for each in beliefs(context(*events), Taste(), own="a")[0]}


events = st.lists(
    st.builds(
        lambda kind, number, tags, days: (kind, number, tuple(tags), days),
        st.sampled_from([L, EventType.CLICK, D, H, EventType.SEARCH]),
        st.integers(0, 5),
        st.lists(st.sampled_from(["Crime", "crime", "Comedy", "Drama"]), max_size=3),
        st.integers(0, 90),
    ),
    max_size=15,
)


@given(events)
def test_a_belief_is_no_stronger_than_what_is_behind_it(
    drawn: list[tuple[EventType, int, tuple[str, ...], int]],
) -> None:
    made = [
        event(f"e{at}", kind, f"i{number}", *tags, days=days)
        for at, (kind, number, tags, days) in enumerate(drawn)
    ]
    found, n_events = beliefs(context(*made), Taste(), own="a")
    assert n_events <= len(made)
    strength = [abs(each.weight) for each in found]
    assert strength == sorted(strength, reverse=True)
    for belief in found:
        assert abs(belief.weight) <= belief.share <= 1
        assert sum(each.weight for each in belief.events) == pytest.approx(belief.weight, abs=1e-12)


def test_likes_speak_for_a_topic_and_dislikes_and_hides_against() -> None:
    found = weights(
        event("1", L, "a", "Crime"), event("2", D, "b", "Horror"), event("3", H, "c", "Horror", "Gore")
    )
    assert found == pytest.approx({"horror": -2 / 3, "crime": 1 / 3, "gore": -1 / 3})


def test_an_old_event_counts_less() -> None:
    found = weights(event("1", L, "a", "Crime"), event("2", L, "b", "Drama", days=30))
    assert found == pytest.approx({"crime": 2 / 3, "drama": 1 / 3})


def test_a_dislike_takes_the_likes_of_its_item_back_and_a_later_like_the_dislike() -> None:
    liked, disliked = event("1", L, "a", "Crime", days=3), event("2", D, "a", "Crime", days=2)
    assert weights(liked, disliked) == {"crime": -1.0}
    assert weights(liked, disliked, event("3", L, "a", "Crime")) == {"crime": 1.0}


def test_each_event_behind_a_belief_is_named_with_whose_it_is() -> None:
    one, two = event("1", L, "a", "Crime", days=1), event("2", L, "b", "Crime")
    lent = Context((one, two), ("shop",), ("shop", "news"))
    (belief,), n_events = beliefs(lent, Taste(), own="news", muted=("crime",))
    assert n_events == 2
    assert belief.muted
    assert [(each.event_id, each.namespace, each.title) for each in belief.events] == [
        ("2", "news", "B"),
        ("1", "shop", "A"),
    ]


def test_there_is_an_end_to_beliefs() -> None:
    many = event("1", L, "a", *(f"t{n}" for n in range(60)))
    more = [event(str(n), L, f"i{n}", *(f"t{n}-{m}" for m in range(60))) for n in range(2, 8)]
    assert len(beliefs(context(many, *more), Taste(), own="a")[0]) == MAX_BELIEFS
    assert beliefs(Context(), Taste(), own="a") == ((), 0)
