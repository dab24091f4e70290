"""What an engine takes and gives: token ids in, arrays out. It knows no users, prompts or databases."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline
from edge_reranker.errors import InvalidArgument
from edge_reranker.types import ModelState, Piece, Pooling

# An item's own text never needs more, and llama.cpp reserves compute buffers for it.
MAX_ENCODE_TOKENS = 512
# Query, document and separators together; what BERT was trained on.
MAX_RANK_TOKENS = 512

# How hidden states are made, besides by which model: what is kept of them names it, so that a change of their
# last bits is no mixture of two.
STATES = "mean, flash attention"

FloatArray = npt.NDArray[np.float32]
Role = Literal["encoder", "scorer", "ranker"]
Mode = Literal["isolated", "unified"]


class Stop(enum.StrEnum):
    """Why an engine stopped."""

    DONE = "done"
    DEADLINE = "deadline"
    BUSY = "busy"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which model to run, and how.

    ``n_sequences`` candidates are scored at once; prefix and candidate have ``n_ctx_sequence`` tokens.
    ``mode`` "isolated" gives a candidate a KV stream of its own, so that its score has the same bits
    whatever stands beside it; "unified" is faster and gives that up.
    ``memory_limit_bytes`` caps the worker's address space; 0 means no cap.
    ``nice`` is the worker's niceness, 0 to 19. ``pooling`` and ``normalise`` (to length 1) say what an
    encoder makes of a text's hidden states.
    """

    path: Path
    role: Role
    n_threads: int = 2
    n_sequences: int = 20
    n_ctx_sequence: int = 256
    memory_limit_bytes: int = 0
    mode: Mode = "isolated"
    nice: int = 0
    pooling: Pooling = "mean"
    normalise: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter in GGUF, for the model it was trained on; ``scale`` 0 is the bare model.

    Raises InvalidArgument for a scale that is not finite.
    """

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise InvalidArgument("adapter.scale", f"{self.scale}; it must be a finite number")


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the loaded model is.

    ``n_ctx_sequence`` is the room for prefix and candidate, for a ranker's query and document, or for an
    encoder's text.
    """

    description: str
    n_embd: int
    n_vocab: int
    n_layer: int
    n_ctx_sequence: int
    system: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """Hidden states of the first ``len(vectors)`` sequences asked for, float32 [n_done, n_embd]."""

    vectors: FloatArray
    stop: Stop


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits float32 [n_suffixes, n_targets]; rows that were not reached are False in ``reached``.

    ``prefix_tokens`` is how many tokens of the prefix had to be decoded for it.
    """

    logits: FloatArray
    reached: npt.NDArray[np.bool_]
    stop: Stop
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Prefilled:
    """How many tokens of a prefix were decoded; DEADLINE means that there are more."""

    prefix_tokens: int
    stop: Stop


@dataclass(frozen=True, slots=True)
class SavedPrefix:
    """A decoded prefix: its token ids, and what llama.cpp keeps of them."""

    ids: tuple[int, ...]
    state: bytes


@dataclass(frozen=True, slots=True)
class Ranked:
    """Scores of the first ``len(scores)`` documents asked for, float32 [n_done]; higher is better."""

    scores: FloatArray
    stop: Stop


class Engine(Protocol):
    """A model that runs somewhere. Thread-safe; calls take turns."""

    @property
    def state(self) -> ModelState:
        """What the model is doing."""

    @property
    def info(self) -> EngineInfo | None:
        """What the model is; None until it has been loaded once."""

    def wait_ready(self, deadline: Deadline) -> bool:
        """Waits until the model answers, at most until the deadline; whether it does."""

    def tokenize(self, texts: Sequence[Sequence[Piece]], deadline: Deadline) -> list[list[int]]:
        """Token ids of each text. Data pieces give no control tokens, whatever they say.

        Raises EngineBusy, EngineDied.
        """

    def load_adapter(self, path: Path, deadline: Deadline) -> None:
        """Makes the first call with an adapter as fast as the next; the calls of others stay as they are.

        Raises ModelInvalid for a file that is no adapter for this model, EngineBusy, EngineDied.
        """

    def encode(
        self,
        sequences: Sequence[Sequence[int]],
        deadline: Deadline,
        *,
        background: bool = False,
        adapter: Adapter | None = None,
    ) -> Encoded:
        """Pooled last hidden states as the spec says, one sequence per decode, in the order given.

        Stops early rather than pass the deadline; never raises for lack of time. ``background`` calls
        let others go first. An ``adapter`` is in effect for this call only; one that cannot be loaded any
        more stops it as DIED.
        """

    def score(
        self,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        targets: Sequence[int],
        deadline: Deadline,
        *,
        adapter: Adapter | None = None,
    ) -> Scored:
        """Logits of ``targets`` at the last token of prefix + suffix, for each suffix.

        The prefix is decoded once and kept for the next call. With time for all, suffixes are batched as
        is cheapest; else the first ones as far as time goes. Raises InvalidArgument for an empty or overlong
        input. ``adapter`` as in ``encode``; the prefix is decoded again when it changes.
        """

    def prefill(
        self, prefix: Sequence[int], deadline: Deadline, *, adapter: Adapter | None = None
    ) -> Prefilled:
        """Decodes the next slice of a prefix (about 50 ms) before a request needs it; DONE once it is whole.

        Calls that score or encode go first. Raises InvalidArgument for an overlong prefix.
        """

    def save_prefix(self, deadline: Deadline) -> SavedPrefix | None:
        """The prefix as decoded; None without one, or when the engine cannot tell in time."""

    def restore_prefix(
        self, saved: SavedPrefix, deadline: Deadline, *, adapter: Adapter | None = None
    ) -> bool:
        """Makes a saved prefix the one that is decoded; False when it is not taken, or there is one already.

        The state must come from ``save_prefix`` of the same model, adapter and version of llama.cpp.
        """

    def rank(self, query: Sequence[int], documents: Sequence[Sequence[int]], deadline: Deadline) -> Ranked:
        """A rank model's score of each document for the query, in the order given, while time remains.

        The model's own separators are put around both. A score has the same bits whatever stands beside it.
        Raises InvalidArgument for an overlong pair.
        """

    def close(self) -> None:
        """Stops the model. Idempotent."""
