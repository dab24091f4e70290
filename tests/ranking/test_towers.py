"""Tier 1: hidden states to item vectors to a user's vector to scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_reranker.ranking.towers import Towers

N_EMBD, N_DIMS = 12, 7


@pytest.fixture(params=[7, 4, 0], ids=["learned", "both", "content"])
def towers(request: pytest.FixtureRequest) -> Towers:
    """With so many learned numbers of 7; the others are the content part."""
    n_learned: int = request.param
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=shape).astype(np.float32)
        for shape in [(N_EMBD,), (N_EMBD,), (N_EMBD, N_DIMS), (N_DIMS,), (n_learned, n_learned)]
    ]
    arrays[1] = np.abs(arrays[1]) + np.float32(0.5)
    return Towers(*arrays)


def parts(towers: Towers, vectors: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """The parts that there are, each [..., n]."""
    at = towers.n_learned
    return [part for part in (vectors[..., :at], vectors[..., at:]) if part.shape[-1]]


def hidden(n: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, N_EMBD)).astype(np.float32) * 3


def test_item_vectors_are_halves_and_their_parts_of_length_one(towers: Towers) -> None:
    vectors = towers.item_vectors(hidden(5))
    assert vectors.shape == (5, N_DIMS)
    assert vectors.dtype == np.float16
    for part in parts(towers, vectors.astype(np.float32)):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1.0, atol=2e-3)


def test_no_items_give_no_vectors(towers: Towers) -> None:
    assert towers.item_vectors(hidden(0)).shape == (0, N_DIMS)


def test_an_items_vector_is_the_same_alone_and_in_any_company(towers: Towers) -> None:
    states = hidden(9)
    together = towers.item_vectors(states)
    for row in range(9):
        np.testing.assert_array_equal(towers.item_vectors(states[row : row + 1])[0], together[row])
    np.testing.assert_array_equal(towers.item_vectors(states[::-1]), together[::-1])


def test_outliers_are_clipped_at_six_deviations(towers: Towers) -> None:
    far, further = hidden(1), hidden(1)
    far[0, 3], further[0, 3] = 1e3, 1e6
    np.testing.assert_array_equal(towers.item_vectors(far), towers.item_vectors(further))


def test_hidden_states_of_another_model_are_refused(towers: Towers) -> None:
    with pytest.raises(ValueError, match=r"this head reads \[n, 12\]"):
        towers.item_vectors(np.zeros((2, N_EMBD + 1), np.float32))


def test_the_parts_of_the_users_vector_have_length_one(towers: Towers) -> None:
    vectors = towers.item_vectors(hidden(6))
    user = towers.user_vector(vectors, np.full(6, 1 / 6, np.float32))
    assert user.shape == (N_DIMS,)
    assert [np.linalg.norm(part) for part in parts(towers, user)] == pytest.approx(
        [1.0] * len(parts(towers, user)), abs=1e-5
    )


def test_an_unknown_user_scores_every_candidate_zero(towers: Towers) -> None:
    user = towers.user_vector(np.zeros((0, N_DIMS), np.float16), np.zeros(0, np.float32))
    for scores in towers.scores(user, towers.item_vectors(hidden(3))):
        assert scores.tolist() == [0.0, 0.0, 0.0]


@given(st.floats(0.01, 100.0))
def test_only_the_ratio_of_weights_matters(scale: float) -> None:
    towers = Towers(
        np.zeros(2, np.float32), np.ones(2, np.float32), np.eye(2, dtype=np.float32),
        np.zeros(2, np.float32), np.eye(2, dtype=np.float32),
    )  # fmt: skip
    vectors, weights = np.eye(2, dtype=np.float16), np.array([0.75, 0.25], np.float32)
    np.testing.assert_allclose(
        towers.user_vector(vectors, weights), towers.user_vector(vectors, weights * scale), rtol=1e-5
    )


def test_candidates_like_the_heavier_part_of_the_history_score_higher() -> None:
    identity = Towers(
        np.zeros(2, np.float32), np.ones(2, np.float32), np.eye(2, dtype=np.float32),
        np.zeros(2, np.float32), np.eye(2, dtype=np.float32),
    )  # fmt: skip
    vectors = identity.item_vectors(np.eye(2))
    user = identity.user_vector(vectors, np.array([0.8, 0.2], np.float32))
    scores, content = identity.scores(user, vectors)
    assert scores[0] > scores[1] > 0
    assert content.tolist() == [0.0, 0.0], "a head without a content part says nothing by it"


def test_the_turn_maps_what_was_liked_to_what_follows() -> None:
    swap = np.array([[0, 1], [1, 0]], np.float32)
    towers = Towers(
        np.zeros(2, np.float32),
        np.ones(2, np.float32),
        np.eye(2, dtype=np.float32),
        np.zeros(2, np.float32),
        swap,
    )
    vectors = towers.item_vectors(np.eye(2))
    user = towers.user_vector(vectors[:1], np.ones(1, np.float32))
    assert towers.scores(user, vectors)[0] == pytest.approx([0.0, 1.0])


def test_the_turn_leaves_the_content_part_alone() -> None:
    swap = np.array([[0, 1], [1, 0]], np.float32)
    both = np.concatenate([np.eye(2), np.eye(2)], axis=1).astype(np.float32)
    towers = Towers(np.zeros(2, np.float32), np.ones(2, np.float32), both, np.zeros(4, np.float32), swap)
    vectors = towers.item_vectors(np.eye(2))
    learned, content = towers.scores(towers.user_vector(vectors[:1], np.ones(1, np.float32)), vectors)
    assert learned == pytest.approx([0.0, 1.0])
    assert content == pytest.approx([1.0, 0.0])


def test_the_content_part_is_the_same_alone(towers: Towers) -> None:
    alone = towers.content_only()
    assert alone.n_learned == 0
    vectors = alone.item_vectors(hidden(4))
    np.testing.assert_array_equal(vectors, towers.item_vectors(hidden(4))[:, towers.n_learned :])


@pytest.mark.parametrize("factor", [0.001, 1000.0, np.inf])
def test_a_vector_that_a_backend_sent_gains_nothing_by_its_length(towers: Towers, factor: float) -> None:
    vectors = towers.item_vectors(hidden(3)).astype(np.float32)
    user = towers.user_vector(vectors[:1], np.ones(1, np.float32))
    honest = np.stack(towers.scores(user, vectors))
    longer = vectors.copy()
    longer[1] *= factor
    scores = np.stack(towers.scores(user, longer))
    assert np.abs(scores).max() <= 1.0 + 1e-5
    np.testing.assert_array_equal(scores[:, [0, 2]], honest[:, [0, 2]])
    if np.isfinite(factor):
        assert scores[:, 1] == pytest.approx(honest[:, 1], abs=1e-5)


def test_a_vector_of_no_numbers_scores_nothing(towers: Towers) -> None:
    user = towers.user_vector(towers.item_vectors(hidden(1)), np.ones(1, np.float32))
    for scores in towers.scores(user, np.full((1, N_DIMS), np.nan, np.float16)):
        assert scores.tolist() == [0.0]
