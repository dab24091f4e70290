"""Simulated clicks come as often as the formulas of their models say, and always the same ones for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from edge_reranker.evaluation.clicks import Attraction, Cascade, ClickModel, PositionBased

ATTRACTIVE = np.array([0.05, 0.9, 0.3, 0.0, 1.0, 0.5, 0.9, 0.9])
MODELS = [PositionBased(), PositionBased(eta=0.5, depth=6), Cascade(), Cascade(stop=0.4, depth=6)]


def _counted(model: ClickModel, n_readings: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    counts = np.zeros(len(ATTRACTIVE))
    for _ in range(n_readings):
        counts[model.clicks(ATTRACTIVE, rng)] += 1
    return counts


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_places_are_clicked_as_often_as_the_formula_says(model: ClickModel) -> None:
    """No place is more than 4.5 standard errors from its chance: a right model fails in 1 seed of 20,000."""
    n = 5000
    chances = model.chances(ATTRACTIVE)
    error = np.sqrt(np.maximum(n * chances * (1 - chances), 1e-9))
    assert (np.abs(_counted(model, n) - n * chances) <= 4.5 * error).all()


def test_the_position_based_chance_is_examination_times_attraction() -> None:
    """Written out for three places."""
    found = PositionBased(eta=1.0, depth=2).chances(np.array([0.5, 0.5, 0.5]))
    assert found.tolist() == [0.5, 0.25, 0.0]


def test_the_cascade_chance_is_what_is_left_by_the_places_before() -> None:
    """Written out for three places: with ``stop`` 1, and when every second reader goes on."""
    attractive = np.array([0.5, 0.5, 0.5])
    assert Cascade().chances(attractive).tolist() == [0.5, 0.25, 0.125]
    assert Cascade(stop=0.5, depth=2).chances(attractive).tolist() == [0.5, 0.375, 0.0]


def test_a_cascade_reader_who_stops_clicks_once_at_most() -> None:
    """And the first item that is sure to be clicked is never passed."""
    rng = np.random.default_rng(1)
    found = [Cascade().clicks(ATTRACTIVE, rng) for _ in range(300)]
    assert max(map(len, found)) == 1
    assert max(place for places in found for place in places) == 4


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_the_same_seed_gives_the_same_clicks(model: ClickModel) -> None:
    """A simulation can be repeated."""
    assert _counted(model, 50).tolist() == _counted(model, 50).tolist()


def test_what_is_liked_attracts_and_the_rest_does_a_little() -> None:
    """The chance belongs to the item, not to its place."""
    found = Attraction(liked=0.8, other=0.1).of(["a", "b", "c"], {"b"})
    assert found.tolist() == [0.1, 0.8, 0.1]


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_an_empty_list_has_no_clicks(model: ClickModel) -> None:
    """Somebody may have seen all that there is."""
    assert model.clicks(np.zeros(0), np.random.default_rng(0)) == []
    assert len(model.chances(np.zeros(0))) == 0
