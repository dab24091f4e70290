"""The whole policy of one request: soft parts, exploration, then what holds whatever they say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import fusion
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.shown import examination
from edge_reranker.ranking.policy import exploration, greedy
from edge_reranker.ranking.policy.calibration import MAX_DIVERGENCE, Mix
from edge_reranker.ranking.policy.constraints import Constraints
from edge_reranker.ranking.policy.diversity import Dpp, Mmr, described
from edge_reranker.types import DiversityMethod, Policy, RerankQuery

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

# So far down variety and the mix of tags are seen to; as far as ``top_n`` where that is given, at the most.
USUAL_PLACES = 10
_MOST_PLACES = 50
# Best by score: who is below has no chance of coming that far up, but costs time.
_POOL = 200


@dataclass(frozen=True, slots=True)
class Drawn:
    """What exploration needs: the columns ``names`` as a matrix [n, n_columns], the weights' posterior."""

    matrix: Float64
    names: Sequence[str]
    weights: Weights


@dataclass(frozen=True, slots=True)
class Given:
    """What the policy is applied to.

    ``order`` [n] are the candidates' indices by ``scores`` [n], best first, equal ones as the server has
    them. ``muted`` are topics, casefolded; ``taste`` is the user's share of each tag, casefolded
    (``tag_shares``); ``vectors`` gives those of some candidates [m, n_dims], zeros for one without; ``now_s``
    is in seconds since 1970 UTC. Without ``drawn`` nothing is explored.
    """

    query: RerankQuery
    scores: Float64
    order: Indices
    now_s: float
    ranking_id: str = ""
    muted: Collection[str] = ()
    taste: Mapping[str, float] = field(default_factory=dict)
    vectors: Callable[[Sequence[int]], NDArray[np.floating]] | None = None
    drawn: Drawn | None = None


@dataclass(frozen=True, slots=True)
class Arranged:
    """The list: ``order`` are the indices of those that are shown, ``blocked`` of those that are not.

    ``exposure`` [n] is how likely each candidate was to be looked at, over all lists that exploration could
    have had shown, in units of ``examination``; 0 for the blocked, None without exploration.
    """

    order: Indices
    blocked: Indices
    exposure: Float64 | None = None


def has_soft(policy: Policy) -> bool:
    """Whether there is anything that needs more time than sorting out."""
    return bool(policy.diversity or policy.calibration or policy.exploration)


def apply(given: Given, *, soft: bool = True) -> Arranged:
    """The list as the policy of ``given.query`` wants it; without ``soft``, only what must hold.

    Results and blocked are all candidates. With every strength 0, no cap, no pin and nothing blocked it is
    ``order``. Diversity and calibration see to the first ``top_n`` places (10 without; 50 at most) and take
    them from the 200 best by score; below, all others follow by score. Exploration moves what results.
    """
    policy = given.query.policy
    rules = Constraints(given.query, given.muted, given.now_s)
    order = given.order
    if soft and rules.n_shown and (policy.diversity or (policy.calibration and given.taste)):
        order = _moved(given, rules)
    if soft and policy.exploration and given.drawn is not None:
        return _explored(given, given.drawn, order, rules)
    return Arranged(rules.arrange(order), rules.blocked)


def n_places(query: RerankQuery) -> int:
    """So many of the first places diversity and calibration see to, if there are as many candidates."""
    return min(query.top_n or USUAL_PLACES, _MOST_PLACES)


def _moved(given: Given, rules: Constraints) -> Indices:
    """An order [n] whose first places weigh relevance up against variety and the user's mix of tags."""
    policy, candidates = given.query.policy, given.query.candidates
    depth = min(n_places(given.query), rules.n_shown)
    seeds = [index for place, index in sorted(rules.pinned.items()) if place < depth]
    free = given.order[rules.free[given.order]][:_POOL]
    pool = np.concatenate([np.array(seeds, np.intp), free])
    relevant = greedy.relevance(given.scores, given.order)
    method = Dpp if policy.diversity_method is DiversityMethod.DPP else Mmr
    novelty = None
    if policy.diversity:
        vectors = None if given.vectors is None else given.vectors(pool.tolist())
        rows = described(candidates, pool.tolist(), vectors)
        novelty = partial(method, rows)
    mix = Mix(given.taste, candidates, pool.tolist()) if policy.calibration and given.taste else None
    taken = greedy.lists(
        relevant[pool],
        min(depth - len(seeds), len(free)),
        len(seeds),
        greedy.LADDER if mix is not None else (0.0,),
        novelty,
        policy.diversity,
        mix,
    )
    if novelty is None:
        # The mix does not depend on who comes first among them. (The pool's places are by score.)
        taken.sort(axis=1)
    best = 0
    if mix is not None:
        firsts = pool[taken]
        if rules.moves:
            arranged = [rules.arrange(_with_first(given.order, first))[:depth] for first in firsts]
            firsts = np.array(arranged)
        best = _chosen(firsts, mix, relevant, policy.calibration)
    if novelty is None or best == 0 or rules.capped:
        return _with_first(given.order, pool[taken[best]])
    # Nor does it when there is variety to be seen to: that alone says who comes first.
    of_best = np.concatenate([np.arange(len(seeds)), np.sort(taken[best])])
    first = greedy.lists(
        *(relevant[pool[of_best]], taken.shape[1], len(seeds), (0.0,)),
        *(partial(method, rows[of_best]), policy.diversity, None),
    )
    return _with_first(given.order, pool[of_best[first[0]]])


def _with_first(order: Indices, first: Indices) -> Indices:
    """``first``, then all others in their order."""
    rest = np.ones(len(order), np.bool_)
    rest[first] = False
    return np.concatenate([first, order[rest[order]]])


def _chosen(firsts: Indices, mix: Mix, relevant: Float64, strength: float) -> int:
    """Which of the lists is best by (1 - strength) * mean relevance - strength * KL / max KL.

    Both of their first places as they will be shown, ``firsts`` [n_lists, depth]. These do not depend on the
    strength, and the first is the one without calibration, so a larger strength never has a larger KL: if the
    best at a were nearer to the user's mix than the best at b > a, it would be better at b, too.
    """
    divergence = mix.of(firsts)
    value = (1.0 - strength) * relevant[firsts].mean(axis=1) - strength * divergence / MAX_DIVERGENCE
    # At strength 0 it is the first; so what is farther from the user's mix than that is no choice at any.
    value[divergence > divergence[0]] = -np.inf
    # Of equally good ones that nearest to the user's mix, so that which comes first says nothing.
    best = np.flatnonzero(value == value.max())
    return int(best[divergence[best].argmin()])


def _explored(given: Given, drawn: Drawn, order: Indices, rules: Constraints) -> Arranged:
    """The list by the first draw of the weights, and what each candidate could expect over all of them.

    Given the draws, each was as likely to be the first: so the mean over them is exactly what the policy
    gives, and the place that was served is always in it.
    """
    n = len(order)
    draws = exploration.weights(given.ranking_id, drawn.weights, given.query.policy.exploration)
    scores = fusion.fuse_with(drawn.matrix, drawn.names, drawn.weights, draws)
    scores -= fusion.fuse(drawn.matrix, drawn.names, drawn.weights)
    # Diversity and calibration have said who comes first; so much the score of that place is worth.
    scores = scores[:, order] + given.scores[given.order]
    # Equal scores keep the order.
    scores -= np.arange(n) * 1e-12
    theta = examination(np.arange(1, n + 1))
    exposure = np.zeros(n)
    lists = [rules.arrange(order[row]) for row in np.argsort(-scores, axis=1)]
    for each in lists:
        exposure[each] += theta[: len(each)]
    return Arranged(lists[0], rules.blocked, exposure / len(lists))
