"""Retention through the client: what it sends, what it gives back, what it refuses."""

from __future__ import annotations

import datetime

import pytest

from edge_reranker import types
from edge_reranker_client import (
    EdgeReranker,
    InvalidArgument,
    PermissionDenied,
    Retention,
    RetentionStatus,
    TypeRetention,
)
from tests.server.fixtures import Running


def test_a_rule_comes_back_as_it_was_set_its_types_in_order(owner: EdgeReranker, served: Running) -> None:
    likes, views = TypeRetention("LIKE", max_events=50), TypeRetention("VIEW", 7)
    answer = owner.set_retention(Retention(30, 1_000, [likes, views]))
    assert answer == Retention(30, 1_000, (views, likes))
    assert owner.retention() == RetentionStatus(
        answer, datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.UTC), sweeping=False
    )
    by_type = (types.TypeRetention(types.EventType.VIEW, 7), types.TypeRetention(types.EventType.LIKE, 0, 50))
    assert served.core.rules == {"default": types.Retention(30, 1_000, by_type)}


def test_a_mapping_is_a_rule_too_and_each_namespace_has_its_own(owner: EdgeReranker, served: Running) -> None:
    served.core.names.add("a")
    owner.set_retention({"max_age_days": 3, "by_type": [{"type": "skip", "max_age_days": 1}]}, namespace="a")
    assert owner.retention(namespace="a").retention == Retention(3, by_type=(TypeRetention("SKIP", 1),))
    assert owner.retention().retention == Retention()


def test_an_app_may_not_say_how_long_events_are_kept(app: EdgeReranker) -> None:
    with pytest.raises(PermissionDenied):
        app.set_retention(Retention(1))
    with pytest.raises(PermissionDenied):
        app.retention()


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (7, "retention: 7 is not a Retention or a mapping"),
        (
            {"days": 7},
            "retention: there is no field 'days'; a Retention has max_age_days, max_events, by_type",
        ),
        (Retention(-1), "retention.max_age_days: -1 is not a whole number from 0 to 4,294,967,295"),
        (
            Retention(by_type=[TypeRetention("ADORE", 1)]),
            "retention.by_type[0].type: 'ADORE' is not one of IMPRESSION, VIEW",
        ),
        (
            Retention(by_type=[TypeRetention("LIKE", max_events=1.5)]),  # type: ignore[arg-type]
            "retention.by_type[0].max_events: 1.5 is not a whole number",
        ),
        (Retention(by_type="LIKE"), "retention.by_type: 'LIKE' is not a list of rules for types"),  # type: ignore[arg-type]
    ],
)
def test_what_no_rule_can_have_is_refused_by_name(
    owner: EdgeReranker, served: Running, rule: Retention, says: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        owner.set_retention(rule)
    assert str(caught.value).startswith(says)
    assert served.core.rules == {}
