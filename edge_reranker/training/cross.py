"""Trains tier 2's model to say what the tiers below it do not know: a LoRA adapter, listwise, resumable.

A list is one sequence with a tree mask: the user's context once, every candidate behind it, each seeing the
context and itself only. So training computes what the engine does (tests/training/test_cross.py). The loss is
the softmax cross entropy over the list (Cao et al., "Learning to rank: from pairwise approach to listwise
approach", 2007) of the score of the tiers below plus a learned scale times the model's answer: it learns the
residual.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import FailedPrecondition
from edge_reranker.scoring import Prompt
from edge_reranker.training import loop
from edge_reranker.training.encoders import Network, Packed
from edge_reranker.training.head import require_torch
from edge_reranker.training.loop import Say, Until

Float32 = NDArray[np.float32]

# What an untrained model says, with a deviation of about 1, must not drown what the tiers below say; one
# number may take larger steps than the matrices.
_SCALE, _SCALE_TIMES = 0.3, 10.0


@dataclass(frozen=True, slots=True)
class Example:
    """One list: what the model reads, the logits of the tiers below [n], what was liked [n], summing to 1."""

    prompt: Prompt
    offset: Float32
    wanted: Float32


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of the training; docs/decisions/0017 has what they reached.

    ``half`` multiplies matrices in bfloat16, see ``faster_in_half``; ``n_threads`` changes the order of sums,
    and so the last bits.
    """

    rank: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    n_lists: int = 8
    half: bool = False
    n_threads: int = 1


def faster_in_half() -> bool:
    """Whether this processor multiplies in bfloat16 faster than in single precision; takes a moment.

    One with AVX-512 halves the time; one without takes 77 times as long, since torch then emulates it.
    """
    torch = require_torch()

    def least_s(kind: Any) -> float:
        a, b = torch.ones(64, 512, dtype=kind), torch.ones(512, 512, dtype=kind)
        times_s = []
        for _ in range(4):
            start = time.perf_counter()
            torch.mm(a, b)
            times_s.append(time.perf_counter() - start)
        return min(times_s)

    return least_s(torch.bfloat16) < least_s(torch.float32)


def train(
    network: Network,
    examples: Sequence[Example],
    settings: Settings,
    until: Until,
    *,
    seed: int,
    checkpoint: Path | None = None,
    save_every_s: float = 60.0,
    say: Say = lambda step, share, loss: None,
) -> int:
    """Gives ``network`` trained LoRA pairs and returns the number of steps.

    Goes on from ``checkpoint`` if that is there, and keeps it up to date; the caller names it after all that
    it depends on, and deletes it. Raises ``FailedPrecondition`` without examples, ``Missing`` without torch.
    """
    if not examples:
        raise FailedPrecondition(
            "nothing to learn from: no user who teaches the towers liked a new item that the server proposes"
        )
    training = _Training(network, examples, settings, seed)
    loop.run(
        training,
        until,
        checkpoint=checkpoint,
        save_every_s=save_every_s,
        say=say,
        n_threads=settings.n_threads,
    )
    training.finish()
    return training.step


def answers(network: Network, prompts: Sequence[Prompt], *, n_at_once: int = 8) -> Iterator[Float32]:
    """The logit of the positive answer less that of the negative one for each candidate of each prompt."""
    torch = require_torch()
    for start in range(0, len(prompts), n_at_once):
        some = prompts[start : start + n_at_once]
        with torch.no_grad():
            found = _answers(network, some).numpy()
        yield from np.split(found, np.cumsum([len(each.suffixes) for each in some])[:-1])


def _answers(network: Network, prompts: Sequence[Prompt]) -> Any:
    packed = Packed.trees([(each.prefix, each.suffixes) for each in prompts])
    return network.answers(packed, prompts[0].positive, prompts[0].negative)


class _Training:
    """What changes from step to step, and can be put into a file."""

    def __init__(self, network: Network, examples: Sequence[Example], settings: Settings, seed: int) -> None:
        self._torch = torch = require_torch()
        self._network, self._examples, self._settings, self._seed = network, examples, settings, seed
        network.adapt(network.matrices(), settings.rank, seed)
        self._trained = {
            f"{name}.{at}": tensor.requires_grad_()
            for name, pair in network.pairs.items()
            for at, tensor in enumerate(pair)
        }
        self._log_scale = torch.tensor(math.log(_SCALE), requires_grad=True)
        self.optimiser = torch.optim.AdamW(
            [
                {"params": list(self._trained.values()), "weight_decay": settings.weight_decay, "times": 1.0},
                {"params": [self._log_scale], "weight_decay": 0.0, "times": _SCALE_TIMES},
            ],
            lr=settings.learning_rate,
        )
        self.step, self.elapsed_s = 0, 0.0

    def take_step(self, share: float) -> float:
        """One step, ``share`` of the whole being done; its loss."""
        torch, settings = self._torch, self._settings
        some = [self._examples[at] for at in self._chosen()]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.half):
            found = _answers(self._network, [each.prompt for each in some])
        loss = self._loss(found.float(), some)
        for group in self.optimiser.param_groups:
            # Up in the first tenth, then down to nothing by half a cosine.
            now = min(10 * share + 0.1, 0.5 + 0.5 * math.cos(math.pi * share))
            group["lr"] = group["times"] * settings.learning_rate * now
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._trained.values()), 1.0)
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def _chosen(self) -> NDArray[np.int64]:
        """The next examples; each comes once before any comes again."""
        n = self._settings.n_lists
        places = np.arange(self.step * n, (self.step + 1) * n)
        rounds, within = np.divmod(places, len(self._examples))
        order = {
            turn: np.random.default_rng([self._seed, turn]).permutation(len(self._examples))
            for turn in set(rounds.tolist())
        }
        return np.array([order[turn][at] for turn, at in zip(rounds.tolist(), within, strict=True)])

    def _loss(self, found: Any, some: Sequence[Example]) -> Any:
        torch = self._torch
        losses = []
        start = 0
        for each in some:
            own = found[start : start + len(each.offset)]
            start += len(own)
            logits = torch.tensor(each.offset) + self._log_scale.exp() * own
            losses.append(-(torch.tensor(each.wanted) * logits.log_softmax(dim=0)).sum())
        return torch.stack(losses).mean()

    def finish(self) -> None:
        """Leaves plain weights."""
        for tensor in self._trained.values():
            tensor.requires_grad_(False)

    @property
    def tensors(self) -> dict[str, Any]:
        """All that a step changes beside the optimiser's own."""
        return {**self._trained, "log_scale": self._log_scale}
