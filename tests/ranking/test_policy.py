"""List policy: what the app and the user asked for holds, and nothing is lost."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawing
from hypothesis import settings
from hypothesis import strategies as st

from edge_reranker.evaluation import beyond
from edge_reranker.ranking import fusion, policy
from edge_reranker.ranking.learning.shown import examination
from edge_reranker.ranking.policy import Drawn, Given, exploration
from edge_reranker.ranking.policy.apply import n_places
from edge_reranker.types import Cap, DiversityMethod, Pin
from tests.ranking.policies import DAY, NOW_S, caps, given, lists


def example(*strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property over drawn lists; how long one takes on a busy machine says nothing."""
    return lambda test: settings(max_examples=80, deadline=None)(drawing(*strategies)(test))


def tags_of(case: Given, at: int) -> set[str]:
    return {tag.casefold() for tag in case.query.candidates[at].item.tags}


def pinned(case: Given) -> set[int]:
    return {int(pin.id) for pin in case.query.policy.pins}


def shown(case: Given) -> list[int]:
    return policy.apply(case).order.tolist()


@example(lists(), st.booleans())
def test_shown_and_blocked_are_all_candidates_each_once(case: Given, soft: bool) -> None:
    found = policy.apply(case, soft=soft)
    assert sorted([*found.order, *found.blocked]) == list(range(len(case.scores)))
    assert found.blocked.tolist() == sorted(found.blocked)


@example(lists(), st.booleans())
def test_who_has_a_muted_topic_is_not_shown_and_who_has_a_blocked_tag_only_when_pinned(
    case: Given, soft: bool
) -> None:
    blocked_tags = {tag.casefold() for tag in case.query.policy.blocked_tags}
    unwanted = {
        at
        for at in range(len(case.scores))
        if tags_of(case, at) & set(case.muted)
        or (tags_of(case, at) & blocked_tags and at not in pinned(case))
    }
    assert set(policy.apply(case, soft=soft).blocked.tolist()) == unwanted


@example(lists(), st.booleans())
def test_pins_are_at_their_places_or_at_the_end_of_a_list_that_became_shorter(
    case: Given, soft: bool
) -> None:
    order = policy.apply(case, soft=soft).order.tolist()
    pins = sorted((pin.position, int(pin.id)) for pin in case.query.policy.pins if int(pin.id) in order)
    for left, (position, at) in zip(range(len(pins), 0, -1), pins, strict=True):
        if position <= len(order) - left:
            assert order[position] == at
    assert [at for at in order if at in {at for _, at in pins}] == [at for _, at in pins]


@example(lists(diversity=0.0, calibration=0.0, caps=()))
def test_without_strengths_and_caps_everybody_else_keeps_the_order(case: Given) -> None:
    order = [at for at in shown(case) if at not in pinned(case)]
    assert order == [at for at in case.order if at in order]


@example(lists(diversity=0.0, calibration=0.0, caps=(), pins=(), blocked_tags=(), muted=()))
def test_a_policy_of_nothing_is_the_identity(case: Given) -> None:
    assert shown(case) == case.order.tolist()


@example(lists(most=10))
def test_each_part_at_0_changes_nothing_of_what_the_others_do(case: Given) -> None:
    """Told apart by what it would need: without it, the same list comes of the same strengths."""
    own = case.query.policy
    without_taste = dataclasses.replace(case, taste={})
    uncalibrated = changed(case, calibration=0.0)
    assert shown(uncalibrated) == shown(changed(without_taste, calibration=own.calibration))
    undrawn = changed(case, exploration=0.0)
    assert shown(dataclasses.replace(undrawn, drawn=drawn(len(case.scores)))) == shown(undrawn)
    methods = {tuple(shown(changed(case, diversity=0.0, diversity_method=each))) for each in DiversityMethod}
    assert len(methods) == 1


def changed(case: Given, **more: object) -> Given:
    own = dataclasses.replace(case.query.policy, **more)  # type: ignore[arg-type]
    return dataclasses.replace(case, query=dataclasses.replace(case.query, policy=own))


def kinds(case: Given, cap: Cap, at: int) -> list[str]:
    candidate = case.query.candidates[at]
    if cap.attribute:
        return [value] if (value := candidate.item.attributes.get(cap.attribute)) else []
    if cap.tag:
        return ["it"] if cap.tag.casefold() in tags_of(case, at) else []
    if cap.each_tag:
        return sorted(tags_of(case, at))
    old = candidate.published_at is not None and candidate.published_at < NOW_S - cap.max_age_days * DAY
    return ["old"] if old else []


def kept(case: Given, order: list[int]) -> bool:
    for cap in case.query.policy.caps:
        counts = Counter(kind for at in order[: cap.window] for kind in kinds(case, cap, at))
        if max(counts.values(), default=0) > cap.most:
            return False
    return True


@example(lists(most=6), st.lists(caps(), min_size=1, max_size=3))
def test_caps_are_kept_whenever_that_is_possible(case: Given, asked: list[Cap]) -> None:
    case = changed(case, caps=tuple(asked))
    order = shown(case)
    fixed = [(place, at) for place, at in enumerate(order) if at in pinned(case)]
    possible = any(
        kept(case, list(each))
        for each in permutations(order)
        if all(each[place] == at for place, at in fixed)
    )
    assert kept(case, order) == possible


def test_of_lists_that_keep_the_caps_the_one_nearest_the_order_is_taken() -> None:
    """The first candidate uses up both caps; only without it can the window be filled."""
    tags = [("War", "jazz"), ("War",), ("Crime", "War"), ("jazz",)]
    case = given(tags, caps=(Cap(1, 2, tag="war"), Cap(1, 2, tag="jazz")))
    assert shown(case) == [1, 3, 0, 2]


def test_caps_that_cannot_be_kept_are_broken_as_little_as_the_next_in_line_allow() -> None:
    case = given([("War",)] * 3 + [("War", "jazz")], caps=(Cap(1, 4, tag="war"), Cap(0, 2, tag="jazz")))
    assert shown(case) == [0, 1, 2, 3]


def test_at_most_two_of_a_source_and_one_old_one_in_the_first_places() -> None:
    case = given(
        [()] * 8,
        sources=["a", "a", "a", "a", "b", "b", "", ""],
        ages_days=[0.5, 5, 5, 5, 5, 0.5, None, 5],
        caps=(Cap(2, 4, attribute="source"), Cap(1, 4, max_age_days=2.0)),
    )
    assert shown(case) == [0, 1, 5, 6, 2, 3, 4, 7]


def test_many_overlapping_caps_that_cannot_be_kept_end_soon() -> None:
    """Every candidate of its own kinds: there is no end of partial lists."""
    rng = np.random.default_rng(0)
    tags = [tuple(map(str, rng.choice(40, 6, replace=False))) for _ in range(1_000)]
    case = given(tags, caps=(Cap(1, 60, each_tag=True),))
    began_s = time.thread_time()
    assert sorted(shown(case)) == list(range(1_000))
    assert time.thread_time() - began_s < 0.1


def test_a_pin_counts_for_a_cap_and_stays() -> None:
    case = given([("War",)] * 3 + [()] * 2, pins=(Pin("2", 1),), caps=(Cap(1, 3, tag="war"),))
    assert shown(case) == [3, 2, 4, 0, 1]


STRENGTHS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


def divergence(case: Given, order: list[int]) -> float:
    """Of the first places of a list, in other words than those of the policy."""
    first = [case.query.candidates[at].item for at in order[: n_places(case.query)]]
    p, q = case.taste, beyond.tag_shares(first)
    return sum(x * math.log(x / (0.99 * q.get(tag, 0.0) + 0.01 * x)) for tag, x in p.items())


@example(lists(taste={"war": 0.5, "jazz": 0.3, "opera": 0.1, "drama": 0.1}))
def test_with_more_calibration_the_mix_is_never_farther_from_the_users(case: Given) -> None:
    found = [divergence(case, shown(changed(case, calibration=strength))) for strength in STRENGTHS]
    assert all(after <= before + 1e-9 for before, after in pairwise(found))


def test_calibration_gives_the_first_places_the_users_mix() -> None:
    tags = [("War",)] * 20 + [("jazz",)] * 20
    taste = {"war": 0.5, "jazz": 0.5}
    scores = list(np.linspace(1.0, 0.0, 40))
    counts = [
        sum(at >= 20 for at in shown(given(tags, scores, taste=taste, calibration=strength, top_n=20))[:20])
        for strength in (0.0, 1.0)
    ]
    assert counts == [0, 10]


@pytest.mark.parametrize("method", DiversityMethod)
def test_diversity_lets_another_kind_in_before_more_of_the_same(method: DiversityMethod) -> None:
    tags = [("War",), ("War",), ("War",), ("jazz",), ("comedy",)]
    scores = [0.0, -0.1, -0.2, -0.3, -0.4]
    order = shown(given(tags, scores, diversity=0.5, diversity_method=method))
    assert order == [0, 3, 4, 1, 2]


@pytest.mark.parametrize("method", DiversityMethod)
def test_vectors_keep_candidates_apart_that_have_no_tags(method: DiversityMethod) -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.0, 0.0]])
    case = given([()] * 4, [0.0, -0.1, -0.2, -3.0], diversity=0.5, diversity_method=method)
    assert shown(case) == [0, 1, 2, 3]
    assert shown(dataclasses.replace(case, vectors=lambda rows: vectors[rows]))[:2] == [0, 2]


def test_dpp_takes_what_raises_the_determinant_most() -> None:
    """The incremental factor against determinants computed from nothing."""
    rng = np.random.default_rng(1)
    tags = [tuple(map(str, rng.choice(8, 3, replace=False))) for _ in range(12)]
    case = given(tags, [0.0] * 12, diversity=1.0, diversity_method=DiversityMethod.DPP, top_n=6)
    sets = [set(each) for each in tags]
    kernel = np.array([[0.9 * len(a & b) / 3 for a in sets] for b in sets])
    np.fill_diagonal(kernel, 1.0)
    expected: list[int] = []
    for _ in range(6):
        gains = [
            -math.inf if at in expected else np.linalg.det(kernel[np.ix_([*expected, at], [*expected, at])])
            for at in range(12)
        ]
        expected.append(int(np.argmax(np.round(gains, 12))))
    assert shown(case)[:6] == expected


def test_what_lies_below_the_first_places_keeps_the_order() -> None:
    rng = np.random.default_rng(2)
    tags = [(str(rng.integers(3)),) for _ in range(300)]
    order = shown(given(tags, diversity=1.0, top_n=10))
    assert order[10:] == sorted(order[10:])
    assert max(order[:10]) < 200


NAMES = ("server_rank", "tags", "recency")
POSTERIOR = fusion.Weights(NAMES, np.array([0.2, 1.0, -0.5]), np.diag([0.02, 0.5, 0.3]))


def drawn(n: int, posterior: fusion.Weights = POSTERIOR) -> Drawn:
    rng = np.random.default_rng(n)
    rank = -np.log(np.arange(1, n + 1))
    matrix = np.column_stack([rank - rank.mean(), rng.standard_normal((n, 2))])
    return Drawn(matrix, NAMES, posterior)


def explored(n: int, ranking_id: str = "r", **more: object) -> Given:
    known = drawn(n)
    scores = fusion.fuse(known.matrix, NAMES, POSTERIOR)
    rng = np.random.default_rng(n)
    tags = [(("War", "jazz", "Crime")[rng.integers(3)],) for _ in range(n)]
    more = {"exploration": 1.0} | more
    return given(tags, scores.tolist(), drawn=known, ranking_id=ranking_id, **more)


@pytest.mark.parametrize("strength", [1e-12, 1.0])
def test_exploration_begins_at_the_order_itself(strength: float) -> None:
    case = explored(20, exploration=strength)
    assert (shown(case) == case.order.tolist()) == (strength < 1.0)


def test_a_ranking_can_be_made_again_from_its_id() -> None:
    first, again, other = (policy.apply(explored(30, id_)) for id_ in ("r", "r", "s"))
    assert (first.order == again.order).all()
    assert first.exposure is not None
    assert again.exposure is not None
    assert (first.exposure == again.exposure).all()
    assert (first.order != other.order).any()


def test_without_exploration_there_is_nothing_to_expect() -> None:
    assert policy.apply(explored(9, exploration=0.0)).exposure is None
    assert policy.apply(explored(9), soft=False).exposure is None


@example(st.integers(1, 30), st.sampled_from([(), ("war",)]), st.floats(0.01, 1.0))
def test_expected_looks_sum_to_the_looks_that_there_are(
    n: int, muted: tuple[str, ...], strength: float
) -> None:
    found = policy.apply(explored(n, muted=muted, exploration=strength))
    assert found.exposure is not None
    assert found.exposure.sum() == pytest.approx(examination(np.arange(1, len(found.order) + 1)).sum())
    assert not found.exposure[found.blocked].any()
    # What was served is one of the lists that could have been.
    served = examination(np.arange(1, len(found.order) + 1)) / exploration.N_DRAWS
    assert (found.exposure[found.order] >= served - 1e-12).all()


def test_expected_looks_are_those_of_10000_rankings() -> None:
    """Against orders by weights drawn here, with pins and a mute; each mean within its own error."""
    n = 12
    theta = examination(np.arange(1, n + 1))
    known = drawn(n)
    rng = np.random.default_rng(5)
    means = rng.multivariate_normal(POSTERIOR.mean, POSTERIOR.covariance, 10_000)
    more = {"muted": ("war",), "pins": (Pin("3", 1),)}
    case = explored(n, **more)
    blocked = set(policy.apply(case).blocked.tolist())
    counts = np.zeros(n)
    squares = np.zeros(n)
    for mean in means:
        scores = fusion.fuse(known.matrix, NAMES, dataclasses.replace(POSTERIOR, mean=mean))
        order = [at for at in fusion.order(scores) if at not in blocked and at != 3]
        if 3 not in blocked:
            order.insert(1, 3)
        looks = np.zeros(n)
        looks[order] = theta[: len(order)]
        counts += looks
        squares += looks**2
    expected = counts / len(means)
    deviation = np.sqrt(np.maximum(squares / len(means) - expected**2, 0.0))
    exposures = np.array([policy.apply(explored(n, f"r{at}", **more)).exposure for at in range(400)])
    error = deviation * math.sqrt(1 / len(means) + 1 / (400 * exploration.N_DRAWS))
    assert (np.abs(exposures.mean(axis=0) - expected) <= 5 * error + 1e-9).all()
    # And what is served follows the same law.
    served = np.zeros(n)
    for at in range(400):
        order = policy.apply(explored(n, f"r{at}", **more)).order
        served[order] += theta[: len(order)]
    error = deviation * math.sqrt(1 / len(means) + 1 / 400)
    assert (np.abs(served / 400 - expected) <= 5 * error + 1e-9).all()


def test_draws_have_the_posteriors_mean_and_covariance_also_where_one_weight_is_certain() -> None:
    covariance = np.array([[0.5, 0.2, 0.0], [0.2, 0.3, 0.0], [0.0, 0.0, 0.0]])
    posterior = fusion.Weights(NAMES, np.array([1.0, 2.0, 3.0]), covariance)
    draws = exploration.weights("r", posterior, 0.5, 20_000)
    assert draws.mean(axis=0) == pytest.approx(posterior.mean, abs=0.02)
    assert np.cov(draws.T) == pytest.approx(0.25 * covariance, abs=0.01)
