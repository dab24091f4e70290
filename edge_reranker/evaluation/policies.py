"""What the list policy costs and brings: NDCG against variety and the user's mix of tags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import beyond, lists, log, metrics
from edge_reranker.evaluation.metrics import Interval
from edge_reranker.ranking import fusion, profile
from edge_reranker.ranking import policy as list_policy
from edge_reranker.types import Candidate, Context, Policy, RerankQuery


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy's lists, first ten places; differences are to the lists without a policy, by user.

    ``distance`` and ``content_distance`` are intra-list distances of tags and of the vectors' content part.
    ``divergence`` is from the tags of what was liked, all alike; ``from_taste`` from the mix that the policy
    aims at; None where there is nothing to measure. ``from_taste_of`` [n_lists] is each list's, NaN for none.
    """

    ndcg10: Interval
    ndcg10_change: Interval
    distance: Interval | None
    content_distance: Interval | None
    divergence: Interval | None
    from_taste: Interval | None
    users_worse: int
    from_taste_of: NDArray[np.float64]


def compare(
    listed: Sequence[lists.Listed],
    lister: lists.Lister,
    weights: fusion.Weights,
    policies: dict[str, Policy],
    *,
    top_n: int = beyond.DEPTH,
) -> dict[str, Outcome]:
    """``policies`` by name, and "none"; the lister has learned something."""
    learned = lister.learned
    if learned is None:
        raise ValueError("the lister has learned nothing: there are no vectors")
    givens = [_given(each, lister, learned, weights, top_n) for each in listed]
    users = lists.users(listed)
    found: dict[str, Outcome] = {}
    before: metrics.Places | None = None
    for name, each in {"none": Policy(), **policies}.items():
        orders = [list_policy.apply(_with(given, each)).order for given in givens]
        places = np.array(
            [at for one, order in zip(listed, orders, strict=True) for at in one.places(order)], np.int64
        )
        before = places if before is None else before
        found[name] = _outcome(listed, lister, learned, givens, orders, places, before, users)
    return found


def _given(
    listed: lists.Listed, lister: lists.Lister, learned: lists.Learned, weights: fusion.Weights, top_n: int
) -> list_policy.Given:
    user = profile.profile(Context(log.events(listed.known, lister.items)), lister.taste)
    scores = fusion.fuse(listed.matrix, lists.NAMES, weights)
    hashes = [learned.hash_of[id_] for id_ in listed.ids]
    return list_policy.Given(
        RerankQuery(tuple(map(Candidate, listed.items)), top_n=top_n),
        scores,
        fusion.order(scores),
        listed.cut.now_s,
        ranking_id=f"{listed.cut.user_id} {listed.cut.n_events}",
        taste=user.tag_shares,
        vectors=lambda rows: learned.affinity.content([hashes[row] for row in rows], learned.vector_of),
        drawn=list_policy.Drawn(listed.matrix, lists.NAMES, weights),
    )


def _with(given: list_policy.Given, policy: Policy) -> list_policy.Given:
    return dataclasses.replace(given, query=dataclasses.replace(given.query, policy=policy))


def _outcome(
    listed: Sequence[lists.Listed],
    lister: lists.Lister,
    learned: lists.Learned,
    givens: Sequence[list_policy.Given],
    orders: Sequence[NDArray[np.intp]],
    places: metrics.Places,
    before: metrics.Places,
    users: Sequence[str],
) -> Outcome:
    columns: dict[str, list[float]] = {name: [] for name in ("tags", "content", "liked", "taste")}
    for each, given, order in zip(listed, givens, orders, strict=True):
        rows = order[: beyond.DEPTH].tolist()
        first = [each.items[at] for at in rows]
        liked = [lister.items[met.item_id] for met in each.cut.history if met.liked]
        columns["tags"].append(beyond.intra_list_distance(beyond.tag_vectors(first)))
        content = learned.affinity.content([learned.hash_of[item.id] for item in first], learned.vector_of)
        columns["content"].append(beyond.intra_list_distance(content))
        columns["liked"].append(beyond.divergence(liked, first))
        columns["taste"].append(beyond.shares_divergence(given.taste, beyond.tag_shares(first)))
    of_list = [each.cut.user_id for each in listed]
    means = {name: beyond.mean(values, of_list) for name, values in columns.items()}
    compared = metrics.compare(places, before, users)
    return Outcome(
        ndcg10=metrics.bootstrap(metrics.ndcg(places), users),
        ndcg10_change=compared.ndcg10,
        distance=means["tags"],
        content_distance=means["content"],
        divergence=means["liked"],
        from_taste=means["taste"],
        users_worse=compared.users_worse,
        from_taste_of=np.array(columns["taste"]),
    )
