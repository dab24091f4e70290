"""Model files of a few kilobytes with seeded random weights, and LoRA adapters for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

N_EMBD, N_HEAD, N_FF, N_LAYER = 64, 4, 128, 2
RANK = 4


def byte_tokens() -> list[str]:
    """The 256 byte tokens of a GPT-2 vocabulary: printable bytes stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable}
    names |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    return [names[byte] for byte in range(256)]


def llama_weights(n_embd: int = N_EMBD, *, seed: int = 0) -> dict[str, Array]:
    """The tensors of a Llama of 2 blocks; matrices are [out, in]."""
    random = np.random.default_rng(seed)

    def matrix(out: int, in_: int) -> Array:
        return (random.standard_normal((out, in_)) / np.sqrt(in_)).astype(np.float32)

    weights = {
        "token_embd.weight": matrix(257, n_embd) * np.float32(np.sqrt(n_embd)),
        "output_norm.weight": np.ones(n_embd, np.float32),
    }
    for block in range(N_LAYER):
        for name, out, in_ in (
            ("attn_q", n_embd, n_embd),
            ("attn_k", n_embd, n_embd),
            ("attn_v", n_embd, n_embd),
            ("attn_output", n_embd, n_embd),
            ("ffn_gate", N_FF, n_embd),
            ("ffn_up", N_FF, n_embd),
            ("ffn_down", n_embd, N_FF),
        ):
            weights[f"blk.{block}.{name}.weight"] = matrix(out, in_)
        for norm in ("attn_norm", "ffn_norm"):
            weights[f"blk.{block}.{norm}.weight"] = np.ones(n_embd, np.float32)
    return weights


def write_llama(path: Path, weights: Mapping[str, Array], *, heads: int = N_HEAD) -> Path:
    """A float32 model of those weights; its tokens are bytes."""
    n_embd = weights["output_norm.weight"].shape[0]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(1024)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(N_FF)
    writer.add_block_count(N_LAYER)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(n_embd // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*byte_tokens(), "<end>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)
    for name, tensor in weights.items():
        writer.add_tensor(name, tensor)
    return _written(writer, path)


def lora(shapes: Mapping[str, tuple[int, int]], *, seed: int = 1) -> dict[str, tuple[Array, Array]]:
    """For each matrix [out, in], a pair A [rank, in] and B [out, rank]."""
    random = np.random.default_rng(seed)
    return {
        name: (
            random.standard_normal((RANK, in_)).astype(np.float32) / np.float32(np.sqrt(in_)),
            random.standard_normal((out, RANK)).astype(np.float32),
        )
        for name, (out, in_) in shapes.items()
    }


def write_lora(
    path: Path, pairs: Mapping[str, tuple[Array, Array]], *, alpha: float = RANK, architecture: str = "llama"
) -> Path:
    """An adapter: it adds ``alpha / rank * B @ A`` to each matrix."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, (a, b) in pairs.items():
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    return _written(writer, path)


def matrices(path: Path) -> dict[str, tuple[int, int]]:
    """The matrices of a model's blocks, by name, as (out, in)."""
    return {
        tensor.name: (int(tensor.shape[1]), int(tensor.shape[0]))
        for tensor in gguf.GGUFReader(path).tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2
    }


def _written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
