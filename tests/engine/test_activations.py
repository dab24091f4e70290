"""What weights are multiplied with and what blocks change, against the same forward pass in numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.engine import activations
from edge_reranker.engine.activations import observe
from edge_reranker.engine.llama import LlamaModel
from edge_reranker.engine.quantiser import derive
from edge_reranker.engine.types import EngineSpec
from edge_reranker.errors import EngineError, InvalidArgument, ModelInvalid
from edge_reranker.types import Piece
from tests.engine import reference, tiny_models
from tests.engine.tiny_models import N_LAYER, Weights

TEXTS = [[Piece("yes no")], [Piece("heat, 1995")], [Piece("casino")]]


def ids_of(path: Path) -> list[list[int]]:
    model = LlamaModel(EngineSpec(path, "encoder", 1))
    return [[*model._before, *model.tokenize(text), *model._after] for text in TEXTS]


def qwen3_states(weights: Weights, ids: Sequence[int]) -> list[np.ndarray]:
    states = [weights["token_embd.weight"].astype(np.float64)[list(ids)]]
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        between = states[-1] + reference._qwen3_attention(weights, block, states[-1])
        states.append(between + reference._qwen3_feed_forward(weights, block, between))
    return states


def bert_states(weights: Weights, ids: Sequence[int]) -> list[np.ndarray]:
    """Those of ``reference.bert_score``, block by block."""
    states = weights["token_embd.weight"].astype(np.float64)[list(ids)]
    states = states + weights["token_types.weight"][0] + weights["position_embd.weight"][: len(ids)]
    found = [reference._layer_norm(weights, "token_embd_norm", states)]
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        queries, keys, values = (
            reference._heads(reference._linear(weights, f"{block}attn_{name}", found[-1]), tiny_models.N_HEAD)
            for name in "qkv"
        )
        mixed = reference._attention(queries, keys, values, causal=False)
        mixed = reference._linear(weights, f"{block}attn_output", mixed)
        states = reference._layer_norm(weights, f"{block}attn_output_norm", found[-1] + mixed)
        hidden = reference._gelu(reference._linear(weights, f"{block}ffn_up", states))
        hidden = reference._linear(weights, f"{block}ffn_down", hidden)
        found.append(reference._layer_norm(weights, f"{block}layer_output_norm", states + hidden))
    return found


def influence(texts: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    found = []
    for block in range(N_LAYER):
        pairs = [(states[block], states[block + 1]) for states in texts]
        cosines = [(a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1) for a, b in pairs]
        found.append(1 - np.concatenate(cosines).mean())
    return np.array(found)


def test_of_a_causal_model_every_matrix_is_counted_and_the_tied_one_as_its_output(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    weights = tiny_models.write_qwen3(path)
    texts = [qwen3_states(weights, ids) for ids in ids_of(path)]
    found = observe(path, TEXTS, max_tokens=1_000)
    n_tokens = sum(map(len, ids_of(path)))
    assert found.n_tokens == n_tokens
    assert set(found.columns) == {
        name for name, array in weights.items() if array.ndim == 2 and "norm" not in name
    }
    assert {columns.n_tokens for columns in found.columns.values()} == {n_tokens}
    for block in range(N_LAYER):
        inputs = np.concatenate(
            [reference._rms_norm(each[block], weights[f"blk.{block}.attn_norm.weight"]) for each in texts]
        )
        for name in ("attn_q", "attn_k", "attn_v"):
            sums = found.columns[f"blk.{block}.{name}.weight"].sums
            np.testing.assert_allclose(sums, (inputs**2).sum(0), rtol=5e-3)
    last = np.concatenate([reference._rms_norm(each[-1], weights["output_norm.weight"]) for each in texts])
    np.testing.assert_allclose(found.importance["token_embd.weight"], (last**2).mean(0), rtol=5e-3)
    np.testing.assert_allclose(found.influence, influence(texts), atol=1e-4)


def test_of_a_two_way_model_separators_are_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    weights = tiny_models.write_bert(path)
    texts = [bert_states(weights, ids) for ids in ids_of(path)]
    found = observe(path, TEXTS, max_tokens=1_000)
    for block in range(N_LAYER):
        inputs = np.concatenate([each[block] for each in texts])
        sums = found.columns[f"blk.{block}.attn_q.weight"].sums
        np.testing.assert_allclose(sums, (inputs**2).sum(0), rtol=5e-3)
    np.testing.assert_allclose(found.influence, influence(texts), atol=1e-4)


def test_texts_are_read_until_there_are_enough_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    tiny_models.write_qwen3(path)
    told: list[int] = []
    found = observe(path, TEXTS, max_tokens=4, progress=told.append)
    first = len(ids_of(path)[0])
    assert found.n_tokens == told[-1] == 4
    assert told[0] == min(4, first)
    with pytest.raises(InvalidArgument, match="give others"):
        observe(path, [[Piece("")]], max_tokens=4)


def test_what_was_observed_is_what_a_file_is_made_with(tmp_path: Path) -> None:
    """The names and sizes are those that llama.cpp looks for: it ends in an error for a wrong size."""
    path = tmp_path / "a.gguf"
    tiny_models.write_qwen3(path)
    found = observe(path, TEXTS, max_tokens=100)
    derive(path, tmp_path / "with.gguf", quantisation="Q4_0", importance=found.importance)
    derive(path, tmp_path / "without.gguf", quantisation="Q4_0")
    assert (tmp_path / "with.gguf").read_bytes() != (tmp_path / "without.gguf").read_bytes()
    wrong = {name: means[:-1].copy() for name, means in found.importance.items()}
    with pytest.raises(ModelInvalid, match="imatrix size 31 is different from tensor size 32"):
        derive(path, tmp_path / "wrong.gguf", quantisation="Q4_0", importance=wrong)


def test_tensors_that_are_kept_otherwise_are_no_silent_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another version of llama.cpp, whose tensors have a field more."""

    class Other(ctypes.Structure):
        pass

    Other._fields_ = [("more", ctypes.c_int64), *activations._Tensor._fields_]
    path = tmp_path / "a.gguf"
    tiny_models.write_qwen3(path)
    monkeypatch.setattr(activations, "_Tensor", Other)
    with pytest.raises(EngineError, match="keeps tensors otherwise"):
        observe(path, TEXTS, max_tokens=4)


@pytest.mark.model
def test_the_states_of_the_shipped_encoders_blocks_are_found(minilm_path: Path, encoder_path: Path) -> None:
    for path, n_blocks in ((minilm_path, 6), (encoder_path, None)):
        found = observe(path, TEXTS, max_tokens=100)
        assert found.influence is not None
        assert n_blocks in (None, len(found.influence))
        assert ((found.influence > 0.005) & (found.influence < 1.5)).all()
