"""Tier 2's training computes what the engine does, learns what the tiers below lack, and survives a break."""

from __future__ import annotations

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

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapted, Adapter, EngineSpec, WorkerEngine
from edge_reranker.errors import FailedPrecondition
from edge_reranker.models import gguf_tensors
from edge_reranker.models.pack import Encoder
from edge_reranker.prompt import TEMPLATES
from edge_reranker.ranking.profile import Profile
from edge_reranker.scoring import CrossScorer, Prompt, User
from edge_reranker.scoring.epochs import Owner
from edge_reranker.training.cross import Example, Settings, answers, faster_in_half, train
from edge_reranker.training.cross_fit import served
from edge_reranker.training.encoders import Network, Packed
from edge_reranker.training.loop import Until
from edge_reranker.types import Candidate, Context, Event, EventType, Item, RerankQuery
from tests.gguf_files import llama_weights, write_llama

Float32 = npt.NDArray[np.float32]
YES, NO = 89, 78
N_LETTERS = 4
SETTINGS = Settings(learning_rate=1e-2, n_lists=4, half=False, n_threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("model") / "small.gguf", llama_weights())


def network(path: Path) -> Network:
    tensors = gguf_tensors.read(path)
    return Network.of(tensors, Encoder("small", None, int(tensors.setting("embedding_length"))))


def moved(made: Network, size: float = 0.2) -> Network:
    """With LoRA pairs that do something."""
    made.adapt(made.matrices(), 4, seed=1)
    random = np.random.default_rng(2)
    for name, (a, b) in made.pairs.items():
        made.pairs[name] = (a, torch.tensor(random.normal(size=b.shape) * size, dtype=torch.float32))
    return made


def written(made: Network, path: Path) -> Adapter:
    pairs = {name: (a.numpy(), b.numpy()) for name, (a, b) in made.pairs.items()}
    gguf_tensors.write_lora(path, made.model.architecture, pairs)
    return Adapter(path)


PROMPTS = [
    Prompt(list(range(40, 90)), [[72, 101, 97, 116], [67, 97, 115, 105, 110, 111], [5, 6, 7]], YES, NO),
    Prompt([7, 8, 9], [[72, 101], [99, 98, 97]], YES, NO),
]


def test_a_candidates_answer_does_not_change_with_its_neighbours(model: Path) -> None:
    made = moved(network(model))
    together = np.concatenate(list(answers(made, PROMPTS)))
    alone = [replace(each, suffixes=[suffix]) for each in PROMPTS for suffix in each.suffixes]
    apart = np.concatenate(list(answers(made, alone, n_at_once=1)))
    np.testing.assert_allclose(together, apart, atol=1e-4)
    other = [replace(each, suffixes=each.suffixes[::-1]) for each in PROMPTS]
    turned = np.concatenate([each[::-1] for each in answers(made, other)])
    np.testing.assert_allclose(together, turned, atol=1e-4)
    assert together.std() > 0.1, "the test's own premise: candidates differ"


def test_a_candidate_reads_as_if_it_stood_behind_the_context_alone(model: Path) -> None:
    made = network(model)
    weights = made.weights["token_embd.weight"]
    full = [
        float(made.last(Packed.of([each.prefix + suffix]))[-1] @ (weights[YES] - weights[NO]))
        for each in PROMPTS
        for suffix in each.suffixes
    ]
    np.testing.assert_allclose(np.concatenate(list(answers(made, PROMPTS))), full, atol=1e-4)


def test_the_answer_is_the_workers_with_the_adapter(model: Path, tmp_path: Path) -> None:
    made = moved(network(model))
    adapter = written(made, tmp_path / "a.gguf")
    engine = WorkerEngine(EngineSpec(model, "scorer", n_sequences=4))
    try:
        assert engine.wait_ready(Deadline.after_ms(30_000)), engine.problem
        bare, found = served(engine, PROMPTS), served(Adapted(engine, adapter), PROMPTS)
    finally:
        engine.close()
    for ours, theirs, without in zip(answers(made, PROMPTS), found, bare, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.05)
        assert np.abs(theirs - without).max() > 0.5, "the test's own premise: the adapter moves them"


def examples(n: int = 24, *, known: bool = False) -> list[Example]:
    """Users like the candidate that has the letter of their context; ``known`` by the tiers below."""
    random = np.random.default_rng(3)
    found = []
    for at in range(n):
        letter = at % N_LETTERS
        order = random.permutation(N_LETTERS)
        wanted = (order == letter).astype(np.float32)
        prompt = Prompt([60, 97 + letter, 62], [[63, 97 + int(each), 58] for each in order], YES, NO)
        found.append(Example(prompt, 12 * wanted if known else np.zeros(N_LETTERS, np.float32), wanted))
    return found


def trained(model: Path, until: Until = Until(n_steps=20), **more: object) -> Network:  # noqa: B008
    made = network(model)
    settings = more.pop("settings", SETTINGS)
    train(made, examples(), settings, until, **({"seed": 0} | more))  # type: ignore[arg-type]
    return made


def differs(one: Network, other: Network) -> list[str]:
    return [
        name
        for name, pair in one.pairs.items()
        if not all(torch.equal(*each) for each in zip(pair, other.pairs[name], strict=True))
    ]


def test_half_precision_is_for_processors_that_have_it() -> None:
    """What this one takes for a product of another size says the same, unless both take about as long."""
    times_s = {}
    for kind in (torch.float32, torch.bfloat16):
        a, b = torch.ones(96, 576, dtype=kind), torch.ones(576, 384, dtype=kind)
        torch.mm(a, b)
        start = time.perf_counter()
        torch.mm(a, b)
        times_s[kind] = time.perf_counter() - start
    ratio = times_s[torch.bfloat16] / times_s[torch.float32]
    if not 1 / 3 < ratio < 3:
        assert faster_in_half() == (ratio < 1)


@pytest.mark.parametrize("half", [False, True])
def test_it_learns_what_goes_with_a_context(model: Path, half: bool) -> None:
    losses: list[float] = []
    made = trained(
        model,
        Until(n_steps=60),
        settings=replace(SETTINGS, half=half),
        say=lambda step, share, loss: losses.append(loss),
    )
    assert losses[0] > 1.0
    assert np.mean(losses[-6:]) < 0.3
    right = [
        found.argmax() == each.wanted.argmax()
        for each, found in zip(examples(), answers(made, [e.prompt for e in examples()]), strict=True)
    ]
    assert np.mean(right) > 0.9


def test_what_the_tiers_below_know_leaves_nothing_to_learn(model: Path) -> None:
    def first_loss(known: bool) -> float:
        losses: list[float] = []
        made, until = network(model), Until(n_steps=1)
        train(
            *(made, examples(known=known), SETTINGS, until),
            seed=0,
            say=lambda step, share, loss: losses.append(loss),
        )
        return losses[0]

    assert first_loss(known=True) < 0.01
    assert first_loss(known=False) > 1.0


def test_each_list_comes_once_before_any_comes_again(model: Path) -> None:
    from edge_reranker.training.cross import _Training

    training = _Training(network(model), examples(10), replace(SETTINGS, n_lists=3), seed=0)
    seen: list[int] = []
    for training.step in range(10):
        seen += training._chosen().tolist()
    for start in (0, 10, 20):
        assert sorted(seen[start : start + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]


def test_the_same_seed_gives_the_same_adapter(model: Path) -> None:
    first = trained(model)
    assert differs(first, trained(model)) == []
    assert differs(first, trained(model, seed=1)) != []
    assert set(first.pairs) == set(first.matrices())
    assert not any(tensor.requires_grad for pair in first.pairs.values() for tensor in pair)


def killed(model: Path, checkpoint: Path) -> None:
    """Trains until step 10, where the process is killed as by SIGKILL."""

    def say(step: int, share: float, loss: float) -> None:
        if step == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    trained(model, checkpoint=checkpoint, save_every_s=0.0, say=say)


def test_after_sigkill_it_goes_on_to_the_very_weights_that_it_would_have_reached(
    model: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "half.pt"
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(model, checkpoint))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.is_file()
    steps: list[int] = []
    resumed = trained(model, checkpoint=checkpoint, say=lambda step, share, loss: steps.append(step))
    assert steps[0] in (9, 10), "it goes on; it does not begin anew"
    assert differs(resumed, trained(model)) == []


def test_without_lists_there_is_nothing_to_learn(model: Path) -> None:
    with pytest.raises(FailedPrecondition, match="liked a new item that the server proposes"):
        train(network(model), [], SETTINGS, Until(n_steps=1), seed=0)


@pytest.mark.model
def test_training_reads_and_computes_what_a_request_does(scorer_path: Path, tmp_path: Path) -> None:
    """The default scorer at half precision and as it serves, 20 candidates through ``CrossScorer.score``."""
    titles = ["Heat (1995)", "Fargo (1996)", "Postino, Il (1994)", "Liar Liar (1997)", "Babe (1995)"]
    items = [
        Item(title, title=title, tags=("Crime", "Drama")[: 1 + at % 2]) for at, title in enumerate(titles)
    ]
    items += [Item(str(at), title=f"The Return of the {'Very ' * (at % 4)}Last {at}") for at in range(15)]
    events = tuple(Event(item.id, EventType.LIKE, float(at), item) for at, item in enumerate(items[:7]))
    user = User(Owner("u", 0), 1, Context(events), Profile())
    query = RerankQuery(tuple(Candidate(item) for item in items))
    made = moved(network(scorer_path), size=0.2)
    adapter = written(made, tmp_path / "a.gguf")
    half = tmp_path / "F16.gguf"
    gguf_tensors.write_like(half, scorer_path, made.model.arrays)
    found: dict[Path, tuple[Prompt, Float32]] = {}
    for path in (half, scorer_path):
        engine = WorkerEngine(EngineSpec(path, "scorer"))
        try:
            assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
            scorer = CrossScorer(Adapted(engine, adapter), TEMPLATES["titles"])
            (result,) = scorer.score(user, query, range(len(items)), Deadline())
            found[path] = scorer.prompt(user, items, Deadline()), result.scores
        finally:
            engine.close()
    prompt, exact = found[half]
    (ours,) = answers(made, [prompt])
    assert exact.std() > 0.2, "the test's own premise: the adapter tells candidates apart"
    np.testing.assert_allclose(ours, exact, atol=0.03)
    assert found[scorer_path][0] == prompt
    assert np.corrcoef(ours, found[scorer_path][1])[0, 1] > 0.9  # int8 activations: docs/decisions/0005
