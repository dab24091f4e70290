"""Models as they are published: folders of safetensors, tiny or made back from a GGUF; and what they compute.

The forward pass is written from the architectures' definitions (Llama: arXiv 2302.13971; Qwen2: 2407.10671;
Qwen3: 2505.09388), in float64, one sequence at a time, with the publishers' names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from edge_reranker.models import gguf_tensors
from tests.gguf_files import byte_tokens

Array = npt.NDArray[np.float64]
Weights = dict[str, npt.NDArray[np.float32]]
Config = dict[str, Any]

SPECIAL = {"<|endoftext|>": True, "<|im_start|>": True, "<|im_end|>": True, "<think>": False}
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
TOKENS = [*byte_tokens(), *("".join(pair) for pair in MERGES)]
N_ROWS = 272  # some more than there are tokens, as Qwen has
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SMOLLM = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]}


def split(digits: str) -> dict[str, Any]:
    """The pre-tokenizer of Qwen2 (one digit) and of Llama 3 (up to three)."""
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, BYTE_LEVEL | {"use_regex": False}]}


def config(family: str, **changes: Any) -> Config:
    """A model of two layers, with grouped heads; Qwen3's are wider than their share."""
    found: Config = {
        "model_type": family,
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0,
        "tie_word_embeddings": False,
        "vocab_size": N_ROWS,
        "bos_token_id": 257,
    }
    if family == "qwen3":
        found["head_dim"] = 32
    return found | changes


def weights(of: Config, *, seed: int = 0) -> Weights:
    """Seeded random tensors of such a model; matrices are [out, in]."""
    random = np.random.default_rng(seed)

    def normal(mean: float, deviation: float, *shape: int) -> npt.NDArray[np.float32]:
        return random.normal(mean, deviation, shape).astype(np.float32)

    n_embd, n_ff, heads = of["hidden_size"], of["intermediate_size"], of["num_attention_heads"]
    head = of.get("head_dim", n_embd // heads)
    sizes = {
        "self_attn.q_proj": (heads * head, n_embd),
        "self_attn.k_proj": (of["num_key_value_heads"] * head, n_embd),
        "self_attn.v_proj": (of["num_key_value_heads"] * head, n_embd),
        "self_attn.o_proj": (n_embd, heads * head),
        "mlp.gate_proj": (n_ff, n_embd),
        "mlp.up_proj": (n_ff, n_embd),
        "mlp.down_proj": (n_embd, n_ff),
    }
    found = {
        "model.embed_tokens.weight": normal(0, 1, of["vocab_size"], n_embd),
        "model.norm.weight": normal(1, 0.3, n_embd),
    }
    if not of["tie_word_embeddings"]:
        found["lm_head.weight"] = normal(0, 0.2, of["vocab_size"], n_embd)
    for layer in range(of["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name, (out, in_) in sizes.items():
            found[f"{at}{name}.weight"] = normal(0, 1.5 / math.sqrt(in_), out, in_)
            if of["model_type"] == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                found[f"{at}{name}.bias"] = normal(0, 0.5, out)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = normal(1, 0.3, n_embd)
        if of["model_type"] == "qwen3":
            for name in ("self_attn.q_norm", "self_attn.k_norm"):
                found[f"{at}{name}.weight"] = normal(1, 0.3, head)
    return found


def write(
    folder: Path, of: Config, arrays: Mapping[str, Any], *, pre: Any = SMOLLM, n_files: int = 1
) -> Path:
    """The folder that a publisher would make of it, in so many files."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(of))
    names = list(arrays)
    if n_files == 1:
        save_file(dict(arrays), folder / "model.safetensors")
    else:
        where = {name: f"model-{at % n_files + 1:05}.safetensors" for at, name in enumerate(names)}
        for file in set(where.values()):
            save_file({n: arrays[n] for n in names if where[n] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    first = len(TOKENS)
    added = [
        {"id": first + at, "content": token, "special": special, "normalized": False}
        for at, (token, special) in enumerate(SPECIAL.items())
    ]
    model = {"type": "BPE", "vocab": {t: at for at, t in enumerate(TOKENS)}, "merges": MERGES}
    tokenizer = {"normalizer": None, "pre_tokenizer": pre, "model": model, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_prefix_space": False}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# A model\n")
    return folder


def of_llama(path: Path, folder: Path) -> Path:
    """A Llama's GGUF back in its publisher's form: what conversion does to it is undone."""
    model = gguf_tensors.read(path)
    heads, kv_heads, layers, width = (
        int(model.setting(name))
        for name in ("attention.head_count", "attention.head_count_kv", "block_count", "embedding_length")
    )
    fields = gguf.GGUFReader(path).fields
    tokens, kinds, merges = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    of = config("llama", hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads) | {
        "num_key_value_heads": kv_heads,
        "intermediate_size": model.setting("feed_forward_length"),
        "max_position_embeddings": model.setting("context_length"),
        "rms_norm_eps": model.setting("attention.layer_norm_rms_epsilon"),
        "rope_theta": model.setting("rope.freq_base"),
        "vocab_size": len(tokens),
        "tie_word_embeddings": True,
        "bos_token_id": model.settings["tokenizer.ggml.bos_token_id"],
    }
    theirs = {
        "token_embd": "model.embed_tokens", "output_norm": "model.norm", "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    arrays: dict[str, Any] = {}
    for name, values in model.arrays.items():
        *block, part, _ = name.split(".")
        if part in ("attn_q", "attn_k"):
            n = heads if part == "attn_q" else kv_heads
            values = values.reshape(n, -1, 2, width).swapaxes(1, 2).reshape(values.shape)
        at = f"model.layers.{block[1]}." if block else ""
        # Half precision is what comes of it in the end, and half as much to write.
        stored = values.astype(np.float16) if values.ndim > 1 else values
        arrays[f"{at}{theirs[part]}.weight"] = np.ascontiguousarray(stored)
    write(folder, of, arrays)
    special = [
        {"id": at, "content": tokens[at], "special": True} for at, kind in enumerate(kinds) if kind == 3
    ]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    bpe = {"type": "BPE", "vocab": vocabulary, "merges": [merge.split(" ") for merge in merges]}
    tokenizer = {"normalizer": None, "pre_tokenizer": SMOLLM, "model": bpe, "added_tokens": special}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings: dict[str, Any] = {"add_prefix_space": False}
    settings["chat_template"] = model.settings["tokenizer.chat_template"]
    for name, key in (("eos", "eos"), ("unk", "unknown"), ("pad", "padding"), ("bos", "bos")):
        settings[f"{name}_token"] = tokens[model.settings[f"tokenizer.ggml.{key}_token_id"]]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def logits(of: Config, arrays: Mapping[str, Any], ids: Sequence[int]) -> Array:
    """Logits of all tokens at the last position, [n_rows]."""
    embeddings = arrays["model.embed_tokens.weight"].astype(np.float64)
    states: Array = embeddings[list(ids)]
    for layer in range(of["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        x = _norm(of, states, arrays[f"{at}input_layernorm.weight"])
        states = states + _attention(of, arrays, f"{at}self_attn.", x)
        x = _norm(of, states, arrays[f"{at}post_attention_layernorm.weight"])
        gate = _linear(arrays, f"{at}mlp.gate_proj", x)
        hidden = gate / (1 + np.exp(-gate)) * _linear(arrays, f"{at}mlp.up_proj", x)
        states = states + _linear(arrays, f"{at}mlp.down_proj", hidden)
    last = _norm(of, states[-1], arrays["model.norm.weight"])
    head: Array = embeddings if of["tie_word_embeddings"] else arrays["lm_head.weight"]
    return last @ head.T


def _attention(of: Config, arrays: Mapping[str, Any], at: str, x: Array) -> Array:
    n_heads, n_shared = of["num_attention_heads"], of["num_key_value_heads"]
    queries, keys, values = (
        _linear(arrays, f"{at}{part}_proj", x).reshape(len(x), n, -1).swapaxes(0, 1)
        for part, n in (("q", n_heads), ("k", n_shared), ("v", n_shared))
    )
    if of["model_type"] == "qwen3":
        queries = _norm(of, queries, arrays[f"{at}q_norm.weight"])
        keys = _norm(of, keys, arrays[f"{at}k_norm.weight"])
    queries, keys = _turned(of, queries), _turned(of, keys)
    keys, values = (np.repeat(each, n_heads // n_shared, axis=0) for each in (keys, values))
    scores = queries @ keys.swapaxes(1, 2) / math.sqrt(queries.shape[-1])
    scores += np.where(np.tri(len(x), dtype=bool), 0.0, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ values
    return _linear(arrays, f"{at}o_proj", mixed.swapaxes(0, 1).reshape(len(x), -1))


def _turned(of: Config, x: Array) -> Array:
    """RoPE (arXiv 2104.09864): dimension i turns with dimension i + half, as the publishers have it."""
    half = x.shape[-1] // 2
    speeds = of["rope_theta"] ** (-np.arange(half) / half)
    scaling = of.get("rope_scaling") or {}
    if scaling.get("rope_type") == "linear":
        speeds = speeds / scaling["factor"]
    if scaling.get("rope_type") == "llama3":  # long waves slower, short ones as they were, a ramp between
        waves = scaling["original_max_position_embeddings"] * speeds / (2 * math.pi)
        for i, n_waves in enumerate(waves):
            low, high, factor = (scaling[n] for n in ("low_freq_factor", "high_freq_factor", "factor"))
            if n_waves < low:
                speeds[i] /= factor
            elif n_waves < high:
                ramp = (n_waves - low) / (high - low)
                speeds[i] = (1 - ramp) * speeds[i] / factor + ramp * speeds[i]
    angles = np.arange(x.shape[1])[:, None] * speeds
    first, second = x[..., :half], x[..., half:]
    sine, cosine = np.sin(angles), np.cos(angles)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _norm(of: Config, x: Array, gain: npt.NDArray[np.float32]) -> Array:
    out: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + of["rms_norm_eps"]) * gain
    return out


def _linear(arrays: Mapping[str, Any], name: str, x: Array) -> Array:
    out: Array = x @ arrays[f"{name}.weight"].T.astype(np.float64)
    return out + arrays.get(f"{name}.bias", 0.0)
