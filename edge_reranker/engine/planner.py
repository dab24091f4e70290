"""From suffix lengths to batches: pure, no model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

# What one more decode costs besides its tokens, in tokens: 7 ms of graph set-up and copies, at
# 1.5 ms a token (SmolLM2-135M Q4_0, 2 threads; 2 to 12 made no difference that could be measured).
DECODE_OVERHEAD_TOKENS = 5
# llama.cpp multiplies one token of a sequence by other kernels than two or more, and these round
# differently; so nothing is ever decoded as a single token, and a score does not depend on the plan.
MIN_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Suffixes decoded together, each padded to ``length`` tokens behind the position that is read."""

    indices: tuple[int, ...]
    length: int

    @property
    def n_tokens(self) -> int:
        """Tokens decoded, padding included."""
        return len(self.indices) * self.length


def shared_length(suffixes: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all suffixes share, short of the last ``MIN_TOKENS`` of any."""
    if not suffixes:
        return 0
    most = max(0, min(len(suffix) for suffix in suffixes) - MIN_TOKENS)
    columns = itertools.islice(zip(*suffixes, strict=False), most)
    return next((at for at, tokens in enumerate(columns) if len(set(tokens)) > 1), most)


def cost(n_tokens: int) -> int:
    """What one decode costs, in tokens; nothing, if there is nothing to decode."""
    return n_tokens + DECODE_OVERHEAD_TOKENS if n_tokens else 0


def plan(lengths: Sequence[int], *, max_sequences: int, max_tokens: int) -> list[list[Batch]]:
    """Groups suffixes into waves, a wave into batches of near-equal length.

    A wave is the next ``max_sequences`` suffixes in the order given, so that the most important ones are
    reached first; within it the order is free. Batches that mix lengths split badly over separate KV
    streams, so the shorter ones are padded at the end, where causal attention cannot see it; a dynamic
    programme over the sorted lengths picks the cuts that cost least, padding included. Every suffix is in
    exactly one batch, and ``len(indices) * length <= max_tokens``.
    Raises ValueError for a length below 1 or above ``max_tokens``.
    """
    for length in lengths:
        if not 1 <= length <= max_tokens:
            raise ValueError(f"a suffix has {length} tokens, allowed are 1 to {max_tokens}")
    waves = []
    for start in range(0, len(lengths), max_sequences):
        indices = range(start, min(start + max_sequences, len(lengths)))
        # Ties go by index, so that the plan depends on nothing but its input.
        ordered = sorted(indices, key=lambda index: (-lengths[index], index))
        waves.append(_cut(ordered, lengths, max_tokens))
    return waves


def _cut(ordered: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[Batch]:
    """The cheapest cuts of suffixes sorted by falling length: O(n²), n is at most a wave."""
    n = len(ordered)
    best = [0.0] + [float("inf")] * n
    cut = [0] * (n + 1)
    for end in range(1, n + 1):
        for start in range(end - 1, -1, -1):
            n_tokens = _padded(lengths[ordered[start]]) * (end - start)
            if n_tokens > max_tokens:
                break
            total = best[start] + cost(n_tokens)
            if total < best[end]:
                best[end], cut[end] = total, start
    batches = []
    end = n
    while end:
        start = cut[end]
        batches.append(Batch(tuple(ordered[start:end]), _padded(lengths[ordered[start]])))
        end = start
    return batches[::-1]


def _padded(length: int) -> int:
    return max(length, MIN_TOKENS)
