"""Steps until the time is over, each a function of seed and number, so that a break changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
    """What changes from step to step, and can be put into a file."""

    step: int
    elapsed_s: float

    def take_step(self, share: float) -> float:
        """One step, ``share`` of the whole being done; its loss."""

    def save(self, path: Path) -> None:
        """Raises OSError."""

    def restore(self, path: Path) -> None:
        """Puts back what ``save`` wrote."""


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
        training.restore(checkpoint)
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
                training.save(checkpoint)
                saved_s = training.elapsed_s
    finally:
        torch.set_num_threads(before)
