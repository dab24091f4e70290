"""Who trains, who tests, and on what: one global moment parts the past from the future.

The past is everything up to the 70 % quantile of all interactions' times. Users who start by then are
"earlier": 70 % of them train the server and the head (their past only), the other 30 % fit the fusion.
Users who start afterwards are "later": nothing is learned from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_reranker.errors import FailedPrecondition
from edge_reranker.evaluation.log import Interaction, Interactions, Log

SPLIT_QUANTILE = 0.7
HEAD_SHARE = 0.7
CUTS = (10, 20, 40)
N_TARGETS = 5
# Lists are matrices in memory: of more users than these, drawn by chance, the interval tells nothing more.
MAX_LIST_USERS = 2000
# The fewest users that a step can begin with; 25 in all can be enough.
NEEDED = {"head": 5, "fusion": 2, "test": 2}


@dataclass(frozen=True, slots=True)
class Cut:
    """One user at one moment: what is known of them, and the new items they like next.

    Every target is one case. All of ``history`` happened before the first target, not at its time.
    """

    user_id: str
    n_events: int
    history: Sequence[Interaction]
    targets: tuple[str, ...]

    @property
    def now_s(self) -> float:
        """The moment of asking: that of the newest event known, in seconds since 1970 UTC."""
        return self.history[-1].at_s


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint users. ``head``: their past, up to ``at_s``; ``fusion`` and ``test``: their cuts."""

    at_s: float
    head: Mapping[str, Interactions]
    fusion: tuple[Cut, ...]
    test: tuple[Cut, ...]
    n_earlier: int
    n_later: int


def split(data: Log, *, seed: int = 0) -> Split:
    """Part the users by time, and the earlier ones by a shuffle with ``seed``.

    Of more than ``MAX_LIST_USERS`` users who fit the fusion, or test, a sample has cuts. Raises
    ``FailedPrecondition`` when a step has too few users.
    """
    if not len(data.at_s):
        raise FailedPrecondition("the log has no interactions: nothing can be learned or measured")
    at_s = float(np.quantile(data.at_s, SPLIT_QUANTILE))
    of_user = dict(data.of_users())
    earlier = [user for user, all_ in of_user.items() if all_.at_s[0] <= at_s]
    later = [user for user, all_ in of_user.items() if all_.at_s[0] > at_s]
    shuffled = [earlier[i] for i in np.random.default_rng(seed).permutation(len(earlier))]
    n_head = round(HEAD_SHARE * len(shuffled))
    fusion = shuffled[n_head : n_head + MAX_LIST_USERS]
    found = Split(
        at_s=at_s,
        head={user: of_user[user].up_to(at_s) for user in shuffled[:n_head]},
        fusion=cuts({user: of_user[user].up_to(at_s) for user in fusion}),
        test=cuts({user: of_user[user] for user in _sample(later, seed)}),
        n_earlier=len(earlier),
        n_later=len(later),
    )
    _require_users(found)
    return found


def _sample(users: list[str], seed: int) -> list[str]:
    if len(users) <= MAX_LIST_USERS:
        return users
    drawn = np.random.default_rng(seed).choice(len(users), MAX_LIST_USERS, replace=False)
    return [users[i] for i in sorted(drawn.tolist())]


def _require_users(found: Split) -> None:
    cut_after = f"more than {min(CUTS)} interactions and a new item liked afterwards"
    until = "before the moment that has 70 % of all interactions behind it"
    for step, n, whom in (
        ("head", len(found.head), f"who start {until}"),
        ("fusion", len({c.user_id for c in found.fusion}), f"with {cut_after}, all {until}"),
        ("test", len({c.user_id for c in found.test}), f"who start after that moment, with {cut_after}"),
    ):
        if n < NEEDED[step]:
            raise FailedPrecondition(
                f"too few users for the {step} step: {NEEDED[step]} are needed {whom}; the log has {n} "
                f"(of {found.n_earlier} earlier and {found.n_later} later users in all)"
            )


def cuts(
    of_user: Mapping[str, Sequence[Interaction]], after: Mapping[str, Sequence[int]] | None = None
) -> tuple[Cut, ...]:
    """Every user's cuts after 10, 20 and 40 interactions; targets are up to five new items liked later on.

    ``after`` has other numbers, by user.

    Interactions must be ordered by time. Those that share the last known one's time are neither history
    (beyond the count) nor targets: their order among themselves is not known.
    """
    found = []
    for user, interactions in of_user.items():
        for n_events in CUTS if after is None else after[user]:
            if len(interactions) <= n_events:
                continue
            history = interactions[:n_events]
            targets = _liked_after(interactions[n_events:], history)
            if targets:
                found.append(Cut(user, n_events, history, targets))
    return tuple(found)


def _liked_after(rest: Iterable[Interaction], history: Sequence[Interaction]) -> tuple[str, ...]:
    known = {each.item_id for each in history}
    targets: dict[str, None] = {}
    for each in rest:
        if each.liked and each.at_s > history[-1].at_s and each.item_id not in known:
            targets[each.item_id] = None
            if len(targets) == N_TARGETS:
                break
    return tuple(targets)
