"""Fine-tuning finds what users like, stays near where it began, and goes on after a break as if without."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

import torch

from edge_reranker.errors import FailedPrecondition
from edge_reranker.models import gguf_tensors
from edge_reranker.models.pack import Encoder
from edge_reranker.training.encoders import Network, merged
from edge_reranker.training.finetune import Settings, finetune
from edge_reranker.training.head import History, Recipe
from edge_reranker.training.loop import Until
from tests.gguf_files import llama_weights, write_llama

Float32 = npt.NDArray[np.float32]
ENCODER = Encoder("small", None, 64, normalise=True)
N_GROUPS, N_ITEMS = 4, 40
# An item's text: a letter of its group among others that say nothing.
TEXTS = [[97 + at % N_GROUPS, 48 + at % 7, 65 + at % 3, 75 + at % 5, 110 + at // 7] for at in range(N_ITEMS)]
SETTINGS = Settings(learning_rate=1e-3, n_encoded=20, pull=0.1, batch=Recipe(batch_size=16))
LORA = replace(SETTINGS, rank=2, learning_rate=1e-2)
STEPS = Until(n_steps=20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("model") / "small.gguf", llama_weights())


def histories() -> list[History]:
    """Every user likes items of one group and meets some of the others."""
    random = np.random.default_rng(0)
    found = []
    for user in range(24):
        rows = random.permutation([at for at in range(N_ITEMS) if at % N_GROUPS == user % N_GROUPS])
        others = random.permutation([at for at in range(N_ITEMS) if at % N_GROUPS != user % N_GROUPS])[:3]
        mixed = random.permutation(np.concatenate([rows, others]))
        liked = mixed % N_GROUPS == user % N_GROUPS
        found.append(History(mixed, np.where(liked, 1.0, 0.0).astype(np.float32), liked))
    return found


def network(model: Path) -> Network:
    return Network.of(gguf_tensors.read(model), ENCODER)


@functools.cache
def once(model: Path, settings: Settings) -> Network:
    """``trained`` with seed 0, for those who only look."""
    return trained(model, settings)


def trained(model: Path, settings: Settings, until: Until = STEPS, **more: object) -> Network:
    made = network(model)
    frozen = made.states(TEXTS).numpy()
    finetune(made, TEXTS, frozen, histories(), settings, until, **({"seed": 0} | more))  # type: ignore[arg-type]
    return made


def apart(made: Network) -> float:
    """How much nearer items of one group are than those of two, in cosine."""
    states = made.states(TEXTS).numpy()
    states = states - states.mean(axis=0)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    same = np.equal.outer(np.arange(N_ITEMS) % N_GROUPS, np.arange(N_ITEMS) % N_GROUPS)
    cosines = states @ states.T
    return float(cosines[same].mean() - cosines[~same].mean())


def differs(one: Network, other: Network) -> list[str]:
    a, b = merged(one), merged(other)
    return [name for name in a if not np.array_equal(a[name], b[name])]


@pytest.mark.parametrize("settings", [SETTINGS, LORA], ids=["full", "lora"])
def test_items_that_the_same_users_like_come_nearer(model: Path, settings: Settings) -> None:
    assert apart(once(model, settings)) > apart(network(model)) + 0.1


@pytest.mark.parametrize("settings", [SETTINGS, LORA], ids=["full", "lora"])
def test_a_seed_gives_the_same_weights_again_and_another_seed_others(model: Path, settings: Settings) -> None:
    first = once(model, settings)
    assert differs(first, trained(model, settings)) == []
    assert differs(first, trained(model, settings, seed=1)) != []


def test_a_whole_model_changes_in_its_blocks_and_keeps_its_table_of_words(model: Path) -> None:
    changed = set(differs(network(model), once(model, SETTINGS)))
    assert changed == {name for name in network(model).weights if name.startswith("blk.")}


def test_an_adapter_leaves_the_weights_below_it_as_they_are(model: Path) -> None:
    made = once(model, LORA)
    below = network(model).weights
    assert all(torch.equal(weight, below[name]) for name, weight in made.weights.items())
    assert set(made.pairs) == set(made.matrices())
    assert not any(tensor.requires_grad for pair in made.pairs.values() for tensor in pair)


def test_a_pull_keeps_the_states_nearer_to_the_frozen_ones(model: Path) -> None:
    frozen = network(model).states(TEXTS).numpy()

    def near(pull: float) -> float:
        return float(
            (once(model, replace(SETTINGS, pull=pull)).states(TEXTS).numpy() * frozen).sum(axis=1).mean()
        )

    assert near(30.0) > near(0.0) + 0.05


def test_it_ends_with_its_time_and_tells_how_far_it_is(model: Path) -> None:
    told: list[tuple[int, float, float]] = []
    made = network(model)
    frozen = made.states(TEXTS).numpy()
    began = time.monotonic()
    n_steps = finetune(
        made,
        TEXTS,
        frozen,
        histories(),
        SETTINGS,
        Until(seconds=0.5),
        seed=0,
        say=lambda *each: told.append(each),
    )
    assert 0.5 <= time.monotonic() - began < 5.0
    steps, shares, losses = zip(*told, strict=True)
    assert steps == tuple(range(1, n_steps + 1))
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1.0
    assert shares[-2] < 1.0
    assert np.isfinite(losses).all()


def killed(model: Path, settings: Settings, checkpoint: Path) -> None:
    """Trains until step 10, where the process is killed as by SIGKILL."""

    def say(step: int, share: float, loss: float) -> None:
        if step == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    trained(model, settings, checkpoint=checkpoint, save_every_s=0.0, say=say)


@pytest.mark.parametrize("settings", [SETTINGS, LORA], ids=["full", "lora"])
def test_after_sigkill_it_goes_on_to_the_very_weights_that_it_would_have_reached(
    model: Path, tmp_path: Path, settings: Settings
) -> None:
    checkpoint = tmp_path / "half.pt"
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(model, settings, checkpoint))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.is_file()
    steps: list[int] = []
    resumed = trained(
        model, settings, checkpoint=checkpoint, say=lambda step, share, loss: steps.append(step)
    )
    assert steps[0] in (9, 10), "it goes on; it does not begin anew"
    assert differs(resumed, once(model, settings)) == []


def test_training_leaves_torch_as_it_was(model: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trained(model, SETTINGS, Until(n_steps=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_anything_liked_there_is_nothing_to_learn(model: Path) -> None:
    made = network(model)
    frozen = made.states(TEXTS).numpy()
    disliked = [replace(each, liked=np.zeros_like(each.liked)) for each in histories()]
    with pytest.raises(FailedPrecondition, match="a liked one"):
        finetune(made, TEXTS, frozen, disliked, SETTINGS, STEPS, seed=0)
