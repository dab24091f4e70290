"""all-MiniLM-L6-v2 as a GGUF gives what its published weights give, on real titles."""

# ruff: noqa: RUF001  (odd characters are the point)
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.evaluation import movielens
from edge_reranker.models import ModelCache
from edge_reranker.models.convert import convert_bert
from edge_reranker.prompt import item_pieces, item_text
from edge_reranker.types import Item, Piece
from edge_reranker_quantize.convert import convert
from tests import bert

pytestmark = pytest.mark.model

N_HEADS, CLS, SEP = 12, 101, 102
ODD = [
    "Amélie (2001)", "naïve café — “quoted” …", "Ça va? Ñandú ÅÄÖ ß", "東京物語 (1953)", "한국 영화",
    "Ελληνικά Σίσυφος ς", "Привет, мир!", "İstanbul ıI", "x\u0301y\u0300 e\u0301", "🎬 film 😀",
    "$9.99 + 5% = ~10 ^ `a` <b> |c|", "ﬁ ligature ①½", "नमस्ते مرحبا שלום ฉัน", "ﾊﾟ ㈱ ｆｕｌｌ",
    "Dvořák Łódź Øre",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(cache_dir: Path) -> Path:
    """What `edge-reranker model pull minilm` has put there."""
    found = cache_dir / "models" / "minilm"
    assert found.is_dir(), "run `make minilm` first: the model is not there"
    return found


@pytest.fixture(scope="module")
def titles(movielens_dir: Path) -> list[Item]:
    return [Item(item.id, item.title) for item in movielens.load(movielens_dir).items]


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> Mapping[str, int]:
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return {word: at for at, word in enumerate(words)}


@pytest.fixture(scope="module")
def wanted(folder: Path, titles: list[Item], vocabulary: Mapping[str, int]) -> npt.NDArray[np.float64]:
    """The mean of the published weights' last states for every eighth title, [211, 384]."""
    weights = load_file(folder / "model.safetensors")
    ids = [[CLS, *bert.wordpieces(vocabulary, item_text(item)), SEP] for item in titles[::8]]
    return np.array([bert.states(weights, each, N_HEADS).mean(axis=0) for each in ids])


@contextmanager
def encoder(path: Path) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(EngineSpec(path, "encoder"))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        yield engine
    finally:
        engine.close()


def lowest_cosine(path: Path, titles: list[Item], wanted: npt.NDArray[np.float64]) -> float:
    with encoder(path) as engine:
        ids = engine.tokenize([item_pieces(item) for item in titles[::8]], Deadline())
        vectors = engine.encode(ids, Deadline()).vectors
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((vectors * wanted).sum(axis=1) / lengths).min())


@pytest.mark.parametrize("make", [convert_bert, convert])
def test_at_half_precision_the_embeddings_are_those_of_the_published_weights(
    make: Callable[[Path, Path], object],
    folder: Path,
    tmp_path: Path,
    titles: list[Item],
    wanted: npt.NDArray[np.float64],
) -> None:
    make(folder, tmp_path / "F16.gguf")
    assert len(wanted) >= 200
    assert lowest_cosine(tmp_path / "F16.gguf", titles, wanted) > 0.9999


def test_the_file_that_serves_is_close_to_them(
    cache_dir: Path, titles: list[Item], wanted: npt.NDArray[np.float64]
) -> None:
    _, path = ModelCache(cache_dir).open("minilm", "encoder")
    assert path.stat().st_size < 26e6
    assert lowest_cosine(path, titles, wanted) > 0.999


def test_every_title_and_odd_characters_fall_into_the_tokenizers_pieces(
    cache_dir: Path, titles: list[Item], vocabulary: Mapping[str, int]
) -> None:
    texts = [*(item_text(item) for item in titles), *ODD]
    _, path = ModelCache(cache_dir).open("minilm", "encoder")
    with encoder(path) as engine:
        found = engine.tokenize([[Piece(text)] for text in texts], Deadline())
    differ = [
        text for text, ids in zip(texts, found, strict=True) if ids != bert.wordpieces(vocabulary, text)
    ]
    assert differ == []
    assert sum(100 in ids for ids in found) < 20, "the test's own premise: few words are unknown"
