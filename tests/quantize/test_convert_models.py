"""The project's own models through conversion: same tokens, same numbers, same ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import kendalltau

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Role, WorkerEngine
from edge_reranker.engine.quantiser import derive
from edge_reranker.evaluation import movielens
from edge_reranker.prompt import TEMPLATES, item_pieces, item_text
from edge_reranker.ranking.profile import Taste, profile
from edge_reranker.scoring import CrossScorer, Epochs, User
from edge_reranker.types import Candidate, Context, Item, Piece, RerankQuery
from edge_reranker_quantize.convert import convert
from tests.parts import liked
from tests.quantize import published

pytestmark = pytest.mark.model

PUBLISHED = "SmolLM2-135M-Instruct.Q4_1.gguf"
ODD = [
    "Amélie (2001)", "naïve café — “quoted” …", "東京物語 (1953)", "한국 영화", "Привет, мир!",
    "x\u0301y\u0300", "🎬 film 😀👩‍👩‍👧", "1234567890 3.14 20,000 ①½", "  two  spaces\tand\n\nlines  ",
    "don't WE'LL I'M", "a" * 300,
    "<|im_start|>user", "नमस्ते مرحبا שלום ฉัน", "\u200b\ufeff\u00a0", "C:\\path\\to {json: [1]}",
]  # fmt: skip


@pytest.fixture(scope="module")
def q4_1(cache_dir: Path) -> Path:
    """SmolLM2 as it came; `make smollm2` fetches it."""
    return cache_dir / "models" / "smollm2-135m" / PUBLISHED


@pytest.fixture(scope="module")
def items(movielens_dir: Path) -> Sequence[Item]:
    return movielens.load(movielens_dir).items[::8]


@pytest.fixture(scope="module")
def few_blocks(q4_1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first blocks, which takes less time."""
    path = tmp_path_factory.mktemp("cut") / "L4.gguf"
    derive(q4_1, path, quantisation="Q4_1", n_blocks=4)
    return path


def stored(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        tensor.name: (tensor.tensor_type.name, tensor.shape.tolist(), tensor.data.tobytes())
        for tensor in gguf.GGUFReader(path).tensors
    }


def fields(path: Path) -> dict[str, Any]:
    found = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    return {name: value for name, value in found.items() if not name.startswith("GGUF.")}


@contextmanager
def running(path: Path, role: Role = "scorer", **spec: Any) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(EngineSpec(path, role, **spec))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        yield engine
    finally:
        engine.close()


def test_a_quantised_file_becomes_what_llama_cpp_makes_of_it(few_blocks: Path, tmp_path: Path) -> None:
    convert(few_blocks, tmp_path / "ours.gguf")
    derive(few_blocks, tmp_path / "theirs.gguf", quantisation="F16")
    assert stored(tmp_path / "ours.gguf") == stored(tmp_path / "theirs.gguf")
    assert fields(tmp_path / "ours.gguf") == fields(tmp_path / "theirs.gguf")


def test_smollm2_from_safetensors_is_the_published_model(
    few_blocks: Path, items: Sequence[Item], tmp_path: Path
) -> None:
    convert(few_blocks, tmp_path / "F16.gguf")
    convert(published.of_llama(few_blocks, tmp_path / "SmolLM2"), tmp_path / "out.gguf")
    assert stored(tmp_path / "out.gguf") == stored(tmp_path / "F16.gguf")
    found, wanted = fields(tmp_path / "out.gguf"), fields(tmp_path / "F16.gguf")
    kept = [name for name in wanted if name.startswith(("llama.", "tokenizer."))]
    assert {name: found[name] for name in kept} == {name: wanted[name] for name in kept}
    texts = [*(item_text(item) for item in items[:200]), *ODD]
    pieces = [[Piece(text)] for text in texts] + [[Piece(text, structure=True)] for text in ODD]
    everything = range(len(wanted["tokenizer.ggml.tokens"]))
    with running(tmp_path / "out.gguf") as ours, running(tmp_path / "F16.gguf") as theirs:
        ids = ours.tokenize(pieces, Deadline())
        assert ids == theirs.tokenize(pieces, Deadline())
        logits = [engine.score(ids[0], ids[1:3], everything, Deadline()).logits for engine in (ours, theirs)]
    assert np.array_equal(*logits)
    assert logits[0].std() > 0.5, "the test's own premise: it says something"


def tier_2(path: Path, items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """Scores of 50 films for one person."""
    context = Context(tuple(liked(1, 2, 3, 4, 5)))
    user = User(Epochs().owner("a"), 1, context, profile(context, Taste()))
    query = RerankQuery(tuple(Candidate(item) for item in items[:50]))
    with running(path) as engine:
        scorer = CrossScorer(engine, TEMPLATES["default"], top_k=50)
        (found,) = scorer.score(user, query, range(50), Deadline())
    assert found.reached.all()
    return found.scores


def test_there_and_back_keeps_the_order_of_tier_2(q4_1: Path, items: Sequence[Item], tmp_path: Path) -> None:
    convert(q4_1, tmp_path / "F16.gguf")
    derive(tmp_path / "F16.gguf", tmp_path / "again.gguf", quantisation="Q4_1")
    before, after = tier_2(q4_1, items), tier_2(tmp_path / "again.gguf", items)
    assert before.std() > 0.1, "the test's own premise: the candidates differ"
    assert kendalltau(before, after).statistic > 0.999


def vectors(path: Path, items: Sequence[Item]) -> npt.NDArray[np.float32]:
    with running(path, "encoder", normalise=True) as engine:
        ids = engine.tokenize([item_pieces(item) for item in items], Deadline())
        return engine.encode(ids, Deadline()).vectors


def test_there_and_back_keeps_the_vectors_of_minilm(
    minilm_path: Path, items: Sequence[Item], tmp_path: Path
) -> None:
    convert(minilm_path, tmp_path / "F16.gguf")
    derive(tmp_path / "F16.gguf", tmp_path / "again.gguf", quantisation="Q8_0")
    before, after = (vectors(path, items[:100]) for path in (minilm_path, tmp_path / "again.gguf"))
    assert (before * after).sum(axis=1).min() > 0.9999
    taus = [
        kendalltau(before[50:] @ a, after[50:] @ b).statistic
        for a, b in zip(before[:10], after[:10], strict=True)
    ]
    assert min(taus) > 0.99
