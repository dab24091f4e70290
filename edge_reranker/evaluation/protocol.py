"""Who trains, who tests, and on what: one global moment parts the past from the future.

The past is everything up to the 70 % quantile of all rating times. Users who start by then are
"earlier": 70 % of them train the server and the head (their ratings up to the split only), the other
30 % fit the fusion. Users who start afterwards are "later": nothing is learned from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_reranker.evaluation.movielens import MovieLens, Rating

SPLIT_QUANTILE = 0.7
HEAD_SHARE = 0.7
CUTS = (10, 20, 40)
N_TARGETS = 5
LIKED_STARS = 4.0


@dataclass(frozen=True, slots=True)
class Cut:
    """One user at one moment: what is known of them, and the films they like next.

    Every target is one case. All of ``history`` happened before the first target, not at its time.
    """

    user_id: str
    n_events: int
    history: tuple[Rating, ...]
    targets: tuple[str, ...]

    @property
    def now_s(self) -> float:
        """The moment of asking: that of the newest event known, in seconds since 1970 UTC."""
        return self.history[-1].at_s


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint users. ``head``: their ratings up to ``at_s``; ``fusion`` and ``test``: their cuts."""

    at_s: float
    head: Mapping[str, tuple[Rating, ...]]
    fusion: tuple[Cut, ...]
    test: tuple[Cut, ...]
    n_earlier: int
    n_later: int


def split(data: MovieLens, *, seed: int = 0) -> Split:
    """Part the users by time, and the earlier ones by a shuffle with ``seed``."""
    at_s = float(np.quantile([r.at_s for r in data.ratings], SPLIT_QUANTILE))
    of_user: dict[str, list[Rating]] = defaultdict(list)
    for rating in data.ratings:
        of_user[rating.user_id].append(rating)
    users = sorted(of_user)
    earlier = [user for user in users if of_user[user][0].at_s <= at_s]
    later = [user for user in users if of_user[user][0].at_s > at_s]
    shuffled = [earlier[i] for i in np.random.default_rng(seed).permutation(len(earlier))]
    n_head = round(HEAD_SHARE * len(shuffled))
    past = {user: tuple(r for r in of_user[user] if r.at_s <= at_s) for user in earlier}
    return Split(
        at_s=at_s,
        head={user: past[user] for user in shuffled[:n_head]},
        fusion=cuts({user: past[user] for user in shuffled[n_head:]}),
        test=cuts({user: tuple(of_user[user]) for user in later}),
        n_earlier=len(earlier),
        n_later=len(later),
    )


def cuts(of_user: Mapping[str, tuple[Rating, ...]]) -> tuple[Cut, ...]:
    """Every user's cuts after 10, 20 and 40 events; targets are up to five films they like later on.

    Ratings must be ordered by time. Ratings that share the last known event's time are neither
    history (beyond the count) nor targets: their order among themselves is not known.
    """
    found = []
    for user, ratings in of_user.items():
        for n_events in CUTS:
            if len(ratings) <= n_events:
                continue
            history = ratings[:n_events]
            liked = _liked_after(ratings[n_events:], history[-1].at_s)
            if liked:
                found.append(Cut(user, n_events, history, tuple(liked[:N_TARGETS])))
    return tuple(found)


def _liked_after(ratings: Iterable[Rating], at_s: float) -> list[str]:
    return [r.item_id for r in ratings if r.at_s > at_s and r.stars >= LIKED_STARS]
