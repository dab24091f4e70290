"""Steps until the time is over, each a function of seed and number, so that a break changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge_reranker.models.pull import atomic
from edge_reranker.training.head import require_torch

Say = Callable[[int, float, float], None]
"""Told of every step: its number, the share of the whole that is done, the loss."""


@dataclass(frozen=True, slots=True)
class Until:
    """When it ends: after so many seconds of training, or steps if they are given."""

    seconds: float = 0.0
    n_steps: int | None = None

    def done(self, step: int, elapsed_s: float) -> float:
        """The share that is done, 1 at the end."""
        share = elapsed_s / max(self.seconds, 1e-9) if self.n_steps is None else step / self.n_steps
        return min(1.0, share)


class Training(Protocol):
    """What changes from step to step: two numbers, ``tensors`` by name, and torch's ``optimiser``."""

    step: int
    elapsed_s: float

    @property
    def tensors(self) -> Mapping[str, Any]:
        """All that a step changes beside the optimiser's own."""

    @property
    def optimiser(self) -> Any:
        """Has state of its own."""

    def take_step(self, share: float) -> float:
        """One step, ``share`` of the whole being done; its loss."""


def run(
    training: Training,
    until: Until,
    *,
    checkpoint: Path | None,
    save_every_s: float,
    say: Say,
    n_threads: int = 1,
) -> None:
    """Takes steps until it ends; goes on from ``checkpoint`` if that is there, and keeps it up to date."""
    torch = require_torch()
    if checkpoint is not None and checkpoint.is_file():
        _restore(training, checkpoint)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        saved_s = training.elapsed_s
        while (share := until.done(training.step, training.elapsed_s)) < 1.0:
            started = time.monotonic()
            loss = training.take_step(share)
            training.elapsed_s += time.monotonic() - started
            say(training.step, until.done(training.step, training.elapsed_s), loss)
            if checkpoint is not None and training.elapsed_s - saved_s >= save_every_s:
                _save(training, checkpoint)
                saved_s = training.elapsed_s
    finally:
        torch.set_num_threads(before)


def _save(training: Training, path: Path) -> None:
    """Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": training.step,
        "elapsed_s": training.elapsed_s,
        "tensors": {name: tensor.detach() for name, tensor in training.tensors.items()},
        "optimiser": training.optimiser.state_dict(),
    }
    with atomic(path) as part:
        require_torch().save(state, part)


def _restore(training: Training, path: Path) -> None:
    torch = require_torch()
    state = torch.load(path, weights_only=True)
    training.step, training.elapsed_s = state["step"], state["elapsed_s"]
    with torch.no_grad():
        for name, tensor in training.tensors.items():
            tensor.copy_(state["tensors"][name])
    training.optimiser.load_state_dict(state["optimiser"])
