"""The Bayesian step: what it finds, how sure it is, and that it is the mode over all choices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_reranker.ranking import fusion
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning import posterior
from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.posterior import Posterior
from edge_reranker.types import EventType
from tests.ranking.made_up import NAMES, PRIOR, a_list, clicked

Rng = np.random.Generator
# What is believed before any choice, without the exponent of the examination curve.
BELIEVED = Posterior.start(PRIOR).weights


def choices(
    rng: Rng, truth: NDArray[np.float64], n_choices: int, exponent: float = 1.0, **of_list: object
) -> list[tuple[Choice, float, NDArray[np.float64]]]:
    """Clicks of a user with these weights on lists that the prior's weights put in order."""
    found = []
    for _ in range(n_choices):
        shown = a_list(rng, **of_list)  # type: ignore[arg-type]
        choice = choice_of(shown, clicked(rng, shown, truth, exponent), EventType.CLICK)
        assert choice is not None
        found.append((choice, 1.0, np.ones(len(choice.items))))
    return found


@pytest.mark.parametrize(("exponent", "n"), [(0.0, 20), (1.0, 20), (1.5, 90)], ids=str)
def test_90_percent_intervals_have_the_truth_in_them_90_percent_of_the_time(exponent: float, n: int) -> None:
    """Whether clicks are biased by position or not, and for long lists, of which rows are left out."""
    rng = np.random.default_rng(11)
    inside, away, found = [], [], []
    for _ in range(60):
        truth = rng.multivariate_normal(BELIEVED.mean, BELIEVED.covariance)
        after = Posterior.start(PRIOR).after(choices(rng, truth, 24, exponent, n=n)).weights
        deviations = np.sqrt(np.diag(after.covariance))
        inside.append(np.abs(after.mean - truth) <= 1.645 * deviations)
        away.append(truth - PRIOR.mean)
        found.append(after.mean - PRIOR.mean)
    assert 0.85 <= np.mean(inside) <= 0.95
    # Neither too bold nor too timid: the slope of what users are over what was found is 1.
    assert 0.85 <= np.sum(np.multiply(away, found)) / np.sum(np.square(found)) <= 1.15


@pytest.mark.parametrize("n", [1, 4, 8, 9, 41, 50])
def test_the_mode_is_that_of_all_choices_at_once(n: int) -> None:
    """Exactly where all were taken again; in between, steps stay near."""
    rng = np.random.default_rng(13)
    made = choices(rng, np.array([-0.3, 0.2, 1.5, 1.0, 1.0, -0.3]), n)
    kept = Posterior.start(PRIOR)
    for choice in made:
        kept = kept.after([choice])
    batch = kept.in_one_batch()
    # The same log posterior, by plain gradient ascent in small steps from another start.
    best = _climbed(kept, batch)
    assert np.abs(batch.mean - best).max() < 1e-3
    all_again = n in (1, 4, 8, 41)
    assert np.abs(kept.now.mean - batch.mean).max() < (1e-6 if all_again else 0.1)


def _climbed(kept: Posterior, near: Weights) -> NDArray[np.float64]:
    """The top of the log posterior, found without second derivatives."""
    lists = posterior._stacked(kept.kept)
    at = kept.prior.mean.copy()
    step = near.covariance / 2
    for _ in range(200):
        slope = np.array(
            [
                (
                    fusion.log_posterior(lists, at + 1e-5 * axis, kept.prior)
                    - fusion.log_posterior(lists, at - 1e-5 * axis, kept.prior)
                )
                / 2e-5
                for axis in np.eye(len(at))
            ]
        )
        at = at + step @ slope
        if np.abs(step @ slope).max() < 1e-6:
            break
    return at


def test_all_are_taken_again_whenever_a_quarter_more_have_come() -> None:
    rng = np.random.default_rng(14)
    kept, again = Posterior.start(PRIOR), []
    for n, choice in enumerate(choices(rng, PRIOR.mean, 60), 1):
        before = kept.due
        kept = kept.after([choice])
        if kept.due != before:
            again.append(n)
            assert np.abs(kept.now.mean - kept.in_one_batch().mean).max() == 0
    assert again == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 41, 51]


def test_only_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "MOST_KEPT", 20)
    made = choices(np.random.default_rng(15), PRIOR.mean, 60)
    kept = Posterior.start(PRIOR)
    for choice in made:
        kept = kept.after([choice])
        assert len(kept.kept) < 20 + 20 // 4
    assert (kept.now.mean == Posterior.start(PRIOR).after(made).now.mean).all()


def test_columns_that_the_pack_has_no_weight_for_change_nothing() -> None:
    rng, more = np.random.default_rng(16), np.random.default_rng(16)
    fewer = Weights(NAMES[:4], PRIOR.mean[:4], PRIOR.covariance[:4, :4])
    shown = a_list(rng)
    cut = a_list(more, names=NAMES)
    choice = choice_of(shown, "i3", EventType.LIKE)
    assert choice is not None
    found = Posterior.start(fewer).after([(choice, 1.0, np.ones(20))]).weights
    without = choice_of(
        type(shown)(
            cut.ids, NAMES[:4], cut.weights[:4], cut.matrix[:, :4], cut.order, cut.ours, True, cut.pack
        ),
        "i3",
        EventType.LIKE,
    )
    assert without is not None
    assert found.names == NAMES[:4]
    assert (found.mean == Posterior.start(fewer).after([(without, 1.0, np.ones(20))]).weights.mean).all()


def test_columns_that_the_list_lacks_keep_their_prior() -> None:
    rng = np.random.default_rng(17)
    shown = a_list(rng, names=NAMES[:3])
    choice = choice_of(shown, "i3", EventType.LIKE)
    assert choice is not None
    found = Posterior.start(PRIOR).after([(choice, 1.0, np.ones(20))]).weights
    assert found.mean[3:] == pytest.approx(PRIOR.mean[3:])
    assert np.diag(found.covariance)[3:] == pytest.approx(np.diag(BELIEVED.covariance)[3:])


def test_with_many_choices_the_weights_are_found_also_from_cut_lists() -> None:
    """The sampled rows stand for those left out: without that the deep clicks would count for too much."""
    rng = np.random.default_rng(18)
    truth = np.array([-0.8, 0.0, 1.2, 0.8, 0.4, 0.3])
    found = Posterior.start(PRIOR).after(choices(rng, truth, 600, 0.5, n=120)).weights
    deviations = np.sqrt(np.diag(found.covariance))
    assert deviations.max() < 0.25
    assert np.abs((found.mean - truth) / deviations).max() < 3.5
