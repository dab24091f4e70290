"""Does tier 2 pay? Its weight in the fusion, and what it adds to the tiers below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine, Stop
from edge_reranker.errors import EngineDied
from edge_reranker.evaluation import lists, metrics
from edge_reranker.evaluation.lists import Listed
from edge_reranker.ranking import fusion
from edge_reranker.scoring import Prompt
from edge_reranker.training import prior
from edge_reranker.training.choice import halves
from edge_reranker.training.cross import Float32

LEAST_GAIN = 0.003
"""Of NDCG@10, with an interval above 0: less is not worth the time that a request waits for it."""


@dataclass(frozen=True, slots=True)
class Gain:
    """NDCG@10 without and with tier 2, and the paired difference."""

    before: metrics.Interval
    after: metrics.Interval
    comparison: metrics.Comparison

    @property
    def pays(self) -> bool:
        """Whether it is large enough, and sure."""
        found = self.comparison.ndcg10
        return found.mean >= LEAST_GAIN and found.low > 0

    def as_text(self) -> str:
        """One line."""
        before, after, change = self.before, self.after, self.comparison.ndcg10
        better, same, worse = (getattr(self.comparison, f"users_{n}") for n in ("better", "same", "worse"))
        return (
            f"NDCG@10 {before.mean:.4f} [{before.low:.4f}, {before.high:.4f}] without, {after.mean:.4f} "
            f"[{after.low:.4f}, {after.high:.4f}] with: {change.mean:+.4f} [{change.low:+.4f}, "
            f"{change.high:+.4f}]; users better/same/worse {better} / {same} / {worse}"
        )


def served(engine: Engine, prompts: Sequence[Prompt]) -> list[Float32]:
    """The scores of each prompt's candidates by the engine that serves. Raises EngineDied."""
    found = []
    for each in prompts:
        scored = engine.score(each.prefix, each.suffixes, [each.positive, each.negative], Deadline())
        if scored.stop != Stop.DONE:
            raise EngineDied("the model stopped while it read the lists; run the same command again")
        found.append(scored.logits[:, 0] - scored.logits[:, 1])
    return found


def gain(
    after: tuple[Sequence[Listed], fusion.Weights], before: tuple[Sequence[Listed], fusion.Weights]
) -> Gain:
    """Of two ways to rank the same cases, each of lists and weights."""
    return _gain(lists.places(*after), lists.places(*before), lists.users(after[0]))


def validated(scored: Sequence[Listed], plain: Sequence[Listed]) -> Gain:
    """What tier 2 adds for the users who fit the prior, each half of them under weights fitted on the other.

    ``scored`` has its column, ``plain`` are the same lists without.
    """
    after, before = (
        np.concatenate([lists.places(half[at], prior.pooled(half[1 - at])) for at in (0, 1)])
        for half in (halves(scored), halves(plain))
    )
    return _gain(after, before, [user for half in halves(scored) for user in lists.users(half)])


def _gain(after: metrics.Places, before: metrics.Places, users: Sequence[str]) -> Gain:
    return Gain(
        metrics.bootstrap(metrics.ndcg(before), users),
        metrics.bootstrap(metrics.ndcg(after), users),
        metrics.compare(after, before, users),
    )
