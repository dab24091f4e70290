"""The choice model: scoring, fitting, and the laws that keep the server's order safe."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.ranking import fusion
from edge_reranker.ranking.features import server_rank
from edge_reranker.ranking.fusion import Choices, Weights

NAMES = ("server_rank", "tags", "towers")
PRIOR = Weights(NAMES, np.array([0.0, 0.5, 0.0]), np.diag([1.0, 0.25, 4.0]))


def made_up(seed: int = 0, n_lists: int = 40, n: int = 8) -> list[Choices]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n_lists, n, 3))
    matrix[:, :, 0] = server_rank(n)
    counts = rng.multinomial(3, np.full(n, 1 / n), size=n_lists).astype(float)
    half = n_lists // 2
    whole = Choices(matrix, counts, matrix[:, :, 0])
    return [
        Choices(whole.matrix[part], whole.counts[part], whole.offset[part])
        for part in (slice(0, half), slice(half, None))
    ]


def weights(**mean: float) -> Weights:
    return Weights(tuple(mean), np.array(list(mean.values())), np.eye(len(mean)))


def test_fused_scores_are_the_log_server_prior_plus_the_weighted_columns() -> None:
    matrix = np.array([[0.5, 1.0, 2.0], [-0.5, 3.0, 0.0]])
    scores = fusion.fuse(matrix, NAMES, weights(server_rank=-0.5, towers=2.0))
    assert scores == pytest.approx([0.5 - 0.25 + 4.0, -0.5 + 0.25])


def test_contributions_sum_to_the_fused_score() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 3))
    some = weights(server_rank=-0.3, tags=1.0, towers=2.0)
    parts = fusion.contributions(matrix, NAMES, some)
    assert sum(parts.values()) == pytest.approx(fusion.fuse(matrix, NAMES, some))


def test_no_column_counts_beyond_the_clip() -> None:
    far, further = np.array([[0.0, 0.0, 50.0]]), np.array([[0.0, 0.0, 1e9]])
    some = weights(towers=1.0)
    assert fusion.fuse(far, NAMES, some) == fusion.fuse(further, NAMES, some) == fusion.CLIP


@given(st.integers(1, 1000), st.floats(-9.0, 3.0))
def test_without_personal_evidence_the_servers_order_stands(n: int, trust: float) -> None:
    matrix = np.zeros((n, 3))
    matrix[:, 0] = server_rank(n)
    scores = fusion.fuse(matrix, NAMES, weights(server_rank=trust, tags=9.0, towers=9.0))
    assert (fusion.order(scores) == np.arange(n)).all()


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=30))
def test_equal_scores_keep_the_servers_order(scores: list[float]) -> None:
    order = fusion.order(np.array(scores)).tolist()
    assert order == sorted(range(len(scores)), key=lambda at: (-scores[at], at))


def test_the_fit_is_where_the_log_posteriors_slope_is_zero_and_nothing_near_is_higher() -> None:
    data = made_up()
    found = fusion.fit(data, PRIOR)
    best = fusion.log_posterior(data, found.mean, PRIOR)
    for axis in np.eye(3):
        up = fusion.log_posterior(data, found.mean + 1e-4 * axis, PRIOR)
        down = fusion.log_posterior(data, found.mean - 1e-4 * axis, PRIOR)
        assert abs(up - down) / 2e-4 < 1e-4
        assert max(up, down) < best


def test_the_covariance_is_the_inverse_of_the_curvature() -> None:
    data = made_up()
    found = fusion.fit(data, PRIOR)
    step = 1e-3
    hessian = np.empty((3, 3))
    for i, a in enumerate(np.eye(3) * step):
        for j, b in enumerate(np.eye(3) * step):
            hessian[i, j] = (
                fusion.log_posterior(data, found.mean + a + b, PRIOR)
                - fusion.log_posterior(data, found.mean + a - b, PRIOR)
                - fusion.log_posterior(data, found.mean - a + b, PRIOR)
                + fusion.log_posterior(data, found.mean - a - b, PRIOR)
            ) / (4 * step * step)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(-hessian), rtol=1e-3, atol=1e-7)
    assert (found.covariance == found.covariance.T).all()


def test_without_choices_the_prior_stays_as_it_is() -> None:
    found = fusion.fit([], PRIOR)
    assert found.mean == pytest.approx(PRIOR.mean)
    np.testing.assert_allclose(found.covariance, PRIOR.covariance)


def test_a_column_that_is_always_zero_keeps_its_prior() -> None:
    data = [Choices(part.matrix * [1, 0, 1], part.counts, part.offset) for part in made_up()]
    found = fusion.fit(data, PRIOR)
    assert found.mean[1] == pytest.approx(0.5)
    assert found.covariance[1] == pytest.approx([0.0, 0.25, 0.0])


def test_the_fit_finds_the_weights_that_made_the_choices() -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(3000, 10, 3))
    matrix[:, :, 0] = server_rank(10)
    truth = np.array([-0.4, 1.0, 2.0])
    logits = matrix[:, :, 0] + matrix @ truth + rng.gumbel(size=(3000, 10))
    counts = np.eye(10)[logits.argmax(axis=1)]
    wide = Weights(NAMES, np.zeros(3), np.eye(3) * 100)
    found = fusion.fit([Choices(matrix, counts, matrix[:, :, 0])], wide)
    deviations = np.sqrt(np.diag(found.covariance))
    assert (np.abs(found.mean - truth) < 4 * deviations).all()
    assert deviations.max() < 0.1


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 500.0))
def test_the_fit_stays_finite_even_when_one_column_explains_every_choice(scale: float) -> None:
    matrix = np.zeros((5, 4, 3))
    matrix[:, 0, 2] = scale
    counts = np.zeros((5, 4))
    counts[:, 0] = 20
    found = fusion.fit([Choices(matrix, counts, np.zeros((5, 4)))], PRIOR)
    assert np.isfinite(found.mean).all()
    assert (np.linalg.eigvalsh(found.covariance) > 0).all()
