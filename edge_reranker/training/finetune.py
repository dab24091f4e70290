"""Fine-tunes an encoder on what users liked next: all its blocks, or a LoRA adapter; one thread, resumable.

The loss is the two-tower one of ``training.head`` with the standardised states themselves for vectors: a
user is the sum of their history's, and the softmax is over the whole catalogue. A step encodes only some
items with gradients; the others' states come from a bank that every step refreshes (Wang et al., "Cross-batch
memory for embedding learning", 2020). A pull towards the frozen states keeps items good that nobody has seen;
docs/decisions/0016 has what else was tried for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.training import loop
from edge_reranker.training.encoders import Network
from edge_reranker.training.head import History, Recipe, batch, popularity_offset, require_torch, usable
from edge_reranker.training.loop import Say, Until

Float32 = NDArray[np.float32]
_CONSTANT = 1e-3  # of the usual deviation


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of fine-tuning; docs/decisions/0016 says how they were chosen.

    ``rank`` None trains every weight of the blocks; ``n_encoded`` items a step are encoded with gradients,
    and ``pull`` is the weight of their distance to the frozen states.
    """

    rank: int | None = None
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    n_encoded: int = 96
    temperature: float = 10.0
    pull: float = 0.3
    batch: Recipe = field(default_factory=Recipe)


SETTINGS: Mapping[str, Settings] = {
    "full": Settings(),
    "lora": Settings(rank=2, learning_rate=4e-3),
}


def finetune(
    network: Network,
    sequences: Sequence[Sequence[int]],
    frozen: Float32,
    histories: Sequence[History],
    settings: Settings,
    until: Until,
    *,
    seed: int,
    checkpoint: Path | None = None,
    save_every_s: float = 30.0,
    say: Say = lambda step, share, loss: None,
) -> int:
    """Trains ``network`` in place and returns the number of steps.

    ``sequences`` are the items' token ids, ``frozen`` their states [n, n_embd]. Goes on from ``checkpoint``
    if that is there, and keeps it up to date; the caller names it after all that it depends on, and deletes
    it. Raises ``FailedPrecondition`` when no history has a liked item to predict, ``Missing`` without torch.
    """
    torch = require_torch()
    training = _Training(torch, network, sequences, frozen, usable(histories), settings, seed)
    loop.run(training, until, checkpoint=checkpoint, save_every_s=save_every_s, say=say)
    training.finish()
    return training.step


class _Training:
    """What changes from step to step, and can be put into a file."""

    def __init__(
        self,
        torch: Any,
        network: Network,
        sequences: Sequence[Sequence[int]],
        frozen: Float32,
        histories: Sequence[History],
        settings: Settings,
        seed: int,
    ) -> None:
        self._torch, self._network, self._settings, self._seed = torch, network, settings, seed
        self._sequences, self._histories = sequences, histories
        self._frozen = torch.tensor(frozen)
        self._bank = self._frozen.clone()
        shift, deviation = frozen.mean(axis=0), frozen.std(axis=0)
        varies = deviation > _CONSTANT * np.median(deviation)
        self._shift = torch.tensor(shift)
        self._scale = torch.tensor(np.where(varies, 1 / np.where(varies, deviation, 1), 0).astype(np.float32))
        self._offset = torch.tensor(popularity_offset(histories, len(frozen), settings.batch))
        if settings.rank is not None:
            network.adapt(network.matrices(), settings.rank, seed)
            trained = {f"{n}.{k}": t for n, pair in network.pairs.items() for k, t in enumerate(pair)}
        else:
            # The table of words stays: those that only new items have would be left behind.
            trained = {n: t for n, t in network.weights.items() if n.startswith("blk.")}
        self._trained = {name: tensor.requires_grad_() for name, tensor in trained.items()}
        self._log_temperature = torch.tensor(math.log(settings.temperature), requires_grad=True)
        self.optimiser = torch.optim.AdamW(
            [
                {"params": list(self._trained.values()), "weight_decay": settings.weight_decay},
                {"params": [self._log_temperature], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )
        self.step, self.elapsed_s = 0, 0.0

    def take_step(self, share: float) -> float:
        """One step, ``share`` of the whole being done; its loss."""
        functional, settings = self._torch.nn.functional, self._settings
        rng = np.random.default_rng([self._seed, self.step])  # so that a step is the same after a break
        known, wanted = batch(self._histories, len(self._bank), settings.batch, rng)
        rows = self._chosen(known, wanted, rng)
        fresh = self._network.states([self._sequences[row] for row in rows])
        at = self._torch.tensor(rows)
        states = self._bank.index_copy(0, at, fresh)
        vectors = functional.normalize((states - self._shift) * self._scale, dim=1)
        users = functional.normalize(self._torch.tensor(known) @ vectors, dim=1)
        logits = users @ vectors.T * self._log_temperature.exp() + self._offset
        logits = logits.masked_fill(self._torch.tensor(known > 0), -1e4)
        liked = -(self._torch.tensor(wanted) * logits.log_softmax(dim=1)).sum() / len(known)
        away = 1 - functional.cosine_similarity(fresh, self._frozen[at], dim=1).mean()
        loss = liked + settings.pull * away
        for group in self.optimiser.param_groups:
            # Up in the first tenth, then down to nothing by half a cosine.
            group["lr"] = settings.learning_rate * min(
                10 * share + 0.1, 0.5 + 0.5 * math.cos(math.pi * share)
            )
        self.optimiser.zero_grad()
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(list(self._trained.values()), 1.0)
        self.optimiser.step()
        self._bank[at] = fresh.detach()
        self.step += 1
        return float(loss.detach())

    def _chosen(self, known: Float32, wanted: Float32, rng: np.random.Generator) -> NDArray[np.int64]:
        """Items to encode: half of them of this batch, half of the whole catalogue."""
        n = min(self._settings.n_encoded, len(self._bank))
        met = np.flatnonzero(((known > 0) | (wanted > 0)).any(axis=0))
        first = rng.choice(met, min(n // 2, len(met)), replace=False)
        others = np.setdiff1d(np.arange(len(self._bank)), first)
        return np.sort(np.concatenate([first, rng.choice(others, n - len(first), replace=False)]))

    def finish(self) -> None:
        """Leaves plain weights."""
        for tensor in self._trained.values():
            tensor.requires_grad_(False)

    @property
    def tensors(self) -> dict[str, Any]:
        """All that a step changes beside the optimiser's own."""
        return {**self._trained, "bank": self._bank, "log_temperature": self._log_temperature}
