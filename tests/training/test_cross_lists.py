"""The lists of tier 2's training: honest offsets, the service's own tokens, its column in the fusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapter, Scored
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.evaluation import lists, protocol
from edge_reranker.evaluation.log import Interactions, Log, events
from edge_reranker.prompt import TEMPLATES
from edge_reranker.ranking import fusion
from edge_reranker.ranking.profile import Profile
from edge_reranker.scoring import CrossScorer, User
from edge_reranker.scoring.epochs import Owner
from edge_reranker.training import cross_fit, cross_lists, prior, recipe
from edge_reranker.training.head import Recipe
from edge_reranker.types import Candidate, Context, EventType, RerankQuery
from tests.planted import World, world

RECIPE = Recipe(n_dims=8, n_components=16, n_steps=20, n_content=8)
WEIGHTS = prior.before()


@pytest.fixture(scope="module")
def made() -> World:
    return world()


def shown(data: Log, hidden: np.ndarray, head: dict[str, Interactions]) -> list[lists.Listed]:
    return cross_lists.unseen_lists(
        *(data, hidden, head), seed=0, recipe=RECIPE, items=recipe.ITEMS, taste=recipe.TASTE
    )


@pytest.fixture(scope="module")
def listed(made: World) -> list[lists.Listed]:
    return shown(*made, dict(protocol.split(made[0]).head))


def test_what_the_tiers_below_say_was_learned_from_the_other_half_of_the_users(
    made: World, listed: list[lists.Listed]
) -> None:
    head = protocol.split(made[0]).head
    first = set(list(head)[::2])
    shorter = {name: past[:12] if name in first else past for name, past in head.items()}
    before = {(each.cut.user_id, each.cut.n_events): each.matrix for each in listed}
    same: dict[bool, list[bool]] = {True: [], False: []}
    for each in shown(*made, shorter):
        if (key := (each.cut.user_id, each.cut.n_events)) in before:
            same[each.cut.user_id in first].append(np.array_equal(before[key], each.matrix))
    assert len(same[True]) > 20
    assert all(same[True]), "what came later of themselves, or of those beside them, is not in it"
    assert not any(same[False]), "the test's own premise: who learned from less says something else"


def test_a_user_is_asked_at_several_moments_of_their_past(listed: list[lists.Listed]) -> None:
    moments: dict[str, set[int]] = {}
    for each in listed:
        moments.setdefault(each.cut.user_id, set()).add(each.cut.n_events)
    assert len(moments) > 30
    assert max(len(found) for found in moments.values()) > 3
    assert all(len(each.known) == each.cut.n_events >= 5 for each in listed)


class Recording(FakeEngine):
    """Keeps what it was asked to score."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[list[int], list[list[int]], list[int]]] = []

    def score(
        self,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        targets: Sequence[int],
        deadline: Deadline,
        *,
        adapter: Adapter | None = None,
    ) -> Scored:
        """See FakeEngine."""
        self.asked.append((list(prefix), [list(each) for each in suffixes], list(targets)))
        return super().score(prefix, suffixes, targets, deadline, adapter=adapter)


def test_a_prompt_is_what_a_request_reads_when_events_came_one_by_one(
    made: World, listed: list[lists.Listed]
) -> None:
    by_id = {item.id: item for item in made[0].items}
    several = [each for each in listed if each.cut.user_id == listed[0].cut.user_id][::-1]
    rows = [np.array([3, 0, 5])] * len(several)
    found = cross_lists.prompts(
        CrossScorer(FakeEngine(), TEMPLATES["titles"]), several, rows, by_id, recipe.TASTE
    )
    for each, prompt in zip(several, found, strict=True):
        engine = Recording()
        scorer = CrossScorer(engine, TEMPLATES["titles"])
        query = RerankQuery(tuple(Candidate(each.items[row]) for row in (3, 0, 5)))
        for n in range(1, len(each.known) + 1):
            user = User(Owner("u", 0), n, Context(events(each.known[:n], by_id)), Profile())
            assert scorer.prefill(user)
        list(scorer.score(user, query, range(3), Deadline()))
        assert engine.asked == [(prompt.prefix, prompt.suffixes, [prompt.positive, prompt.negative])]
    assert len({len(prompt.prefix) for prompt in found}) > 1, "the test's own premise: windows differ"


def test_events_that_the_pack_does_not_count_are_not_read(made: World, listed: list[lists.Listed]) -> None:
    by_id = {item.id: item for item in made[0].items}
    one = listed[0]
    liked = dataclasses.replace(one, known=tuple(each._replace(type=EventType.VIEW) for each in one.known))
    deaf = dataclasses.replace(recipe.TASTE, event_weights={"LIKE": 1.0, "VIEW": 0.0})
    scorer = CrossScorer(FakeEngine(), TEMPLATES["titles"])
    (found,) = cross_lists.prompts(scorer, [liked], [np.array([0])], by_id, deaf)
    (heard,) = cross_lists.prompts(scorer, [liked], [np.array([0])], by_id, recipe.TASTE)
    assert b"Thing" not in bytes(found.prefix)
    assert b"Thing" in bytes(heard.prefix)


def test_a_list_for_training_is_the_top_what_was_liked_below_it_and_some_for_all_others(
    made: World, listed: list[lists.Listed]
) -> None:
    by_id = {item.id: item for item in made[0].items}
    scorer = CrossScorer(FakeEngine(), TEMPLATES["titles"])
    found = list(cross_lists.examples(scorer, listed[:40], WEIGHTS, by_id, recipe.TASTE, seed=0, k=8))
    kept = [each for each in listed[:40] if any(at is not None for at in each.targets)]
    assert len(found) == len(kept) > 10
    for example, each in zip(found, kept, strict=True):
        fused = fusion.fuse(each.matrix, lists.NAMES, WEIGHTS)
        liked = sorted(fused[at] for at in each.targets if at is not None)
        n_first = len(set(fusion.order(fused)[:8]) | {at for at in each.targets if at is not None})
        assert sorted(example.offset[example.wanted > 0]) == pytest.approx(liked, rel=1e-5)
        assert len(set(example.wanted[example.wanted > 0])) == 1
        assert example.wanted.sum() == pytest.approx(1)
        assert example.offset[:8] == pytest.approx(np.sort(fused)[::-1][:8], rel=1e-5)
        assert len(example.prompt.suffixes) == len(example.offset) == n_first + 5
        assert not example.wanted[n_first:].any()
        more = example.offset[n_first:] - np.log((len(fused) - n_first) / 5)
        assert all(np.isclose(fused, each, atol=1e-4).any() for each in more)
    assert any(example.wanted[8:].any() for example in found), "the test's own premise: some lie below"


def scored(listed: Sequence[lists.Listed], *, helpful: bool) -> list[lists.Listed]:
    """With a column that knows what is liked, or that is chance."""
    rows = [np.arange(20)] * len(listed)
    random = np.random.default_rng(0)
    scores = [
        (np.isin(np.arange(20), [at for at in each.targets if at is not None]) * helpful)
        + 0.3 * random.normal(size=20)
        for each in listed
    ]
    return cross_lists.with_scores(listed, rows, [each.astype(np.float32) for each in scores])


def test_candidates_that_were_not_read_keep_their_score(listed: list[lists.Listed]) -> None:
    (found,) = cross_lists.with_scores(listed[:1], [np.array([1, 3])], [np.array([2.0, 4.0], np.float32)])
    column = found.matrix[:, lists.NAMES.index("scorer")]
    assert column[[1, 3]].tolist() == [-1.0, 1.0]
    assert np.count_nonzero(column) == 2


@pytest.mark.parametrize("helpful", [True, False])
def test_it_pays_where_the_other_half_of_the_users_gains(listed: list[lists.Listed], helpful: bool) -> None:
    found = cross_fit.validated(scored(listed, helpful=helpful), listed)
    assert found.pays == helpful
    assert (found.comparison.ndcg10.mean > 0.05) == helpful


def test_a_gain_that_is_small_or_unsure_does_not_pay(listed: list[lists.Listed]) -> None:
    found = cross_fit.gain((scored(listed, helpful=True), WEIGHTS), (listed, WEIGHTS))
    for mean, low, pays in ((0.01, 0.001, True), (0.01, -0.001, False), (0.002, 0.001, False)):
        interval = dataclasses.replace(found.before, mean=mean, low=low)
        comparison = dataclasses.replace(found.comparison, ndcg10=interval)
        assert dataclasses.replace(found, comparison=comparison).pays == pays
