"""The replay of a user's own choices, on simulated ones whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_reranker.evaluation import mine, report
from edge_reranker.evaluation.clicks import PositionBased
from edge_reranker.ranking import fusion
from edge_reranker.ranking.features import server_rank
from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.learned import Learned
from edge_reranker.ranking.learning.shown import Shown
from edge_reranker.types import EventType

NAMES = ("server_rank", "towers")
N = 30
Appeal = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def start(towers: float = 3.0) -> Learned:
    """A pack that trusts its towers so much."""
    weights = fusion.Weights(NAMES, np.array([-0.8, towers]), np.diag([0.1, 1.0]))
    return Learned.start(weights, weights, "pack")


def choices(
    appeal: Appeal, n_lists: int, *, seed: int = 0, towers: float = 3.0, pack: str = "pack"
) -> list[Choice]:
    """Clicks of somebody to whom rows [N, 2] appeal so; ours is served, by the pack's weights."""
    rng = np.random.default_rng(seed)
    weights, clicks = start(towers).with_model, PositionBased(depth=N)
    found = []
    for at in range(n_lists):
        matrix = np.column_stack([server_rank(N), rng.normal(size=N) * 0.5]).astype(np.float32)
        order = fusion.order(fusion.fuse(matrix.astype(np.float64), NAMES, weights))
        shown = Shown(
            ids=tuple(f"{at}-{row}" for row in range(N)),
            names=NAMES,
            weights=weights.mean,
            matrix=matrix,
            order=order,
            ours=order,
            with_model=True,
            pack=pack,
        )
        for place in clicks.clicks(appeal(shown.matrix)[order], rng):
            choice = choice_of(shown, shown.ids[order[place]], EventType.CLICK, position=place)
            assert choice is not None
            found.append(choice)
    return found


def as_the_towers_say(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(0.3 * np.exp(2.0 * matrix[:, 1]), 1.0)


def as_the_server_says(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(1.0 / np.arange(1, N + 1), 1.0)


def as_chance_will(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(N, 0.3)


def test_a_service_that_helps_is_told_so() -> None:
    found = mine.replay(start(), choices(as_the_towers_say, 150))
    assert found.verdict == mine.HELPS
    assert found.gain is not None
    assert found.gain.low > 0
    assert found.ours is not None
    assert found.ours.low > 0  # its chances are nearer to what was chosen, too
    assert found.in_words().startswith("The service helps")
    # By inverse propensity it can be more than 100: not a part of them.
    assert f"{100 * found.gain.mean:+.0f} choices per 100, against the server's" in found.in_words()


def test_a_service_that_harms_is_told_so() -> None:
    found = mine.replay(start(), choices(as_the_server_says, 150))
    assert found.verdict == mine.HARMS
    assert found.gain is not None
    assert found.gain.high < 0
    assert found.learning is not None
    assert found.learning.low > 0  # but it learns not to
    assert found.in_words().startswith("The service does not help")


def test_where_there_is_no_difference_none_is_claimed() -> None:
    """Of 40 users to whom all orders are alike at most 5 are told one: at 5 % each, 1 seed of 70 has more."""
    found = [mine.verdict(choices(as_chance_will, 60, seed=seed, towers=1.0)) for seed in range(40)]
    assert sum(verdict != mine.OPEN for verdict in found) <= 5


def test_after_few_choices_nothing_is_claimed_and_how_many_more_are_needed_is_told() -> None:
    found = mine.replay(start(), choices(as_the_towers_say, 12))
    assert found.verdict == mine.OPEN
    assert found.more is not None
    assert found.more > 0
    assert "cannot be told yet" in found.in_words()
    assert f"{found.more:,} more choices" in found.in_words()


def test_without_choices_it_says_what_is_needed() -> None:
    found = mine.replay(start(), [])
    assert found.gain is None
    assert "ranking_id" in found.in_words()
    assert "Nothing to plot" in report.html(mine.tables(found))


def test_choices_under_another_pack_are_counted_and_left_out() -> None:
    other = Learned.start(start().with_model, start().with_model, "another pack")
    found = mine.replay(other, choices(as_the_towers_say, 20))
    assert (found.n_choices, found.gain) == (0, None)
    assert found.other_packs > 0
    assert f"{found.other_packs} of other packs" in found.in_words()


def test_every_choice_is_foretold_from_the_ones_before_it_only() -> None:
    """What comes later changes nothing of what is told of the first choices."""
    all_ = choices(as_the_towers_say, 40)
    half = len(all_) // 2
    early, late = mine.foretold(start(), all_[:half]), mine.foretold(start(), all_)
    assert late[:half] == early
    assert early[0][1] == pytest.approx(early[0][2])  # nothing was learned before the first


def test_the_same_item_of_a_list_counts_once() -> None:
    once = choices(as_the_towers_say, 20)
    twice = [each for choice in once for each in (choice, choice)]
    assert mine.replay(start(), twice).gain == mine.replay(start(), once).gain


def test_the_page_has_the_words_and_a_curve() -> None:
    found = mine.replay(start(), choices(as_the_towers_say, 60))
    page = report.html(mine.tables(found))
    assert found.in_words().split(":")[0] in page
    assert page.count("<circle") == len(found.points)
