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
# The share of the capital that every choice is bet with, and what it can win at most, in units of the stake:
# a click far down says much about the one who clicked and little about the curve of looks.
BET, MOST = 0.7, 6.0
# So often a new part of the capital starts, of the share that does not bet from the first choice. What was
# lost in good times then does not put off the day when they are over.
EVERY, LATER = 50, 0.1


@dataclass(frozen=True, slots=True)
class Gate:
    """The state of the test: immutable; ``after`` gives the next.

    ``server_wins``: the server's order is to be served. ``n_falls`` counts how often that came about,
    ``n_choices`` the choices of the test that runs, and ``stake`` is what has become of the capital that bet.
    """

    server_wins: bool = False
    n_falls: int = 0
    n_choices: int = 0
    stake: float = 1.0 - LATER

    @property
    def capital(self) -> float:
        """What has become of 1 by betting against the order that is served."""
        return self.stake + LATER / (self.n_choices // EVERY + 1)

    @property
    def needed(self) -> float:
        """The capital at which the other order is served: 20; for ours, twice as much after every fall."""
        return (1.0 if self.server_wins else 2.0**self.n_falls) / ALPHA

    def after(self, choice: Choice) -> Gate:
        """The test after one more choice; one against an item says nothing."""
        if choice.against:
            return self
        gain = float(examination(choice.our_place) - examination(choice.server_place)) / choice.exposure
        # Divided by the largest loss there could have been, a loss is the stake at most. A win may be cut:
        # that is in favour of the order that is served.
        won = gain / max(1.0, choice.most_loss) if self.server_wins else -gain / max(1.0, choice.most_gain)
        stake = self.stake * (1.0 + BET * min(max(won, -1.0), MOST))
        n = self.n_choices + 1
        part = n // EVERY
        if part and n % EVERY == 0:
            stake += LATER / (part * (part + 1))
        moved = Gate(self.server_wins, self.n_falls, n, stake)
        if moved.capital < moved.needed:
            return moved
        return Gate(not self.server_wins, self.n_falls + (not self.server_wins))
