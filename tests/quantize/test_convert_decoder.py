"""Llama, Qwen2 and Qwen3 as published become files with which llama.cpp computes what they define."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.errors import InvalidArgument, ModelInvalid
from edge_reranker.types import Piece
from edge_reranker_quantize.convert import convert
from tests.quantize import published

IDS = [[5, 80, 258, 7, 99, 200, 31], [257, 8, 8, 9], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71]]
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, linear rope": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama, llama3 rope": ("llama", {"rope_scaling": LLAMA3}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
}
# Largest difference over the deviation of logits. Keys and values are kept in half precision; where the
# weights are rounded, so are the activations.
TOLERANCES = {"F32": 0.01, "F16": 0.015, "BF16": 0.15}


def logits(path: Path, n_rows: int, sequences: Sequence[list[int]]) -> npt.NDArray[np.float32]:
    """llama.cpp's logits of all tokens at the end of each sequence."""
    engine = WorkerEngine(EngineSpec(path, "scorer"))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        rows = [engine.score(ids[:-2], [ids[-2:]], range(n_rows), Deadline()).logits[0] for ids in sequences]
    finally:
        engine.close()
    return np.array(rows)


def error(found: npt.NDArray[np.float32], wanted: published.Array) -> float:
    return float(np.abs(found - wanted).max() / wanted.std())


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_gives_the_logits_of_its_definition(name: str, tmp_path: Path) -> None:
    family, changes = MODELS[name]
    of = published.config(family, **changes)
    arrays = published.weights(of)
    folder = published.write(tmp_path / "model", of, arrays, n_files=3)
    convert(folder, tmp_path / "F32.gguf", kind="F32")
    found = logits(tmp_path / "F32.gguf", published.N_ROWS, IDS)
    wanted = np.array([published.logits(of, arrays, ids) for ids in IDS])
    assert error(found, wanted) < TOLERANCES["F32"]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_half_a_number_gives_the_logits_of_rounded_weights(family: str, kind: str, tmp_path: Path) -> None:
    of = published.config(family)
    arrays = published.weights(of)
    convert(published.write(tmp_path / "model", of, arrays), tmp_path / "out.gguf", kind=kind)
    matrices = [t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors if len(t.shape) == 2]
    assert {tensor.tensor_type.name for tensor in matrices} == {kind}
    found = logits(tmp_path / "out.gguf", published.N_ROWS, IDS)
    stored = {n: rounded(values, kind) if values.ndim > 1 else values for n, values in arrays.items()}
    wanted = np.array([published.logits(of, stored, ids) for ids in IDS])
    assert error(found, wanted) < TOLERANCES[kind]


def rounded(values: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float32]:
    if kind == "F16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def test_weights_in_bf16_are_read_as_they_are(tmp_path: Path) -> None:
    of = published.config("qwen2")
    arrays = {name: rounded(values, "BF16") for name, values in published.weights(of).items()}
    stored = []
    for name in ("single", "half"):
        folder = published.write(tmp_path / name, of, arrays)
        if name == "half":
            as_bf16(folder / "model.safetensors")
        convert(folder, tmp_path / "out.gguf", kind="F32", force=True)
        stored.append({t.name: t.data.tobytes() for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors})
    assert stored[0] == stored[1]


def as_bf16(path: Path) -> None:
    """The same file, each value's upper half kept."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    data, told, at = b"", {}, 0
    for name, meta in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in meta["data_offsets"])
        half = (np.frombuffer(raw[start:end], np.uint32) >> 16).astype(np.uint16).tobytes()
        told[name] = {"dtype": "BF16", "shape": meta["shape"], "data_offsets": [at, at + len(half)]}
        data, at = data + half, at + len(half)
    text = json.dumps(told).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_tokenizer_template_and_metadata_are_kept(tmp_path: Path) -> None:
    of = published.config("qwen2")
    folder = published.write(
        tmp_path / "Tiny-Model", of, published.weights(of), pre=published.split(r"\p{N}")
    )
    convert(folder, tmp_path / "out.gguf")
    found = fields(tmp_path / "out.gguf")
    tokens, kinds = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    first = len(published.TOKENS)
    assert tokens[:first] == published.TOKENS
    assert tokens[first : first + 4] == list(published.SPECIAL)
    control, user, unused = (gguf.TokenType[n] for n in ("CONTROL", "USER_DEFINED", "UNUSED"))
    assert kinds[first : first + 5] == [control, control, control, user, unused]
    assert len(tokens) == len(kinds) == published.N_ROWS
    assert found["tokenizer.ggml.merges"] == [" ".join(pair) for pair in published.MERGES]
    assert tokens[found["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert tokens[found["tokenizer.ggml.padding_token_id"]] == "<|endoftext|>"
    assert found["tokenizer.ggml.bos_token_id"] == 257
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.chat_template"] == published.TEMPLATE
    assert found["general.license"] == "apache-2.0"
    assert found["general.languages"] == ["en"]
    assert found["general.name"] == "Tiny Model"
    assert found["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16


def test_a_beginning_of_text_that_the_tokenizer_adds_is_added(tmp_path: Path) -> None:
    of = published.config("llama")
    folder = published.write(tmp_path / "model", of, published.weights(of))
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"add_bos_token": True}))
    convert(folder, tmp_path / "out.gguf")
    assert fields(tmp_path / "out.gguf")["tokenizer.ggml.add_bos_token"] is True


@pytest.mark.parametrize(
    ("pre", "name"),
    [
        (published.BYTE_LEVEL, "gpt-2"),
        (published.SMOLLM, "smollm"),
        (published.split(r"\p{N}"), "qwen2"),
        (published.split(r"\p{N}{1,3}"), "llama-bpe"),
    ],
)
def test_the_pre_tokenizer_is_recognised(pre: object, name: str, tmp_path: Path) -> None:
    of = published.config("llama")
    folder = published.write(tmp_path / "model", of, published.weights(of), pre=pre)
    convert(folder, tmp_path / "out.gguf")
    assert fields(tmp_path / "out.gguf")["tokenizer.ggml.pre"] == name


def test_an_unknown_pre_tokenizer_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    of = published.config("llama")
    pre = published.split(r"\p{N}{1,2}")
    folder = published.write(tmp_path / "model", of, published.weights(of), pre=pre)
    with pytest.raises(InvalidArgument, match=r"^--pre: needed: .*none that is recognised"):
        convert(folder, tmp_path / "out.gguf")
    with pytest.raises(ModelInvalid, match=r"does not load what comes of it .*'nonsense'"):
        convert(folder, tmp_path / "out.gguf", pre="nonsense")
    assert not (tmp_path / "out.gguf").exists()
    convert(folder, tmp_path / "out.gguf", pre="smollm")
    assert fields(tmp_path / "out.gguf")["tokenizer.ggml.pre"] == "smollm"


def test_control_strings_become_their_tokens_only_as_structure(tmp_path: Path) -> None:
    of = published.config("qwen2")
    convert(published.write(tmp_path / "model", of, published.weights(of)), tmp_path / "out.gguf")
    engine = WorkerEngine(EngineSpec(tmp_path / "out.gguf", "scorer"))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        structure, data = engine.tokenize(
            [[Piece("<|im_end|>", structure=True)], [Piece("<|im_end|> the")]], Deadline()
        )
    finally:
        engine.close()
    first = len(published.TOKENS)
    assert structure == [first + 2]
    assert not set(data) & set(range(first, published.N_ROWS))
    assert data[-1] == published.TOKENS.index("Ġthe")
