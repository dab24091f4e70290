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

from dataclasses import dataclass

from edge_reranker.ranking.learning.feedback import Choice
from edge_reranker.ranking.learning.shown import examination

ALPHA = 0.05
# Shares of the capital that are bet on every choice, in equal parts.
BETS = (0.3, 0.9)


@dataclass(frozen=True, slots=True)
class Gate:
    """The state of the test: immutable; ``after`` gives the next.

    ``server_wins``: the server's order is to be served. ``n_falls`` counts how often that came about,
    ``n_choices`` the choices of the test that runs, and ``stakes`` are what its bets have made of the
    capital that was put in so far.
    """

    server_wins: bool = False
    n_falls: int = 0
    n_choices: int = 0
    stakes: tuple[float, ...] = (0.5,) * len(BETS)

    @property
    def capital(self) -> float:
        """What has become of 1 by betting against the order that is served."""
        return sum(self.stakes) / len(BETS) + 0.5 / (self.n_choices + 1)

    @property
    def needed(self) -> float:
        """The capital at which the other order is served: 20, and twice as much after every fall."""
        return (1.0 if self.server_wins else 2.0**self.n_falls) / ALPHA

    def after(self, choice: Choice) -> Gate:
        """The test after one more choice; one against an item says nothing."""
        if choice.against:
            return self
        gain = float(examination(choice.our_place) - examination(choice.server_place)) / choice.exposure
        payoff = gain / max(1.0, choice.most_loss) if self.server_wins else -gain / max(1.0, choice.most_gain)
        n = self.n_choices + 1
        # Half of the capital bets from the start. Of the other half a part joins with every choice, so that
        # what was lost while all was well does not delay the day when it is not.
        fresh = 0.5 / (n * (n + 1))
        stakes = tuple(
            (stake + fresh) * (1.0 + bet * max(payoff, -1.0))
            for stake, bet in zip(self.stakes, BETS, strict=True)
        )
        moved = Gate(self.server_wins, self.n_falls, n, stakes)
        if moved.capital < moved.needed:
            return moved
        return Gate(not self.server_wins, self.n_falls + (not self.server_wins))
