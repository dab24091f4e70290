"""The encoders' pooled states in torch, with gradients, as llama.cpp makes them of the same GGUF.

Two architectures: BERT (Devlin et al., arXiv 1810.04805) and Llama (Touvron et al., arXiv 2302.13971), after
the last norm, which is where a pack's head reads. Weights carry GGUF's names; matrices may have LoRA pairs
(Hu et al., arXiv 2106.09685).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import ModelInvalid
from edge_reranker.models.gguf_tensors import Tensors
from edge_reranker.models.pack import Encoder
from edge_reranker.training.head import require_torch

Float32 = NDArray[np.float32]

ARCHITECTURES = ("bert", "llama")
_TOKENS = "token_embd.weight"
_OUTPUT = "output.weight"


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences end to end, so that no matrix product is spent on filling.

    A token has its id, its position, the sequence that owns it, and its place in that. ``branch`` is 0 in
    what all branches of a sequence go on from; a token sees branch 0 and its own, as far as they lie before.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    owner: NDArray[np.int64]
    places: NDArray[np.int64]
    branch: NDArray[np.int64]
    n: int

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Packed:
        """``sequences`` of token ids, none of them empty."""
        return cls.trees([(each, ()) for each in sequences])

    @classmethod
    def trees(cls, trees: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> Packed:
        """Prefixes of token ids, each with its suffixes: a suffix sees its prefix and itself only.

        Its positions go on from the prefix's end, as if it stood there alone.
        """
        parts: list[tuple[Sequence[int], int, int, int]] = []  # ids, first position, owner, branch
        for owner, (prefix, suffixes) in enumerate(trees):
            parts.append((prefix, 0, owner, 0))
            parts += [(suffix, len(prefix), owner, at) for at, suffix in enumerate(suffixes, 1)]
        lengths = np.array([len(ids) for ids, *_ in parts])
        first, owner_of, branch = (
            np.repeat(np.array(column), lengths) for column in list(zip(*parts, strict=True))[1:]
        )
        starts = np.searchsorted(owner_of, np.arange(len(trees)))
        within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        return cls(
            ids=np.concatenate([np.asarray(ids, np.int64) for ids, *_ in parts]),
            positions=first + within,
            owner=owner_of,
            places=np.arange(len(owner_of)) - starts[owner_of],
            branch=branch,
            n=len(trees),
        )

    @property
    def ends(self) -> NDArray[np.intp]:
        """The index of each suffix's last token, in the order given."""
        last = np.r_[(self.owner[1:] != self.owner[:-1]) | (self.branch[1:] != self.branch[:-1]), True]
        return np.flatnonzero(last & (self.branch > 0))


@dataclass
class Network:
    """A model's weights as torch tensors, and the forward pass; ``pairs`` are A and B of adapted matrices."""

    model: Tensors
    encoder: Encoder
    weights: dict[str, Any]
    pairs: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Tensors, encoder: Encoder) -> Network:
        """The network of a GGUF. Raises ModelInvalid for an architecture that there is no forward pass of."""
        if model.architecture not in ARCHITECTURES:
            raise ModelInvalid(
                f"{encoder.model} is a {model.architecture or 'nameless'} model; fine-tuning knows "
                f"{' and '.join(ARCHITECTURES)}"
            )
        torch = require_torch()
        return cls(model, encoder, {name: torch.tensor(array) for name, array in model.arrays.items()})

    def matrices(self) -> list[str]:
        """The names of the blocks' matrices, which is what LoRA adapts."""
        return [n for n, a in self.weights.items() if n.startswith("blk.") and a.ndim == 2]

    def adapt(self, names: Sequence[str], rank: int, seed: int) -> None:
        """Gives each matrix a pair: A random, B zero, so that nothing changes yet."""
        torch = require_torch()
        random = np.random.default_rng(seed)
        for name in names:
            out, in_ = self.weights[name].shape
            a = random.normal(size=(rank, in_)) / math.sqrt(in_)
            self.pairs[name] = (torch.tensor(a, dtype=torch.float32), torch.zeros(out, rank))

    def framed(self, ids: Sequence[int]) -> list[int]:
        """``ids`` between the separators that the engine puts around a text."""
        if self.model.architecture != "bert":
            return list(ids)
        at = "tokenizer.ggml."
        before, after = (self.model.settings[f"{at}{name}_token_id"] for name in ("bos", "seperator"))
        return [before, *ids, after]

    def states(self, sequences: Sequence[Sequence[int]]) -> Any:
        """Pooled states [n, n_embd] of sequences of token ids without separators, each as if alone."""
        torch = require_torch()
        packed = Packed.of([self.framed(each) for each in sequences])
        last = self.last(packed)
        owner = torch.tensor(packed.owner)
        if self.encoder.pooling == "mean":
            counts = torch.bincount(owner, minlength=packed.n)[:, None]
            pooled = last.new_zeros(packed.n, last.shape[1]).index_add(0, owner, last) / counts
        else:
            first = np.searchsorted(packed.owner, np.arange(packed.n + 1))
            pooled = last[torch.tensor(first[:-1] if self.encoder.pooling == "cls" else first[1:] - 1)]
        return torch.nn.functional.normalize(pooled, dim=1) if self.encoder.normalise else pooled

    def last(self, packed: Packed) -> Any:
        """The last states [n_tokens, n_embd], after the last norm; ``packed`` has its separators."""
        run = _Run(require_torch(), self, packed)
        return run.bert() if self.model.architecture == "bert" else run.llama()

    def answers(self, packed: Packed, positive: int, negative: int) -> Any:
        """The logit of one token less that of another behind each suffix, [n_suffixes]."""
        weights = self.weights.get(_OUTPUT, self.weights[_TOKENS])
        ends = self.last(packed)[require_torch().tensor(packed.ends)]
        return ends @ (weights[positive] - weights[negative])


class _Run:
    """One forward pass; states are [n_tokens, n_embd] throughout."""

    def __init__(self, torch: Any, network: Network, packed: Packed) -> None:
        self._torch, self._functional = torch, torch.nn.functional
        self._weights, self._pairs = network.weights, network.pairs
        setting = network.model.setting
        self._n_layer = int(setting("block_count"))
        self._n_head = int(setting("attention.head_count"))
        self._n_kv = int(setting("attention.head_count_kv", self._n_head))
        names = ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon")
        self._eps = next(float(value) for name in names if (value := setting(name)) is not None)
        self._rope_base = float(setting("rope.freq_base", 10_000.0))
        self._ids, self._positions = torch.tensor(packed.ids), torch.tensor(packed.positions)
        self._owner, self._places = torch.tensor(packed.owner), torch.tensor(packed.places)
        self._branch = torch.tensor(packed.branch)
        self._n, self._n_longest = packed.n, int(packed.places.max()) + 1

    def bert(self) -> Any:
        types = self._weights["token_types.weight"][0]
        positions = self._weights["position_embd.weight"][self._positions]
        x = self._layer_norm("token_embd_norm", self._weights[_TOKENS][self._ids] + types + positions)
        seen = self._mask(causal=False)
        for block in range(self._n_layer):
            at = f"blk.{block}."
            mixed = self._attention(at, x, seen, turn=lambda heads: heads)
            x = self._layer_norm(f"{at}attn_output_norm", x + mixed)
            # llama.cpp has the approximation with tanh, too.
            up = self._functional.gelu(self._linear(f"{at}ffn_up", x), approximate="tanh")
            x = self._layer_norm(f"{at}layer_output_norm", x + self._linear(f"{at}ffn_down", up))
        return x

    def llama(self) -> Any:
        x = self._weights[_TOKENS][self._ids]
        seen = self._mask(causal=True)
        for block in range(self._n_layer):
            at = f"blk.{block}."
            x = x + self._attention(at, self._rms(f"{at}attn_norm", x), seen, turn=self._rotated)
            y = self._rms(f"{at}ffn_norm", x)
            gate = self._functional.silu(self._linear(f"{at}ffn_gate", y))
            x = x + self._linear(f"{at}ffn_down", gate * self._linear(f"{at}ffn_up", y))
        return self._rms("output_norm", x)

    def _attention(self, at: str, x: Any, seen: Any, *, turn: Callable[[Any], Any]) -> Any:
        query, key, value = (
            self._linear(f"{at}attn_{name}", x).unflatten(1, (n, -1))
            for name, n in (("q", self._n_head), ("k", self._n_kv), ("v", self._n_kv))
        )
        padded = [self._padded(each).transpose(1, 2) for each in (turn(query), turn(key), value)]
        mixed = self._functional.scaled_dot_product_attention(
            *padded, attn_mask=seen, enable_gqa=self._n_kv != self._n_head
        )
        flat = mixed.transpose(1, 2)[self._owner, self._places].flatten(1)
        return self._linear(f"{at}attn_output", flat)

    def _mask(self, *, causal: bool) -> Any:
        """What a token sees: [n_sequences, 1, 1 or longest, longest]."""
        branch = self._padded(self._branch[:, None] + 1).squeeze(2) - 1  # -1 where nothing is
        seen = (branch >= 0)[:, None, None, :]
        if causal:
            theirs, own = branch[:, None, None, :], branch[:, None, :, None]
            before = self._torch.ones(self._n_longest, self._n_longest, dtype=self._torch.bool).tril()
            seen = seen & before & ((theirs == 0) | (theirs == own))
        return seen

    def _padded(self, rows: Any) -> Any:
        """[n_tokens, …] to [n_sequences, longest, …]."""
        padded = rows.new_zeros(self._n, self._n_longest, *rows.shape[1:])
        return padded.index_put((self._owner, self._places), rows)

    def _rotated(self, heads: Any) -> Any:
        """Rotary positions on neighbouring pairs, which is how a GGUF's Llama has its rows."""
        n = heads.shape[-1]
        turns = self._rope_base ** (-self._torch.arange(0, n, 2, dtype=heads.dtype) / n)
        angles = (self._positions[:, None] * turns)[:, None, :]
        even, odd = heads[..., 0::2], heads[..., 1::2]
        pairs = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
        return self._torch.stack(pairs, dim=-1).flatten(-2)

    def _linear(self, name: str, x: Any) -> Any:
        y = self._functional.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))
        if (pair := self._pairs.get(f"{name}.weight")) is not None:
            y = y + x @ pair[0].T @ pair[1].T
        return y

    def _layer_norm(self, name: str, x: Any) -> Any:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._functional.layer_norm(x, weight.shape, weight, bias, self._eps)

    def _rms(self, name: str, x: Any) -> Any:
        weight = self._weights[f"{name}.weight"]
        return self._functional.rms_norm(x, weight.shape, weight, self._eps)


def merged(network: Network) -> Mapping[str, Float32]:
    """The weights as arrays, LoRA pairs added in."""
    torch = require_torch()
    with torch.no_grad():
        plus = {name: b @ a for name, (a, b) in network.pairs.items()}
        return {
            name: (weight + plus[name] if name in plus else weight).detach().numpy()
            for name, weight in network.weights.items()
        }
