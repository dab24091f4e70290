"""The forward passes of the tiny models in plain numpy, float64, one sequence at a time.

Written from the architectures: Qwen3 (arXiv 2505.09388) and BERT (arXiv 1810.04805) with a classifier.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.engine.tiny_models import (
    BERT_EPS,
    EPS,
    HEAD_DIM,
    N_HEAD,
    N_HEAD_KV,
    N_LAYER,
    ROPE_BASE,
    Weights,
)

Array = npt.NDArray[np.float64]


def qwen3_logits(weights: Weights, ids: Sequence[int]) -> Array:
    """Logits of all tokens at the last position, [n_vocab]."""
    table = weights["token_embd.weight"].astype(np.float64)
    states = table[list(ids)]
    for layer in range(N_LAYER):
        states = states + _qwen3_attention(weights, f"blk.{layer}.", states)
        states = states + _qwen3_feed_forward(weights, f"blk.{layer}.", states)
    last: Array = _rms_norm(states[-1], weights["output_norm.weight"]) @ table.T
    return last


def _qwen3_attention(weights: Weights, block: str, states: Array) -> Array:
    x = _rms_norm(states, weights[f"{block}attn_norm.weight"])
    queries = _heads(x @ weights[f"{block}attn_q.weight"].T, N_HEAD)
    keys = _heads(x @ weights[f"{block}attn_k.weight"].T, N_HEAD_KV)
    values = _heads(x @ weights[f"{block}attn_v.weight"].T, N_HEAD_KV)
    queries = _rotated(_rms_norm(queries, weights[f"{block}attn_q_norm.weight"]))
    keys = _rotated(_rms_norm(keys, weights[f"{block}attn_k_norm.weight"]))
    group = N_HEAD // N_HEAD_KV  # heads that share keys and values
    mixed = _attention(queries, np.repeat(keys, group, 0), np.repeat(values, group, 0), causal=True)
    return mixed @ weights[f"{block}attn_output.weight"].T.astype(np.float64)


def _qwen3_feed_forward(weights: Weights, block: str, states: Array) -> Array:
    x = _rms_norm(states, weights[f"{block}ffn_norm.weight"])
    gate = x @ weights[f"{block}ffn_gate.weight"].T
    hidden = gate / (1.0 + np.exp(-gate)) * (x @ weights[f"{block}ffn_up.weight"].T)
    out: Array = hidden @ weights[f"{block}ffn_down.weight"].T
    return out


def _rms_norm(x: Array, gain: npt.NDArray[np.float32]) -> Array:
    out: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS) * gain
    return out


def _rotated(x: Array) -> Array:
    """RoPE (arXiv 2104.09864): dimension i turns with dimension i + half."""
    half = HEAD_DIM // 2
    speeds = ROPE_BASE ** (-np.arange(half) / half)
    angles = np.arange(x.shape[1])[:, None] * speeds
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            second * np.cos(angles) + first * np.sin(angles),
        ],
        axis=-1,
    )


def bert_score(weights: Weights, ids: Sequence[int]) -> float:
    """The classifier's first output for one sequence, which llama.cpp reads as segment A throughout."""
    at = np.arange(len(ids))
    states = weights["token_embd.weight"].astype(np.float64)[list(ids)]
    states = states + weights["token_types.weight"][0] + weights["position_embd.weight"][at]
    states = _layer_norm(weights, "token_embd_norm", states)
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        queries, keys, values = (
            _heads(_linear(weights, f"{block}attn_{name}", states), N_HEAD) for name in "qkv"
        )
        mixed = _linear(weights, f"{block}attn_output", _attention(queries, keys, values, causal=False))
        states = _layer_norm(weights, f"{block}attn_output_norm", states + mixed)
        hidden = _gelu(_linear(weights, f"{block}ffn_up", states))
        states = _layer_norm(
            weights, f"{block}layer_output_norm", states + _linear(weights, f"{block}ffn_down", hidden)
        )
    pooled = np.tanh(_linear(weights, "cls", states[0]))
    return float(_linear(weights, "cls.output", pooled)[0])


def _linear(weights: Weights, name: str, x: Array) -> Array:
    out: Array = x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]
    return out


def _layer_norm(weights: Weights, name: str, x: Array) -> Array:
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + BERT_EPS)
    out: Array = x * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return out


def _gelu(x: Array) -> Array:
    """The tanh form, as llama.cpp has it (arXiv 1606.08415)."""
    out: Array = 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    return out


def _heads(x: Array, n_heads: int) -> Array:
    """[n_tokens, n_heads * width] to [n_heads, n_tokens, width]."""
    return x.reshape(len(x), n_heads, -1).swapaxes(0, 1)


def _attention(queries: Array, keys: Array, values: Array, *, causal: bool) -> Array:
    """[n_heads, n_tokens, width] each; all heads side by side, [n_tokens, n_heads * width]."""
    n = queries.shape[1]
    scores = queries @ keys.swapaxes(1, 2) / np.sqrt(queries.shape[-1])
    if causal:
        scores = np.where(np.tri(n, dtype=np.bool_), scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ values
    return mixed.swapaxes(0, 1).reshape(n, -1)
