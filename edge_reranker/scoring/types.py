"""What a tier is: candidates in, a number each for those it reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Stop
from edge_reranker.ranking.context import Contexts
from edge_reranker.ranking.profile import Profile
from edge_reranker.scoring.epochs import Owner
from edge_reranker.scoring.plan import Plan
from edge_reranker.types import Context, DegradedReason, RerankQuery

Scores = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Columns = Mapping[str, tuple[Scores, Mask | None]]

# What an engine that stopped early means for the answer.
REASONS: Mapping[Stop, DegradedReason] = {
    Stop.DONE: DegradedReason.UNSPECIFIED,
    Stop.DEADLINE: DegradedReason.DEADLINE,
    Stop.BUSY: DegradedReason.MODEL_BUSY,
    Stop.DIED: DegradedReason.MODEL_UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class User:
    """One namespace's user at one moment: their events and what follows from them.

    ``generation`` changes whenever the events do, so anything derived can be kept beside it. ``lent`` names
    the items, by id and text, that are known by a grant only, and whose they are.
    """

    owner: Owner
    generation: int
    context: Context
    profile: Profile
    lent: Mapping[tuple[str, str], Owner] = field(default_factory=dict)
    contexts: Contexts = field(default_factory=Contexts)

    @property
    def namespace(self) -> str:
        """Whose events they are."""
        return self.owner.namespace

    def keeper(self, item_id: str, text_hash: str) -> Owner:
        """In whose namespace a history item's vectors are kept: so they go with the events about it."""
        return self.lent.get((item_id, text_hash), self.owner)


@dataclass(frozen=True, slots=True)
class TierScores:
    """Scores float64 [n]; only where ``reached`` is true do they mean anything.

    ``due`` says which need the tier; None means all do.
    ``reason`` says why some will not be reached; UNSPECIFIED when none had to be, or while more follow.
    ``left`` says which of them it could still read, in this request or a later one; None: none.
    ``more`` are further columns of the tier by name: scores, and where they mean anything (None: everywhere).
    ``again`` gives all the tier's columns as they would be with another profile, from the vectors that were
    at hand here, and those that it makes of what is new in the profile; None: that cannot be told.
    ``vectors`` gives the contents of some candidates, by their indices: [m, n_dims], zeros for one unknown.
    """

    scores: Scores
    reached: Mask
    reason: DegradedReason = DegradedReason.UNSPECIFIED
    due: Mask | None = None
    left: Mask | None = None
    more: Columns = field(default_factory=dict)
    vectors: Callable[[Sequence[int]], npt.NDArray[np.floating]] | None = None
    again: Callable[[Profile, Deadline], Columns] | None = field(default=None, compare=False)

    @property
    def coverage(self) -> float:
        """The share of those due that were reached; 1 when none is."""
        due = self.reached if self.due is None else self.reached[self.due]
        return float(due.mean()) if due.size else 1.0


class Scorer(Protocol):
    """One tier that adds one column to the fusion."""

    @property
    def column(self) -> str:
        """The column's name in the features."""

    def score(
        self,
        user: User,
        query: RerankQuery,
        order: Sequence[int],
        deadline: Deadline,
        plan: Plan | None = None,
    ) -> Iterator[TierScores]:
        """Scores of the candidates, better and better; stops in time.

        ``order`` holds the candidates' indices, best first so far: what comes first is reached first, unless
        a ``plan`` says what is. The plan must know each result before the next is asked for.
        """
