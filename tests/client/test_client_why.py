"""Explain, profile, mute and unmute through the client: what it sends, what it gives back."""

from __future__ import annotations

import datetime

import pytest

from edge_reranker.types import Selector
from edge_reranker_client import (
    Belief,
    BeliefEvent,
    EdgeReranker,
    Explained,
    Explanation,
    Feature,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Profile,
    Reason,
)
from tests.server.fixtures import Running

AT = datetime.datetime(2017, 7, 14, 2, 40, tzinfo=datetime.UTC)


def test_an_explanation_comes_back_whole(owner: EdgeReranker, served: Running) -> None:
    reason = Reason(
        *("e1", "default", "LIKE", "Heat (1995)", "i1", AT, 0.75, 3, "tags"),
        "because you liked Heat (1995) on 14 July 2017",
    )
    parts = {"tags": 1.5, "server_rank": -0.25}
    assert owner.explain("ranking-1", ["b", "a"]) == Explained(
        (
            Explanation("b", 1.25, 1, 4, 0, 1, parts, (reason,), "Casino (1995)", ("Crime",)),
            Explanation("a", 0.0, 0, None, None, None, {}, (), "", ()),
        ),
        (Feature("server_rank", "server", "its place"), Feature("tags", "history", "its topics")),
        "DEADLINE",
        "NO_MODEL",
        reading_held=True,
    )
    assert served.core.explained == [("default", "ranking-1", ("b", "a"))]


def test_what_a_reason_names_is_forgotten_and_muted_in_one_step(owner: EdgeReranker, served: Running) -> None:
    (first, _) = owner.explain("ranking-1").explanations
    owner.forget_event(first.reasons[0])
    assert served.core.forgets == [("default", Selector(event_id="e1"), False)]
    assert owner.mute(first.topics[0]) == ("crime",)
    owner.forget_event(owner.profile().beliefs[0].events[0])
    assert served.core.forgets[1] == served.core.forgets[0]


def test_a_profile_comes_back_whole_and_topics_are_muted_by_namespace(
    owner: EdgeReranker, served: Running
) -> None:
    served.core.names.add("news")
    assert owner.mute("Horror", namespace="news") == ("horror",)
    assert owner.mute("Drama", namespace="news") == ("drama", "horror")
    event = BeliefEvent("e1", "default", "HIDE", "Heat (1995)", "i1", AT, -0.5)
    belief = Belief("crime", -0.5, 0.75, True, (event,))
    assert owner.profile(namespace="news") == Profile((belief,), ("drama", "horror"), 3)
    assert owner.profile().muted_topics == ()
    assert owner.unmute("HORROR", namespace="news") == ("drama",)
    assert served.core.muted == {"news": {"drama"}}


def test_only_the_owner_may_ask_why(app: EdgeReranker) -> None:
    for call in (
        lambda: app.explain("ranking-1"),
        app.profile,
        lambda: app.mute("x"),
        lambda: app.unmute("x"),
    ):
        with pytest.raises(PermissionDenied):
            call()  # type: ignore[no-untyped-call]


def test_a_namespace_that_is_not_there_is_named(owner: EdgeReranker) -> None:
    with pytest.raises(NotFound, match="nobody"):
        owner.explain("ranking-1", namespace="nobody")
    with pytest.raises(NotFound, match="nobody"):
        owner.mute("x", namespace="nobody")


def test_what_no_message_can_carry_is_refused_by_name(owner: EdgeReranker, served: Running) -> None:
    for ids, says in (("abc", "ids: 'abc' is not a list"), (["a", 7], r"ids\[1\]: 7 is not valid Unicode")):
        with pytest.raises(InvalidArgument, match=says):
            owner.explain("ranking-1", ids)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="topic: 7 is not"):
        owner.mute(7)  # type: ignore[arg-type]
    assert served.core.explained == []
