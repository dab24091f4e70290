"""Do no harm: a running test of whether our order serves this user at least as well as the server's.

Under the position-based model a candidate is chosen with a chance proportional to examination(place served) x
appeal, so for every positive choice

    gain = (examination(our place) - examination(server's place)) / examination(place served)

has an expectation of the sign of (expected choices by our order - by the server's): inverse propensity
weighting, Joachims, Swaminathan and Schnabel, "Unbiased learning-to-rank with biased feedback", 2017. While
our order is served, the hypothesis "ours is at least as good" says that the expectation of the gain is not
negative, so the capital of somebody who bets on -gain is a supermartingale, and the chance that it ever grows
twentyfold is 5 % at most (Ville 1939; Waudby-Smith and Ramdas, "Estimating means of bounded random variables
by betting", 2023), however long it runs. Then the server's order is served, and the test is turned round.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from edge_reranker.ranking.learning.feedback import Choice
from edge_reranker.ranking.learning.shown import examination

ALPHA = 0.05
_BETS = (0.05, 0.15, 0.45)
_MOST = 4.0


@dataclass(frozen=True, slots=True)
class Gate:
    """The state of the test: immutable; ``after`` gives the next.

    ``server_wins``: the server's order is to be served. ``n_falls`` counts how often that came about,
    ``capital`` is what a capital of 1 has become in the test that runs.
    """

    server_wins: bool = False
    n_falls: int = 0
    n_choices: int = 0
    stakes: tuple[float, ...] = field(default=(0.0,) * len(_BETS))

    @property
    def capital(self) -> float:
        """What the bets against the order that is served have made of 1."""
        return float(np.mean(self.stakes)) + 1.0 / (self.n_choices + 1)

    @property
    def needed(self) -> float:
        """The capital at which the order changes: 20, and twice as much after every fall."""
        return 2.0**self.n_falls / ALPHA if not self.server_wins else 1.0 / ALPHA

    def after(self, choice: Choice) -> Gate:
        """The test after one more choice; one against an item says nothing."""
        if choice.against:
            return self
        gain = float(examination(choice.our_place) - examination(choice.server_place)) / choice.exposure
        payoff = gain / max(1.0, choice.most_loss) if self.server_wins else -gain / max(1.0, choice.most_gain)
        payoff = min(max(payoff, -1.0), _MOST)
        n = self.n_choices + 1
        fresh = 1.0 / (n * (n + 1))
        stakes = tuple((s + fresh) * (1.0 + bet * payoff) for s, bet in zip(self.stakes, _BETS, strict=True))
        moved = replace(self, n_choices=n, stakes=stakes)
        if moved.capital < moved.needed:
            return moved
        return Gate(server_wins=not self.server_wins, n_falls=self.n_falls + (not self.server_wins))
