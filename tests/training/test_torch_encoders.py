"""The encoders in torch give what the real worker gives of the exported file: states after the last norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

import torch

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapter, EngineSpec, WorkerEngine
from edge_reranker.engine.quantiser import derive
from edge_reranker.errors import ModelInvalid
from edge_reranker.evaluation import movielens, protocol
from edge_reranker.models import gguf_tensors
from edge_reranker.models.convert import convert_bert
from edge_reranker.models.pack import Encoder
from edge_reranker.prompt import item_pieces
from edge_reranker.training import recipe
from edge_reranker.training.encoders import Network, merged
from edge_reranker.training.head import principal
from edge_reranker.types import Item, Pooling
from tests.gguf_files import llama_weights, write_llama
from tests.models.test_convert import folder  # noqa: F401  (a fixture)

Float32 = npt.NDArray[np.float32]
# int8 activations, not fine-tuning, keep these below .99: docs/decisions/0016.
LEAST_TAU = {"minilm": 0.97, "smollm2-135m": 0.95}
TEXTS = ("heat", "Heating, up!", "a much longer title; it goes on", "x")


@pytest.fixture(params=["bert", "llama"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model of a few kilobytes with random weights."""
    path = tmp_path / "small.gguf"
    if request.param == "llama":
        return write_llama(path, llama_weights())
    convert_bert(request.getfixturevalue("folder"), path)
    return path


def served(
    path: Path, encoder: Encoder, items: Sequence[Item], adapter: Adapter | None = None
) -> tuple[list[list[int]], Float32]:
    """Token ids and vectors by the real worker."""
    spec = EngineSpec(path, "encoder", pooling=encoder.pooling, normalise=encoder.normalise)
    engine = WorkerEngine(spec)
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        ids = engine.tokenize([item_pieces(item) for item in items], Deadline())
        return ids, engine.encode(ids, Deadline(), adapter=adapter).vectors
    finally:
        engine.close()


def network(path: Path, encoder: Encoder) -> Network:
    return Network.of(gguf_tensors.read(path), encoder)


def adapted(made: Network, size: float, rank: int = 2) -> Network:
    """With LoRA pairs that do something."""
    made.adapt(made.matrices(), rank, seed=1)
    random = np.random.default_rng(2)
    for name, (a, b) in made.pairs.items():
        made.pairs[name] = (a, torch.tensor(random.normal(size=b.shape) * size, dtype=torch.float32))
    return made


def arrays(pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, tuple[Float32, Float32]]:
    return {name: (a.numpy(), b.numpy()) for name, (a, b) in pairs.items()}


def least_cosine(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_states_are_the_workers_for_every_pooling(small: Path, pooling: Pooling) -> None:
    encoder = Encoder("small", None, 64, pooling=pooling)
    ids, vectors = served(small, encoder, [Item(text, title=text) for text in TEXTS])
    found = network(small, encoder).states(ids).numpy()
    assert least_cosine(found, vectors) > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(vectors, axis=1), rtol=0.01)


def test_normalised_states_have_length_1(small: Path) -> None:
    found = network(small, Encoder("small", None, 64, normalise=True)).states([[7, 8, 9], [10]])
    np.testing.assert_allclose(found.norm(dim=1).numpy(), 1.0, rtol=1e-5)


def test_a_state_does_not_depend_on_what_is_beside_it(small: Path) -> None:
    made = network(small, Encoder("small", None, 64))
    together = made.states([[7], [8, 9, 10, 11, 12], [13, 14]]).numpy()
    alone = np.concatenate([made.states([ids]).numpy() for ids in ([7], [8, 9, 10, 11, 12], [13, 14])])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_an_adapter_serves_what_training_had(small: Path, tmp_path: Path) -> None:
    encoder = Encoder("small", None, 64)
    made = adapted(network(small, encoder), size=0.2)
    path = tmp_path / "lora.gguf"
    gguf_tensors.write_lora(path, made.model.architecture, arrays(made.pairs))
    items = [Item(text, title=text) for text in TEXTS]
    ids, vectors = served(small, encoder, items, Adapter(path))
    assert least_cosine(made.states(ids).numpy(), vectors) > 0.9999
    _, bare = served(small, encoder, items)
    assert least_cosine(bare, vectors) < 0.99, "the test's own premise: the adapter moves them"


def test_an_exported_model_serves_what_training_had(small: Path, tmp_path: Path) -> None:
    encoder = Encoder("small", None, 64)
    made = adapted(network(small, encoder), size=0.2)
    path = tmp_path / "F16.gguf"
    gguf_tensors.write_like(path, small, merged(made))
    ids, vectors = served(path, encoder, [Item(text, title=text) for text in TEXTS])
    assert least_cosine(made.states(ids).numpy(), vectors) > 0.9999


def test_a_written_model_has_the_settings_vocabulary_and_types_of_the_one_it_is_like(
    small: Path, tmp_path: Path
) -> None:
    before = gguf_tensors.read(small)
    again = tmp_path / "again.gguf"
    gguf_tensors.write_like(again, small, before.arrays)
    after = gguf_tensors.read(again)
    assert (after.architecture, after.settings) == (before.architecture, before.settings)
    for name, array in before.arrays.items():
        np.testing.assert_allclose(after.arrays[name], array, rtol=1e-3, atol=1e-6)
        assert array.ndim == 2 or np.array_equal(after.arrays[name], array), f"{name}: single precision stays"


def test_an_architecture_without_a_forward_pass_is_refused_by_name(small: Path) -> None:
    other = replace(gguf_tensors.read(small), architecture="gemma3")
    with pytest.raises(ModelInvalid, match="mine is a gemma3 model; fine-tuning knows bert and llama"):
        Network.of(other, Encoder("mine", None, 64))


def test_a_file_that_is_no_gguf_is_refused_by_path(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"x" * 99)
    with pytest.raises(ModelInvalid, match=f"{path}: no GGUF"):
        gguf_tensors.read(path)


@pytest.mark.model
@pytest.mark.parametrize("encoder", [recipe.MINILM, recipe.SMOLLM2], ids=lambda each: each.model)
def test_on_200_real_titles_the_exported_file_serves_the_trainers_vectors_and_order(
    encoder: Encoder, movielens_dir: Path, minilm_path: Path, encoder_path: Path, tmp_path: Path
) -> None:
    """After weights that have moved: cosine at F16, order at Q8_0 (Kendall's tau over users' histories)."""
    base = minilm_path if encoder is recipe.MINILM else encoder_path
    data = movielens.load(movielens_dir)
    items = data.items[::8]
    made = adapted(network(base, encoder), size=0.02 if encoder is recipe.MINILM else 0.1)
    half, small = tmp_path / "F16.gguf", tmp_path / "Q8_0.gguf"
    gguf_tensors.write_like(half, base, merged(made))
    derive(half, small, quantisation="Q8_0")
    ids, exact = served(half, encoder, items)
    assert len(items) >= 200
    assert least_cosine(made.states(ids).numpy(), exact) >= 0.9995
    _, coarse = served(small, encoder, items)
    rows = {item.id: row for row, item in enumerate(items)}
    cuts = protocol.split(data).test
    histories = [[rows[e.item_id] for e in cut.history if e.item_id in rows] for cut in cuts[::20]]
    taus = [tau(exact, coarse, known) for known in histories if len(known) > 2]
    assert np.mean(taus) >= LEAST_TAU[encoder.model]
    _, bare = served(base, encoder, items)
    moved = np.mean([tau(exact, bare, known) for known in histories if len(known) > 2])
    assert moved < np.mean(taus) - 0.01, "the test's own premise: the training moved the order"


def tau(a: Float32, b: Float32, known: list[int]) -> float:
    """Kendall's tau of the order of all by their content part's cosine to the known ones."""
    shift, deviation = a.mean(axis=0), a.std(axis=0)
    scale = np.where(deviation > 1e-3 * np.median(deviation), 1 / np.maximum(deviation, 1e-9), 0)
    directions = principal(((a - shift) * scale).astype(np.float64), 64)[0].T
    orders = []
    for states in (a, b):
        vectors = ((states - shift) * scale) @ directions
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = vectors @ vectors[known].sum(axis=0)
        orders.append(np.sign(scores[:, None] - scores[None, :]))
    pairs = np.triu_indices(len(a), 1)
    return float((orders[0] * orders[1])[pairs].mean())
