"""A deterministic engine without a model, for tests of everything above the engine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine.planner import same
from edge_reranker.engine.types import (
    Adapter,
    Encoded,
    EngineInfo,
    FloatArray,
    Prefilled,
    Ranked,
    SavedPrefix,
    Scored,
    Stop,
)
from edge_reranker.errors import ModelInvalid
from edge_reranker.types import ModelState, Piece


class FakeEngine:
    """Tokens are bytes; vectors and logits follow from a hash of the tokens and the adapter alone.

    ``ms_per_sequence`` makes it as slow as a device, so that deadlines can be tested; ``fail_with`` makes
    every call stop with that reason.
    """

    def __init__(
        self, *, n_embd: int = 16, ms_per_sequence: float = 0.0, fail_with: Stop | None = None
    ) -> None:
        self._n_embd = n_embd
        self._ms_per_sequence = ms_per_sequence
        self.fail_with = fail_with
        self.encoded = self.scored = self.decoded = 0
        self.prefix: tuple[int, ...] = ()
        self.restored = 0

    @property
    def state(self) -> ModelState:
        """See Engine."""
        return ModelState.FAILED if self.fail_with == Stop.DIED else ModelState.READY

    @property
    def info(self) -> EngineInfo | None:
        """See Engine."""
        return EngineInfo("fake", self._n_embd, 256, 1, 512, "")

    def wait_ready(self, deadline: Deadline) -> bool:
        """See Engine."""
        return self.fail_with != Stop.DIED

    def tokenize(self, texts: Sequence[Sequence[Piece]], deadline: Deadline) -> list[list[int]]:
        """Bytes of each text."""
        return [[byte for piece in text for byte in piece.text.encode()] for text in texts]

    def load_adapter(self, path: Path, deadline: Deadline) -> None:
        """Any file will do. Raises ModelInvalid when there is none."""
        if not path.is_file():
            raise ModelInvalid(f"{path}: there is no such adapter")

    def encode(
        self,
        sequences: Sequence[Sequence[int]],
        deadline: Deadline,
        *,
        background: bool = False,
        adapter: Adapter | None = None,
    ) -> Encoded:
        """See Engine."""
        rows: list[FloatArray] = []
        stop = self.fail_with or Stop.DONE
        for ids in sequences if self.fail_with is None else ():
            if not self._step(deadline):
                stop = Stop.DEADLINE
                break
            rows.append(self._noise(ids, self._n_embd, adapter))
            self.encoded += 1
        return Encoded(np.array(rows, dtype=np.float32).reshape(len(rows), self._n_embd), stop)

    def score(
        self,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        targets: Sequence[int],
        deadline: Deadline,
        *,
        adapter: Adapter | None = None,
    ) -> Scored:
        """See Engine."""
        logits = np.zeros((len(suffixes), len(targets)), dtype=np.float32)
        reached = np.zeros(len(suffixes), dtype=np.bool_)
        stop = self.fail_with or Stop.DONE
        for index, suffix in enumerate(suffixes) if self.fail_with is None else ():
            if not self._step(deadline):
                stop = Stop.DEADLINE
                break
            logits[index] = self._noise([*prefix, *suffix], len(targets), adapter)
            reached[index] = True
            self.scored += 1
        return Scored(logits, reached, stop, self._decode(prefix))

    def prefill(
        self, prefix: Sequence[int], deadline: Deadline, *, adapter: Adapter | None = None
    ) -> Prefilled:
        """See Engine."""
        if self.fail_with is not None:
            return Prefilled(0, self.fail_with)
        return Prefilled(self._decode(prefix), Stop.DONE)

    def save_prefix(self, deadline: Deadline) -> SavedPrefix | None:
        """The prefix; its state is its bytes."""
        return SavedPrefix(self.prefix, bytes(self.prefix)) if self.prefix and not self.fail_with else None

    def restore_prefix(
        self, saved: SavedPrefix, deadline: Deadline, *, adapter: Adapter | None = None
    ) -> bool:
        """See Engine."""
        if self.fail_with is not None or saved.state != bytes(saved.ids):
            return False
        self.prefix = saved.ids
        self.restored += 1
        return True

    def _decode(self, prefix: Sequence[int]) -> int:
        new = len(prefix) - same(self.prefix, prefix)
        self.prefix = tuple(prefix)
        self.decoded += new
        return new

    def rank(self, query: Sequence[int], documents: Sequence[Sequence[int]], deadline: Deadline) -> Ranked:
        """See Engine."""
        scores: list[FloatArray] = []
        stop = self.fail_with or Stop.DONE
        for document in documents if self.fail_with is None else ():
            if not self._step(deadline):
                stop = Stop.DEADLINE
                break
            scores.append(self._noise([*query, *document], 1, None))
        return Ranked(np.concatenate([np.zeros(0, np.float32), *scores]), stop)

    def close(self) -> None:
        """See Engine."""

    def _step(self, deadline: Deadline) -> bool:
        if deadline.remaining_ms() <= self._ms_per_sequence:
            return False
        time.sleep(self._ms_per_sequence / 1000.0)
        return True

    @staticmethod
    def _noise(ids: Sequence[int], width: int, adapter: Adapter | None) -> FloatArray:
        suffix = repr(adapter) if adapter is not None and adapter.scale else ""
        digest = hashlib.sha256((repr(list(ids)) + suffix).encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return generator.standard_normal(width).astype(np.float32)
