"""Llama, Qwen2 and Qwen3 as published: their tensors and settings by the names that llama.cpp knows."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import ModelInvalid
from edge_reranker.models.gguf_tensors import require_gguf
from edge_reranker_quantize.convert_source import Checkpoint
from edge_reranker_quantize.convert_tokenizer import write_bpe
from edge_reranker_quantize.convert_write import Tensor

FAMILIES = ("llama", "qwen2", "qwen3")
_SUFFIXES = (".weight", ".bias")
# Made again from the settings by whoever computes.
_LEFT_OUT = re.compile(r"rotary_emb\.inv_freq$")


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The model's dimensions, by config.json."""

    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head: int
    n_vocab: int

    def of(self, kind: str) -> tuple[int, ...]:
        """The shape of a weight, by its name among gguf's tensors."""
        q, kv = self.n_heads * self.head, self.n_kv_heads * self.head
        return {
            "TOKEN_EMBD": (self.n_vocab, self.n_embd), "OUTPUT": (self.n_vocab, self.n_embd),
            "ATTN_Q": (q, self.n_embd), "ATTN_K": (kv, self.n_embd), "ATTN_V": (kv, self.n_embd),
            "ATTN_OUT": (self.n_embd, q), "ATTN_Q_NORM": (self.head,), "ATTN_K_NORM": (self.head,),
            "FFN_GATE": (self.n_ff, self.n_embd), "FFN_UP": (self.n_ff, self.n_embd),
            "FFN_DOWN": (self.n_embd, self.n_ff),
        }.get(kind, (self.n_embd,))  # fmt: skip


class Decoder:
    """A checkpoint of one of the ``FAMILIES``."""

    def __init__(self, source: Checkpoint, pre: str | None = None) -> None:
        """``pre`` names a pre-tokenizer that is not recognised.

        Raises ModelInvalid for settings that llama.cpp does not follow, or tensors that do not fit them.
        """
        self._source = source
        self._pre = pre
        self._gguf = require_gguf()
        self.architecture = str(source.config.get("model_type"))
        self._sizes = _sizes(source)
        self._rope = _rope(source)
        _plain(source)
        self.tensors = [*self._extra(), *self._tensors()]

    def describe(self, writer: Any) -> None:
        """The model's settings and its vocabulary in a GGUFWriter."""
        sizes, config = self._sizes, self._source.config
        writer.add_block_count(sizes.n_layers)
        writer.add_context_length(int(config["max_position_embeddings"]))
        writer.add_embedding_length(sizes.n_embd)
        writer.add_feed_forward_length(sizes.n_ff)
        writer.add_head_count(sizes.n_heads)
        writer.add_head_count_kv(sizes.n_kv_heads)
        writer.add_key_length(sizes.head)
        writer.add_value_length(sizes.head)
        writer.add_rope_dimension_count(sizes.head)
        writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
        writer.add_vocab_size(sizes.n_vocab)
        writer.add_rope_freq_base(float(self._rope["rope_theta"]))
        kind = self._rope["rope_type"]
        if kind in ("linear", "yarn"):
            writer.add_rope_scaling_type(self._gguf.RopeScalingType[kind.upper()])
            writer.add_rope_scaling_factor(float(self._rope["factor"]))
        if kind == "yarn":
            trained = self._rope.get("original_max_position_embeddings", config["max_position_embeddings"])
            writer.add_rope_scaling_orig_ctx_len(int(trained))
        write_bpe(writer, self._source, sizes.n_vocab, self._pre)

    def _tensors(self) -> Iterator[Tensor]:
        names = self._gguf.get_tensor_name_map(self._arch, self._sizes.n_layers)
        left = self._wanted()
        for origin, shape in self._source.shapes.items():
            if _LEFT_OUT.search(origin) or (origin == "lm_head.weight" and self._tied):
                continue
            # A bare model, such as one for embeddings, has the same names without the first part.
            found = next(
                filter(None, (names.get_type_and_name(n, _SUFFIXES) for n in (origin, f"model.{origin}"))),
                None,
            )
            if found is None:
                raise ModelInvalid(
                    f"{self._source.folder}: tensor {origin} has no place in a {self.architecture}; "
                    "only models that predict the next token, and their bodies, are converted"
                )
            kind, name = found
            wanted = self._sizes.of(kind.name)
            wanted = wanted[:1] if name.endswith(".bias") else wanted
            if shape != wanted:
                raise self._invalid(f"tensor {origin} has the shape {shape}, config.json wants {wanted}")
            left.pop(name, None)
            yield Tensor(name, shape, self._reader(origin, kind.name), origin, single=len(shape) < 2)
        if left:
            raise self._invalid(f"no tensor for {next(iter(left))}: files are missing")

    def _wanted(self) -> dict[str, None]:
        """The tensors without which it is no model."""
        kind = self._gguf.MODEL_TENSOR
        whole = [kind.TOKEN_EMBD, kind.OUTPUT_NORM]
        architectures = self._source.config.get("architectures") or [""]
        if not self._tied and not str(architectures[0]).endswith("Model"):
            whole.append(kind.OUTPUT)
        block = [kind.ATTN_NORM, kind.ATTN_Q, kind.ATTN_K, kind.ATTN_V, kind.ATTN_OUT]
        block += [kind.FFN_NORM, kind.FFN_GATE, kind.FFN_UP, kind.FFN_DOWN]
        biased = [kind.ATTN_Q, kind.ATTN_K, kind.ATTN_V] if self.architecture == "qwen2" else []
        if self.architecture == "qwen3":
            block += [kind.ATTN_Q_NORM, kind.ATTN_K_NORM]
        wanted = [f"{self._gguf.TENSOR_NAMES[each]}.weight" for each in whole]
        for layer in range(self._sizes.n_layers):
            wanted += [f"{self._gguf.TENSOR_NAMES[each].format(bid=layer)}.weight" for each in block]
            wanted += [f"{self._gguf.TENSOR_NAMES[each].format(bid=layer)}.bias" for each in biased]
        return dict.fromkeys(wanted)

    def _reader(self, origin: str, kind: str) -> Any:
        # llama.cpp turns neighbouring pairs of a Llama's head by RoPE; the publishers' code turns the first
        # half with the second.
        if self.architecture != "llama" or kind not in ("ATTN_Q", "ATTN_K"):
            return lambda: self._source.read(origin)
        n_heads = self._sizes.n_heads if kind == "ATTN_Q" else self._sizes.n_kv_heads
        return lambda: interleaved(self._source.read(origin), n_heads)

    def _extra(self) -> Iterator[Tensor]:
        if self._rope["rope_type"] == "llama3":
            factors = _llama3_factors(self._rope, self._sizes.head)
            name = f"{self._gguf.TENSOR_NAMES[self._gguf.MODEL_TENSOR.ROPE_FREQS]}.weight"
            yield Tensor(name, factors.shape, lambda: factors, "rope_scaling", single=True)

    @property
    def _arch(self) -> Any:
        return self._gguf.MODEL_ARCH[self.architecture.upper()]

    @property
    def _tied(self) -> bool:
        return bool(self._source.config.get("tie_word_embeddings"))

    def _invalid(self, problem: str) -> ModelInvalid:
        return ModelInvalid(f"{self._source.folder}: {problem}; fetch it again")


def interleaved(rows: NDArray[np.float32], n_heads: int) -> NDArray[np.float32]:
    """A projection's rows, with those of each head's two halves taken in turns."""
    return rows.reshape(n_heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _sizes(source: Checkpoint) -> _Sizes:
    config = source.config
    try:
        n_heads = int(config["num_attention_heads"])
        sizes = _Sizes(
            n_layers=int(config["num_hidden_layers"]),
            n_embd=int(config["hidden_size"]),
            n_ff=int(config["intermediate_size"]),
            n_heads=n_heads,
            n_kv_heads=int(config.get("num_key_value_heads") or n_heads),
            head=int(config.get("head_dim") or config["hidden_size"] // n_heads),
            n_vocab=int(config["vocab_size"]),
        )
        _ = int(config["max_position_embeddings"]), float(config["rms_norm_eps"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelInvalid(f"{source.folder}/config.json: {error!r} is missing or no number") from error
    if min(dataclasses.astuple(sizes)) < 1:
        raise ModelInvalid(f"{source.folder}/config.json: sizes must be 1 or more, found {sizes}")
    return sizes


def _plain(source: Checkpoint) -> None:
    config = source.config
    refused = (
        ("hidden_act", config.get("hidden_act", "silu"), "silu"),
        ("use_sliding_window", bool(config.get("use_sliding_window")), False),
    )
    for name, found, wanted in refused:
        if found != wanted:
            raise ModelInvalid(
                f"{source.folder}/config.json: {name} is {found!r}; only {wanted!r} is converted"
            )


def _rope(source: Checkpoint) -> Mapping[str, Any]:
    """Base and scaling of the positions; older files say them in several places."""
    config = source.config
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    rope["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
    needed: dict[str, tuple[str, ...]] = {
        "default": (),
        "linear": ("factor",),
        "yarn": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }
    where = f"{source.folder}/config.json"
    if rope["rope_type"] not in needed:
        raise ModelInvalid(f"{where}: rope_type is {rope['rope_type']!r}; {', '.join(needed)} are converted")
    known = {"rope_theta", "rope_type", "type", "original_max_position_embeddings"}
    if more := sorted(set(rope) - known - set(needed[rope["rope_type"]])):
        raise ModelInvalid(f"{where}: its rope settings have {more[0]}, which is not converted")
    for name in ("rope_theta", *needed[rope["rope_type"]]):
        if not isinstance(rope.get(name), int | float):
            raise ModelInvalid(f"{where}: its rope settings have no number {name}")
    return rope


def _llama3_factors(rope: Mapping[str, Any], head: int) -> NDArray[np.float32]:
    """What each pair's angle is divided by: 1 for short waves, the factor for long ones (Llama 3.1)."""
    angles = float(rope["rope_theta"]) ** -(np.arange(0, head, 2) / head)
    turns = rope["original_max_position_embeddings"] * angles / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[np.float32] = (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)
    return factors
