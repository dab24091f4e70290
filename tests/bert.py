"""BERT from its papers (arXiv 1810.04805, 1609.08144) in numpy: WordPiece, and the forward pass."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weights = Mapping[str, npt.NDArray[np.float32]]

_EPS = 1e-12
_GRID = np.linspace(-6.0, 6.0, 120_001)
_ERF = np.array([math.erf(x) for x in _GRID])  # read between its points: wrong by less than 1e-8
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0xF900, 0xFAFF))


def states(weights: Weights, ids: Sequence[int], n_heads: int) -> Array:
    """Last hidden states [n_tokens, n_embd]; separators are among the ids."""
    at = "embeddings."
    x = weights[f"{at}word_embeddings.weight"].astype(np.float64)[list(ids)]
    x = x + weights[f"{at}token_type_embeddings.weight"][0]
    x = _norm(weights, f"{at}LayerNorm", x + weights[f"{at}position_embeddings.weight"][: len(ids)])
    n_layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    for layer in range(n_layers):
        at = f"encoder.layer.{layer}."
        mixed = _attention(weights, f"{at}attention.self.", x, n_heads)
        x = _norm(
            weights,
            f"{at}attention.output.LayerNorm",
            x + _linear(weights, f"{at}attention.output.dense", mixed),
        )
        hidden = _linear(weights, f"{at}intermediate.dense", x)
        hidden = 0.5 * hidden * (1.0 + np.interp(hidden / math.sqrt(2.0), _GRID, _ERF))
        x = _norm(weights, f"{at}output.LayerNorm", x + _linear(weights, f"{at}output.dense", hidden))
    return x


def _attention(weights: Weights, at: str, x: Array, n_heads: int) -> Array:
    queries, keys, values = (
        _linear(weights, at + name, x).reshape(len(x), n_heads, -1).swapaxes(0, 1)
        for name in ("query", "key", "value")
    )
    scores = queries @ keys.swapaxes(1, 2) / math.sqrt(queries.shape[-1])
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed: Array = scores / scores.sum(axis=-1, keepdims=True) @ values
    return mixed.swapaxes(0, 1).reshape(len(x), -1)


def _linear(weights: Weights, name: str, x: Array) -> Array:
    out: Array = x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]
    return out


def _norm(weights: Weights, name: str, x: Array) -> Array:
    x = x - x.mean(axis=-1, keepdims=True)
    out: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + _EPS)
    return out * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def wordpieces(vocabulary: Mapping[str, int], text: str) -> list[int]:
    """Token ids without separators, as an uncased model's tokenizer gives them."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c.lower()} " if _alone(c) else c.lower() for c in plain)
    return [token for word in spaced.split() for token in _pieces(vocabulary, word)]


def _alone(c: str) -> bool:
    symbol = c.isascii() and c.isprintable() and not c.isalnum() and c != " "
    return symbol or unicodedata.category(c)[0] == "P" or any(low <= ord(c) <= high for low, high in _CJK)


def _pieces(vocabulary: Mapping[str, int], word: str) -> list[int]:
    """The longest piece there is, again and again; one unknown token if that does not end."""
    found: list[int] = []
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1)
        piece = next((p for e in ends if (p := "##" * (start > 0) + word[start:e]) in vocabulary), "")
        if not piece:
            return [vocabulary["[UNK]"]]
        found.append(vocabulary[piece])
        start += len(piece.removeprefix("##")) if start else len(piece)
    return found
