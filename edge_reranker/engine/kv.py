"""How the prefix and the candidates lie in llama.cpp's KV cache: two ways, one interface."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from edge_reranker.engine.planner import MIN_TOKENS, Batch, Limits, own_tokens, plan, plan_unified, same
from edge_reranker.engine.types import FloatArray

MAX_BATCH_TOKENS = 512


class Aborted(Exception):
    """A decode was cut off; what is in the cache is not known."""


class Decoder:
    """One context and its batch."""

    def __init__(self, context: Any, *, max_sequences: int = 1) -> None:
        """``max_sequences`` is how many sequences one token may belong to."""
        self.context = context
        self.memory = llama.llama_get_memory(context)
        self._batch = llama.llama_batch_init(MAX_BATCH_TOKENS, 0, max_sequences)

    def begin(self) -> None:
        """Empties the batch."""
        self._batch.n_tokens = 0

    def add(self, token: int, position: int, sequences: Sequence[int], *, read: bool) -> int:
        """Adds a token; its row in the batch."""
        batch = self._batch
        at: int = batch.n_tokens
        batch.token[at] = token
        batch.pos[at] = position
        batch.n_seq_id[at] = len(sequences)
        for place, sequence in enumerate(sequences):
            batch.seq_id[at][place] = sequence
        batch.logits[at] = 1 if read else 0
        batch.n_tokens = at + 1
        return at

    def decode(self) -> None:
        """Runs the batch. Raises Aborted, RuntimeError."""
        result = llama.llama_decode(self.context, self._batch)
        if result == 2:
            raise Aborted
        if result != 0:
            raise RuntimeError(f"llama_decode returned {result} for {self._batch.n_tokens} tokens")

    def logits(self, rows: Sequence[int], targets: Sequence[int]) -> FloatArray:
        """Logits of ``targets`` at ``rows`` of the batch, float32 [len(rows), len(targets)]."""
        out = np.empty((len(rows), len(targets)), dtype=np.float32)
        for at, row in enumerate(rows):
            logits = llama.llama_get_logits_ith(self.context, row)
            out[at] = [logits[target] for target in targets]
        return out

    def cut(self, sequence: int, start: int) -> bool:
        """Forgets a sequence from position ``start`` on; False for a cache that cannot be cut."""
        return bool(llama.llama_memory_seq_rm(self.memory, sequence, start, -1))

    def saved(self, sequence: int) -> Any:
        """The state of a sequence. Raises RuntimeError."""
        size = llama.llama_state_seq_get_size(self.context, sequence)
        state = (ctypes.c_uint8 * size)()
        if llama.llama_state_seq_get_data(self.context, state, size, sequence) != size:
            raise RuntimeError(f"the state of sequence {sequence} could not be read")
        return state

    def restored(self, sequence: int, state: Any) -> bool:
        """Makes ``state`` that of a sequence; whether it was taken."""
        return bool(llama.llama_state_seq_set_data(self.context, state, len(state), sequence) == len(state))


class Kv(ABC):
    """A prefix in sequence 0, and suffixes in sequences 1 to ``n_sequences`` behind it."""

    def __init__(self, decoder: Decoder, n_sequences: int) -> None:
        self._decoder = decoder
        self.limits = Limits(n_sequences, MAX_BATCH_TOKENS)
        self.prefix: list[int] = []

    def missing(self, ids: Sequence[int]) -> int:
        """How many tokens of ``ids`` are still to decode before they are the prefix."""
        return len(ids) - self._start(ids)

    def set_prefix(self, ids: Sequence[int], at_most: int | None = None) -> int:
        """Makes ``ids`` the prefix, or their first ones: so that about ``at_most`` tokens are decoded.

        Returns the number of tokens decoded. Raises Aborted, after which the cache must be cleared.
        """
        start = first = self._start(ids)
        if start < len(self.prefix) and not self._cut(start):
            self.clear()  # some caches (recurrent, sliding window) cannot be cut
            start = first = 0
        end = len(ids) if at_most is None else min(len(ids), first + max(at_most, MIN_TOKENS))
        if 0 < len(ids) - end < MIN_TOKENS:
            end = len(ids)
        while (left := end - start) > 0:
            n = min(left, MAX_BATCH_TOKENS)
            if 0 < left - n < MIN_TOKENS:
                n -= MIN_TOKENS
            self._decoder.begin()
            for position in range(start, start + n):
                self._decoder.add(ids[position], position, (0,), read=False)
            self._decoder.decode()
            start += n
            self.prefix = list(ids[:start])
        return start - first

    def clear(self) -> None:
        """Forgets everything."""
        llama.llama_memory_clear(self._decoder.memory, False)
        self.prefix = []

    def saved(self) -> bytes:
        """The state behind the prefix."""
        return bytes(self._decoder.saved(0))

    def restore(self, ids: Sequence[int], state: bytes) -> bool:
        """Makes ``ids``, whose state was saved, the prefix; else leaves none and returns False."""
        self.clear()
        if not self._decoder.restored(0, (ctypes.c_uint8 * len(state)).from_buffer_copy(state)):
            self.clear()
            return False
        self.prefix = list(ids)
        return True

    @abstractmethod
    def plan(self, suffixes: Sequence[Sequence[int]], affordable: float) -> list[Batch]:
        """Batches for these suffixes, see the planner."""

    @abstractmethod
    def score(self, suffixes: Sequence[Sequence[int]], batch: Batch, targets: Sequence[int]) -> FloatArray:
        """Logits of ``targets`` after prefix + suffix, float32 [len(batch.indices), len(targets)].

        The prefix must be that of the batch: its ``shared`` tokens are part of it.
        """

    def _start(self, ids: Sequence[int]) -> int:
        """The position from which ``ids`` must be decoded."""
        common = same(self.prefix, ids)
        if 0 < len(ids) - common < MIN_TOKENS:
            return max(0, len(ids) - MIN_TOKENS)  # once more, rather than one token alone
        return common

    def _cut(self, start: int) -> bool:
        self.prefix = self.prefix[:start]
        return self._decoder.cut(0, start)


class Isolated(Kv):
    """Each suffix in a KV stream of its own: its score has the same bits whatever stands beside it.

    Without flash attention, separate streams give a suffix the same bits alone and beside any others
    (docs/decisions/0005).
    """

    def __init__(self, decoder: Decoder, n_sequences: int) -> None:
        super().__init__(decoder, n_sequences)
        self._held = [0] * (n_sequences + 1)  # how much of the prefix each stream holds

    def clear(self) -> None:
        """Forgets everything."""
        super().clear()
        self._held = [0] * len(self._held)

    def plan(self, suffixes: Sequence[Sequence[int]], affordable: float) -> list[Batch]:
        """See Kv."""
        return plan(suffixes, self.limits, affordable)

    def score(self, suffixes: Sequence[Sequence[int]], batch: Batch, targets: Sequence[int]) -> FloatArray:
        """See Kv."""
        streams = range(1, len(batch.indices) + 1)
        self._copy_prefix(streams)
        decoder, start = self._decoder, len(self.prefix)
        decoder.begin()
        reads = []
        for stream, index in zip(streams, batch.indices, strict=True):
            suffix = suffixes[index][batch.shared :]
            for offset in range(batch.length):
                # Padding repeats the last token behind the position that is read: causal attention never
                # looks ahead, so it cannot change the score.
                token = suffix[min(offset, len(suffix) - 1)]
                read = offset == len(suffix) - 1
                row = decoder.add(token, start + offset, (stream,), read=read)
                if read:
                    reads.append(row)
        decoder.decode()
        out = decoder.logits(reads, targets)
        for stream in streams:
            decoder.cut(stream, start)
        return out

    def _cut(self, start: int) -> bool:
        done = super()._cut(start)
        for stream, held in enumerate(self._held):
            if held > start:
                self._decoder.cut(stream, start)
                self._held[stream] = start
        return done

    def _copy_prefix(self, streams: Sequence[int]) -> None:
        """Puts the prefix into these streams.

        As saved state, which holds the prefix's cells only: `llama_memory_seq_cp` copies whole streams,
        and took twice as long (11 against 5 ms for 8 streams of 512 cells).
        """
        stale = [stream for stream in streams if self._held[stream] != len(self.prefix)]
        if not stale:
            return
        state = self._decoder.saved(0)
        for stream in stale:
            if not self._decoder.restored(stream, state):
                raise RuntimeError(f"the state of {len(self.prefix)} tokens could not be copied")
            self._held[stream] = len(self.prefix)


class Unified(Kv):
    """All suffixes in one cache, with flash attention: fastest, but what stands beside it moves a score."""

    def plan(self, suffixes: Sequence[Sequence[int]], affordable: float) -> list[Batch]:
        """See Kv."""
        return plan_unified(suffixes, self.limits, affordable)

    def score(self, suffixes: Sequence[Sequence[int]], batch: Batch, targets: Sequence[int]) -> FloatArray:
        """See Kv."""
        decoder, start = self._decoder, len(self.prefix)
        sequences = range(1, len(batch.indices) + 1)
        for sequence in sequences:
            # One cache: a copy only notes that the cells belong to one sequence more.
            llama.llama_memory_seq_cp(decoder.memory, 0, sequence, -1, -1)
        rows: list[tuple[int, int, list[int]]] = []  # token, position, sequences
        path: list[int] = []  # the rows of the suffix before
        reads = []
        before: Sequence[int] = ()
        for sequence, index in zip(sequences, batch.indices, strict=True):
            suffix = suffixes[index]
            known = len(suffix) - own_tokens(before, suffix)
            del path[known:]
            for row in path:
                rows[row][2].append(sequence)
            for offset in range(known, len(suffix)):
                path.append(len(rows))
                rows.append((suffix[offset], start + offset, [sequence]))
            reads.append(path[-1])
            before = suffix
        read = set(reads)
        decoder.begin()
        for at, (token, position, owners) in enumerate(rows):
            decoder.add(token, position, owners, read=at in read)
        decoder.decode()
        out = decoder.logits(reads, targets)
        for sequence in sequences:
            decoder.cut(sequence, -1)
        return out
