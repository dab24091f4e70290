"""A scorer's variant: how it ranks, how much of that is noise, and what it thinks comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Stop, WorkerEngine
from edge_reranker.engine.types import Mode
from edge_reranker.errors import EngineDied
from edge_reranker.scoring import Prompt
from edge_reranker_quantize.agreement import Float, Rankings, log_softmax, place
from edge_reranker_quantize.workload import Request

_LOAD_MS = 600_000.0
_N_NOISE = 6
N_POSITIONS = 1_000
_ROWS_A_CALL = 100  # of all logits: 20 MB of SmolLM2's


class Enough(Protocol):
    """Told after every request how the rankings look so far; True ends it there."""

    def __call__(self, scores: Sequence[Float]) -> bool:
        """``scores`` of the requests until now."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How far a candidate's score moves when others are scored beside it, by the spread over candidates.

    Root mean squares over requests, for each of the engine's modes.
    """

    isolated: float
    unified: float


def start(path: Path, n_threads: int, mode: Mode = "isolated") -> WorkerEngine:
    """A worker as the service has it. Raises EngineDied."""
    spec = EngineSpec(path, "scorer", n_threads, mode=mode)
    engine = WorkerEngine(spec if mode == "isolated" else replace(spec, n_sequences=_ROWS_A_CALL))
    if not engine.wait_ready(Deadline.after_ms(_LOAD_MS)):
        problem = engine.problem
        engine.close()
        raise EngineDied(problem or f"{path} does not load")
    return engine


def rankings(
    engine: WorkerEngine, prompts: Sequence[Prompt], asked: Sequence[Request], enough: Enough | None = None
) -> Rankings:
    """By the model's answers alone; of the first requests until it is ``enough``. Raises EngineDied."""
    scores: list[Float] = []
    for each in prompts:
        scores.append(_scores(engine, each.prefix, each.suffixes, each))
        if enough is not None and enough(scores):
            break
    done = asked[: len(scores)]
    places = [[place(found, at) for at in each.targets] for found, each in zip(scores, done, strict=True)]
    return Rankings([each.user_id for each in done], scores, places)


def noise(isolated: WorkerEngine, unified: WorkerEngine, prompts: Sequence[Prompt]) -> Noise:
    """Each candidate scored beside the others of its request, and alone. Raises EngineDied."""
    return Noise(*(_noise(engine, prompts[:_N_NOISE]) for engine in (isolated, unified)))


def _noise(engine: WorkerEngine, prompts: Sequence[Prompt]) -> float:
    moved, spread = [], []
    for each in prompts:
        together = _scores(engine, each.prefix, each.suffixes, each)
        alone = np.concatenate([_scores(engine, each.prefix, [one], each) for one in each.suffixes])
        moved.append(((together - alone) ** 2).mean())
        spread.append(together.var())
    return float(np.sqrt(np.mean(moved) / np.mean(spread))) if any(spread) else 0.0


def next_tokens(unified: WorkerEngine, prompts: Sequence[Prompt], n: int = N_POSITIONS) -> Float:
    """Log probabilities of what comes behind each token of the prompts' texts: [n, n_vocab].

    A text's beginnings are so many candidates of one call, and what they share is decoded once. Raises
    EngineDied.
    """
    if unified.info is None:
        raise EngineDied("the model is gone; run it again")
    everything = range(unified.info.n_vocab)
    found: list[Float] = []
    n_left = n
    for each in prompts:
        text = [*each.prefix, *each.suffixes[0]]
        for first in range(0, len(text), _ROWS_A_CALL):
            ends = range(first + 1, min(first + _ROWS_A_CALL, len(text), first + n_left) + 1)
            if not ends:
                break
            scored = unified.score(text[:first], [text[first:end] for end in ends], everything, Deadline())
            _whole(unified, scored.stop)
            found.append(log_softmax(scored.logits))
            n_left -= len(ends)
        if n_left <= 0:
            break
    return np.concatenate(found)


def _scores(
    engine: WorkerEngine, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], prompt: Prompt
) -> Float:
    scored = engine.score(prefix, suffixes, [prompt.positive, prompt.negative], Deadline())
    _whole(engine, scored.stop)
    return scored.logits[:, 0] - scored.logits[:, 1]


def _whole(engine: WorkerEngine, stop: Stop) -> None:
    if stop != Stop.DONE:
        raise EngineDied(engine.problem or "the model stopped while it was measured; run it again")
