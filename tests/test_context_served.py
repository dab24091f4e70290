"""A context that tells something reaches the order once it has a weight, and goes with its events."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.deadline import Deadline
from edge_reranker.pipeline import Pipeline
from edge_reranker.ranking import context, fusion
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Event, EventType, Item, RerankQuery, Selector
from tests.parts import small_pack

_NOW_S = 1e9
_DAY_S = 86_400.0


def _like(name: str, day: int, tag: str, network: str) -> Event:
    item = Item(f"{name}{day}", tags=(tag,))
    at_s = _NOW_S - (60 - day) * _DAY_S
    return Event(f"{name}{day}", EventType.LIKE, at_s, item, context={"network": network})


# At home films, on the way music.
EVENTS = [
    each
    for day in range(30)
    for each in (_like("f", day, "Drama", "wifi"), _like("m", day, "Comedy", "mobile"))
]
CANDIDATES = tuple(Candidate(Item(tag, tag, tags=(tag,))) for tag in ("Horror", "Comedy", "Drama", "Crime"))


@contextlib.contextmanager
def service(folder: Path, weight: float | None) -> Iterator[Pipeline]:
    """Tier 0, with a weight for the column, or with none as a pack has it."""
    with Store.open(folder, key_source="file") as store:
        tiers = make_tiers(small_pack(), store, None, None)
        if weight is not None:
            assert tiers.without_model is not None
            wider = fusion.with_priors(tiers.without_model, context.PRIORS)
            mean = np.where([name in context.PRIORS for name in wider.names], weight, wider.mean)
            tiers = dataclasses.replace(tiers, without_model=dataclasses.replace(wider, mean=mean))
        whole = Pipeline(store, tiers, clock=lambda: _NOW_S)
        try:
            yield whole
        finally:
            whole.close()


def _order(whole: Pipeline, network: str = "") -> list[str]:
    told = {"network": network} if network else {}
    ranking = whole.rerank("default", RerankQuery(CANDIDATES, context=told), Deadline())
    return [each.id for each in ranking.results]


def test_the_order_goes_by_the_context_once_feedback_gave_it_a_weight(tmp_path: Path) -> None:
    with service(tmp_path, 20.0) as whole:
        whole.record("default", EVENTS)
        assert _order(whole, "wifi")[0] == "Drama"
        assert _order(whole, "mobile")[0] == "Comedy"
        assert _order(whole, "satellite") == _order(whole)


@pytest.mark.parametrize("weight", [None, 0.0])
def test_without_a_weight_the_context_has_no_say(tmp_path: Path, weight: float | None) -> None:
    with service(tmp_path, weight) as whole:
        whole.record("default", EVENTS)
        assert _order(whole, "wifi") == _order(whole, "mobile") == _order(whole)


def test_what_was_forgotten_tells_nothing_of_any_context(tmp_path: Path) -> None:
    kept = [each for each in EVENTS if each.context["network"] == "wifi"]
    with service(tmp_path / "never", 20.0) as whole:
        whole.record("default", kept)
        never = whole._users.now(whole._current.value.tiers, "default").contexts
        order = _order(whole, "wifi")
    with service(tmp_path / "once", 20.0) as whole:
        whole.record("default", EVENTS)
        assert whole._users.now(whole._current.value.tiers, "default").contexts.leaning
        whole.forget("default", Selector(tag="comedy"))
        assert whole._users.now(whole._current.value.tiers, "default").contexts == never
        assert _order(whole, "wifi") == order
