"""From token lists to batches: pure, no model.

Costs are counted in tokens: what one token of a batch takes is 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

# What one more decode costs besides its tokens, in tokens: 6 ms of graph set-up and copies, at
# 1.1 ms a token (SmolLM2-135M Q4_0, 2 threads; 2 to 12 made no difference that could be measured).
DECODE_OVERHEAD_TOKENS = 5
# What it costs to put a longer prefix into one more KV stream: 0.6 ms.
COPY_TOKENS = 0.5
# llama.cpp multiplies one token of a sequence by other kernels than two or more, and these round
# differently; so nothing is ever decoded as a single token, and a score does not depend on the plan.
MIN_TOKENS = 2

Suffixes = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch may hold: ``max_sequences`` suffixes, ``max_tokens`` tokens, padding included."""

    max_sequences: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Suffixes decoded together, behind the prefix and the ``shared`` first tokens, the same for all.

    ``n_tokens`` are decoded; ``length`` is what each suffix is padded to (0: none is). ``cost`` counts, in
    tokens, what the batch adds to those before it.
    """

    indices: tuple[int, ...]
    shared: int
    length: int
    n_tokens: int
    cost: float


def cost(n_tokens: int) -> int:
    """What one decode costs, in tokens; nothing, if there is nothing to decode."""
    return n_tokens + DECODE_OVERHEAD_TOKENS if n_tokens else 0


def plan(suffixes: Suffixes, limits: Limits, affordable: float = math.inf) -> list[Batch]:
    """Batches that read every suffix exactly once, for KV streams of their own.

    ``affordable`` is what there is time for. If it suffices for all suffixes, they are grouped as is
    cheapest; else as many of the first as it suffices for come first, and the others behind them, as many at
    a time as one batch holds. What several suffixes begin with is decoded once where that is cheaper; the
    inner nodes of a token trie are the places to look. Batches that mix lengths split badly over separate KV
    streams, so shorter suffixes are padded at the end, where causal attention cannot see it.

    Which suffixes share a batch does not depend on their order, as long as there is time for all.
    Raises ValueError for a length below 1 or above ``limits.max_tokens``.
    """
    return _waves(suffixes, limits, affordable, _grouped)


def plan_unified(suffixes: Suffixes, limits: Limits, affordable: float = math.inf) -> list[Batch]:
    """The same for one KV cache that all sequences share: a token may belong to many of them.

    There the whole token trie goes into a batch, each inner node once, and nothing is padded.
    """
    return _waves(suffixes, limits, affordable, _packed)


Grouping = Callable[[Suffixes, Sequence[int], Limits], list[Batch]]


def _waves(suffixes: Suffixes, limits: Limits, affordable: float, grouping: Grouping) -> list[Batch]:
    for suffix in suffixes:
        if not 1 <= len(suffix) <= limits.max_tokens:
            raise ValueError(f"a suffix has {len(suffix)} tokens, allowed are 1 to {limits.max_tokens}")
    batches: list[Batch] = []
    start, n = 0, len(suffixes)
    while start < n:
        left = affordable - total_cost(batches)
        wave = _wave(suffixes, range(start, n), limits, left, grouping)
        batches += wave
        start += sum(len(batch.indices) for batch in wave)
    return batches


def _wave(
    suffixes: Suffixes, indices: range, limits: Limits, affordable: float, grouping: Grouping
) -> list[Batch]:
    """The batches of as many of the first suffixes as there is time for; without time, of one batch's."""
    most = len(indices)
    batches = grouping(suffixes, indices, limits)
    if total_cost(batches) <= affordable:
        return batches
    least = 1 if affordable > 0 else min(limits.max_sequences, most)
    batches = grouping(suffixes, indices[:least], limits)
    while most - least > 1:
        middle = (least + most) // 2
        more = grouping(suffixes, indices[:middle], limits)
        if total_cost(more) <= affordable:
            batches, least = more, middle
        else:
            most = middle
    return batches


def total_cost(batches: Iterable[Batch]) -> float:
    """What all of them cost, in tokens."""
    return sum(batch.cost for batch in batches)


def _grouped(suffixes: Suffixes, indices: Sequence[int], limits: Limits) -> list[Batch]:
    """The cheapest way to share leading tokens."""
    return _node(suffixes, _in_trie_order(suffixes, indices), 0, limits)


def _in_trie_order(suffixes: Suffixes, indices: Iterable[int]) -> list[int]:
    """Sorted, so that every node of the trie is a run; equal suffixes go by index."""
    return sorted(indices, key=lambda index: (tuple(suffixes[index]), index))


def _node(suffixes: Suffixes, ordered: Sequence[int], above: int, limits: Limits) -> list[Batch]:
    """The cheapest batches of suffixes in one node of the trie; of its tokens, ``above`` are decoded."""
    shared = depth = _shared(suffixes, ordered)
    whole = _batches(suffixes, ordered, above, depth, limits)
    if above < depth:
        apart = _batches(suffixes, ordered, above, above, limits)
        if total_cost(apart) <= total_cost(whole):
            whole, depth = apart, above
    inner = [child for child in _children(suffixes, ordered, shared) if _may_pay(suffixes, child, depth)]
    if not inner:
        return whole
    taken = {index for child in inner for index in child}
    rest = [index for index in ordered if index not in taken]
    parts = _batches(suffixes, rest, above, depth, limits) if rest else []
    for child in inner:
        parts += _node(suffixes, child, depth if parts else above, limits)
    return parts if total_cost(parts) < total_cost(whole) else whole


def _children(suffixes: Suffixes, ordered: Sequence[int], shared: int) -> Iterator[list[int]]:
    """The nodes below one that is ``shared`` tokens deep, without suffixes that share no more for want of
    length; each child is smaller than the whole, either way."""
    longer = (index for index in ordered if len(suffixes[index]) > shared + MIN_TOKENS)
    for _, run in itertools.groupby(longer, key=lambda index: suffixes[index][shared]):
        yield list(run)


def _may_pay(suffixes: Suffixes, child: Sequence[int], depth: int) -> bool:
    """Whether the tokens saved can be worth one more decode and the copies."""
    longer = _shared(suffixes, child) - depth
    return (len(child) - 1) * longer > DECODE_OVERHEAD_TOKENS + len(child) * COPY_TOKENS


def _shared(suffixes: Suffixes, ordered: Sequence[int]) -> int:
    """How many leading tokens these suffixes share, short of the last ``MIN_TOKENS`` of any."""
    most = max(0, min(len(suffixes[index]) for index in ordered) - MIN_TOKENS)
    # Sorted: what the first and the last share, all share.
    return min(most, same(suffixes[ordered[0]], suffixes[ordered[-1]]))


def same(first: Sequence[int], last: Sequence[int]) -> int:
    """How many leading tokens are the same."""
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(first), len(last)))


def _batches(
    suffixes: Suffixes, indices: Sequence[int], above: int, depth: int, limits: Limits
) -> list[Batch]:
    """Batches of suffixes that share ``depth`` tokens, ``above`` of which are decoded already."""
    lengths = {index: max(len(suffixes[index]) - depth, MIN_TOKENS) for index in indices}
    # By length; ties go by content, so that the plan does not depend on the order of the suffixes.
    ordered = sorted(indices, key=lambda index: (-lengths[index], tuple(suffixes[index]), index))
    runs = _cut(ordered, [lengths[index] for index in ordered], limits)
    # What matters most comes first.
    runs.sort(key=min)
    extra = 0.0
    if depth > above:
        extra = cost(max(depth - above, MIN_TOKENS)) + COPY_TOKENS * max(map(len, runs))
    batches = []
    for run in runs:
        length = max(lengths[index] for index in run)
        n_tokens = length * len(run)
        batches.append(Batch(tuple(run), depth, length, n_tokens, cost(n_tokens) + extra))
        extra = 0.0
    return batches


def _cut(ordered: Sequence[int], lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """The cheapest cuts of suffixes sorted by falling length: a dynamic programme, O(n max_sequences)."""
    n = len(ordered)
    best = [0.0] + [math.inf] * n
    cut = [0] * (n + 1)
    for end in range(1, n + 1):
        for start in range(end - 1, max(-1, end - 1 - limits.max_sequences), -1):
            n_tokens = lengths[start] * (end - start)
            if n_tokens > limits.max_tokens:
                break
            total = best[start] + cost(n_tokens)
            if total < best[end]:
                best[end], cut[end] = total, start
    runs = []
    end = n
    while end:
        runs.append(list(ordered[cut[end] : end]))
        end = cut[end]
    return runs


def _packed(suffixes: Suffixes, indices: Sequence[int], limits: Limits) -> list[Batch]:
    """Batches filled in the trie's order, where neighbours share most."""
    batches: list[Batch] = []
    run: list[int] = []
    n_tokens = 0
    before: Sequence[int] = ()

    def close() -> None:
        if run:
            batches.append(Batch(tuple(run), 0, 0, n_tokens, cost(n_tokens)))

    for index in _in_trie_order(suffixes, indices):
        suffix = suffixes[index]
        new = own_tokens(before, suffix)
        if n_tokens + new > limits.max_tokens or len(run) == limits.max_sequences:
            close()
            run, n_tokens, new = [], 0, len(suffix)
        run.append(index)
        n_tokens += new
        before = suffix
    close()
    return batches


def own_tokens(before: Sequence[int], suffix: Sequence[int]) -> int:
    """How many tokens of ``suffix`` are decoded behind ``before``, its neighbour in the trie's order.

    The last one always is, because it is read.
    """
    return len(suffix) - min(same(before, suffix), len(suffix) - 1, max(0, len(before) - 1))
