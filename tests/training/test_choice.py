"""Choosing an encoder: the better one for the fusion users, whatever the later users like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

from edge_reranker.evaluation import protocol
from edge_reranker.evaluation.log import Log
from edge_reranker.models.pack import Encoder
from edge_reranker.training.choice import choose
from edge_reranker.training.head import Recipe
from tests.planted import N_EMBD, World, world

SMALL = Recipe(n_dims=8, n_components=16, n_steps=60, batch_size=16)
BLIND, SEEING = Encoder("blind", 1, N_EMBD), Encoder("seeing", 1, N_EMBD)


@pytest.fixture(scope="module")
def planted() -> World:
    """So few users that an item's own number teaches little: its hidden states must show the group."""
    return world(n_users=30)


def noise(like: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).normal(size=like.shape).astype(np.float32)


def test_the_encoder_that_shows_the_preference_is_chosen_and_said_to_lead(planted: World) -> None:
    data, hidden = planted
    found = choose(data, [(BLIND, noise(hidden)), (SEEING, hidden)], seed=0, settings=SMALL)
    assert found.encoder == SEEING
    assert found.lead is not None
    assert found.lead.low > 0
    assert "chance could" not in found.as_text()
    assert found.lead.mean == pytest.approx(found.reached["seeing"].mean - found.reached["blind"].mean)
    for word in ("seeing 0.", "blind 0.", f"the {found.n_users} users who fit the prior"):
        assert word in found.as_text()


def test_what_later_users_like_has_no_say(planted: World) -> None:
    """They take any items, at the same moments: the figures are the same."""
    data, hidden = planted
    later = {cut.user_id for cut in protocol.split(data).test}
    rng = np.random.default_rng(0)
    other = Log.of(
        data.items,
        [
            each._replace(item_id=str(rng.integers(len(data.items)))) if each.user_id in later else each
            for each in data.interactions
        ],
    )
    assert protocol.split(other).test != protocol.split(data).test
    encoders = [(BLIND, noise(hidden)), (SEEING, hidden)]
    assert choose(other, encoders, seed=0, settings=SMALL) == choose(data, encoders, seed=0, settings=SMALL)


def test_a_lead_that_chance_could_have_made_is_told(planted: World) -> None:
    data, hidden = planted
    twin = replace(SEEING, model="twin")
    found = choose(data, [(SEEING, hidden), (twin, hidden)], seed=0, settings=SMALL)
    assert found.encoder == SEEING  # of equals the first
    assert "chance could have turned it" in found.as_text()


def test_a_single_encoder_is_said_to_have_had_no_rival(planted: World) -> None:
    data, hidden = planted
    found = choose(data, [(SEEING, hidden)], seed=0, settings=SMALL)
    assert found.lead is None
    assert found.as_text().endswith("No other was on the device.")
