"""Tiny GGUF files with random weights, of the two architectures that rerankers come in.

Each writer returns the weights it wrote, by their names in the file, for ``reference``.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from edge_reranker.prompt import TEMPLATES

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]

N_LAYER = 2
N_EMBD = 32
N_FF = 64
N_HEAD = 2
N_HEAD_KV = 1
HEAD_DIM = 32  # twice n_embd / n_head: Qwen3's heads are wider than their share
ROPE_BASE = 10_000.0
EPS = 1e-6
BERT_EPS = 1e-12
BERT_N_CTX = 128

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = (
    gguf.TokenType.NORMAL,
    gguf.TokenType.UNKNOWN,
    gguf.TokenType.CONTROL,
    gguf.TokenType.USER_DEFINED,
)


class _Random:
    """Random weights, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, n_out: int, n_in: int) -> Array:
        return self._normal(0.0, 1.5 / np.sqrt(n_in), (n_out, n_in))

    def table(self, n_rows: int, n_columns: int) -> Array:
        return self._normal(0.0, 1.0, (n_rows, n_columns))

    def gain(self, n: int) -> Array:
        return self._normal(1.0, 0.3, (n,))

    def bias(self, n: int) -> Array:
        return self._normal(0.0, 0.3, (n,))

    def _normal(self, mean: float, deviation: float, shape: tuple[int, ...]) -> Array:
        return self._random.normal(mean, deviation, shape).astype(np.float32)


def write_qwen3(path: Path, *, seed: int = 0, rank_head: bool = False) -> Weights:
    """A causal model with grouped heads, norms on queries and keys, RoPE, and tied embeddings.

    ``rank_head`` adds what llama.cpp's converter makes of Qwen3-Reranker: two rows of the embeddings as a
    classifier, and pooling by rank.
    """
    tokens, types, merges = _qwen3_vocabulary()
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(N_LAYER)
    writer.add_context_length(1024)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    weights = _qwen3_weights(_Random(seed), len(tokens))
    if rank_head:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        rows = [tokens.index("yes"), tokens.index("no")]
        weights["cls.output.weight"] = weights["token_embd.weight"][rows]
    return _finish(writer, weights)


def _qwen3_vocabulary() -> tuple[list[str], list[int], list[str]]:
    template = TEMPLATES["qwen3-reranker"]
    merges = ["y e", "ye s", "n o", *_merges(template.start + template.question + template.after_candidate)]
    specials = {
        "<|endoftext|>": CONTROL,
        "<|im_start|>": CONTROL,
        "<|im_end|>": CONTROL,
        "<think>": USER_DEFINED,
        "</think>": USER_DEFINED,
    }
    plain = [*_byte_characters(), *(merge.replace(" ", "") for merge in merges)]
    types = [NORMAL] * len(plain) + list(specials.values())
    return [*plain, *specials], [int(kind) for kind in types], merges


def _merges(text: str) -> list[str]:
    """Merges that make words of a prompt, letter by letter, so that it does not take a token a byte."""
    merges = {}
    for word in re.findall(" ?[A-Za-z]+", text):
        letters = word.replace(" ", "Ġ")  # how byte-level BPE writes a space
        merges |= {f"{letters[:end]} {letters[end]}": None for end in range(1, len(letters))}
    return [merge for merge in merges if merge not in ("y e", "ye s", "n o")]


def _byte_characters() -> list[str]:
    """One printable character for each byte, as byte-level BPE writes them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + at) for at in range(len(others))]


def _qwen3_weights(random: _Random, n_vocab: int) -> dict[str, Array]:
    weights = {"token_embd.weight": random.table(n_vocab, N_EMBD), "output_norm.weight": random.gain(N_EMBD)}
    for layer in range(N_LAYER):
        weights |= {
            f"blk.{layer}.{name}.weight": array
            for name, array in {
                "attn_norm": random.gain(N_EMBD),
                "attn_q": random.matrix(N_HEAD * HEAD_DIM, N_EMBD),
                "attn_k": random.matrix(N_HEAD_KV * HEAD_DIM, N_EMBD),
                "attn_v": random.matrix(N_HEAD_KV * HEAD_DIM, N_EMBD),
                "attn_q_norm": random.gain(HEAD_DIM),
                "attn_k_norm": random.gain(HEAD_DIM),
                "attn_output": random.matrix(N_EMBD, N_HEAD * HEAD_DIM),
                "ffn_norm": random.gain(N_EMBD),
                "ffn_gate": random.matrix(N_FF, N_EMBD),
                "ffn_up": random.matrix(N_FF, N_EMBD),
                "ffn_down": random.matrix(N_EMBD, N_FF),
            }.items()
        }
    return weights


def write_bert(
    path: Path,
    *,
    seed: int = 0,
    leave_out: tuple[str, ...] = (),
    put_in: Weights | None = None,
    labels: tuple[str, ...] = (),
) -> Weights:
    """A two-way model with a classifier; ``leave_out`` and ``put_in`` change its tensors, by name.

    ``labels`` names the classifier's outputs, where there is more than the one of a ranker.
    """
    tokens, types = _bert_vocabulary()
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(N_LAYER)
    writer.add_context_length(BERT_N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(BERT_EPS)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    if labels:
        writer.add_classifier_output_labels(labels)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    for add, token in (
        (writer.add_pad_token_id, "[PAD]"),
        (writer.add_unk_token_id, "[UNK]"),
        (writer.add_bos_token_id, "[CLS]"),
        (writer.add_sep_token_id, "[SEP]"),
        (writer.add_mask_token_id, "[MASK]"),
    ):
        add(tokens.index(token))
    weights = _bert_weights(_Random(seed), len(tokens), max(1, len(labels)))
    kept = {name: array for name, array in weights.items() if name not in leave_out}
    return _finish(writer, {**kept, **(put_in or {})})


CLS, SEP = 2, 3


def _bert_vocabulary() -> tuple[list[str], list[int]]:
    """Whole words begin with "▁" in a GGUF; what follows inside a word does not."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits
    begins = [f"▁{character}" for character in letters + string.punctuation]
    types = [CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL] + [NORMAL] * (len(begins) + len(letters))
    return [*specials, *begins, *letters], [int(kind) for kind in types]


def _bert_weights(random: _Random, n_vocab: int, n_labels: int) -> dict[str, Array]:
    weights = {
        "token_embd.weight": random.table(n_vocab, N_EMBD),
        "token_types.weight": random.table(2, N_EMBD),
        "position_embd.weight": random.table(BERT_N_CTX, N_EMBD),
        "token_embd_norm.weight": random.gain(N_EMBD),
        "token_embd_norm.bias": random.bias(N_EMBD),
        "cls.weight": random.matrix(N_EMBD, N_EMBD),
        "cls.bias": random.bias(N_EMBD),
        "cls.output.weight": random.table(n_labels, N_EMBD),
        "cls.output.bias": random.bias(n_labels),
    }
    shapes = {
        "attn_q": (N_EMBD, N_EMBD),
        "attn_k": (N_EMBD, N_EMBD),
        "attn_v": (N_EMBD, N_EMBD),
        "attn_output": (N_EMBD, N_EMBD),
        "ffn_up": (N_FF, N_EMBD),
        "ffn_down": (N_EMBD, N_FF),
    }
    for layer in range(N_LAYER):
        for name, (n_out, n_in) in shapes.items():
            weights[f"blk.{layer}.{name}.weight"] = random.matrix(n_out, n_in)
            weights[f"blk.{layer}.{name}.bias"] = random.bias(n_out)
        for name in ("attn_output_norm", "layer_output_norm"):
            weights[f"blk.{layer}.{name}.weight"] = random.gain(N_EMBD)
            weights[f"blk.{layer}.{name}.bias"] = random.bias(N_EMBD)
    return weights


def _finish(writer: gguf.GGUFWriter, weights: dict[str, Array]) -> Weights:
    for name, array in weights.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights
