"""Sampled protocols, for comparison with papers: each target among a few negatives, no server.

Krichene and Rendle, "On Sampled Metrics for Item Recommendation", 2020, show that such figures can order
rankers otherwise than full lists do. They are here because papers report them; lists of a server decide.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, metrics
from edge_reranker.evaluation.lists import Listed, Lister
from edge_reranker.evaluation.log import Log
from edge_reranker.evaluation.protocol import Cut
from edge_reranker.evaluation.servers import ItemServer
from edge_reranker.ranking import lexical
from edge_reranker.types import Candidate, Item

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Negatives:
    """Draws ``n`` items without replacement, none of them in the user's whole log.

    ``chances`` are per item of ``items``: counts for popularity, ones for uniform; an item of 0 is never
    drawn. Every list has its own stream of random numbers, so none depends on which others are made.
    """

    n: int
    items: Sequence[Item]
    chances: Float64
    logs: Mapping[str, Collection[str]]
    seed: int = 0

    def drawn(self, cut: Cut, at: int) -> list[str]:
        """The negatives of the ``at``-th target of ``cut``; fewer than ``n`` where there are no more."""
        rng = np.random.default_rng([self.seed, *cut.user_id.encode(), cut.n_events, at])
        log = self.logs[cut.user_id]
        allowed = np.array([item.id not in log for item in self.items]) & (self.chances > 0)
        rows = np.flatnonzero(allowed)
        # Gumbel's trick: the n largest of log chance + noise are a draw without replacement.
        keys = np.log(self.chances[rows]) + rng.gumbel(size=len(rows))
        return [self.items[row].id for row in rows[np.argsort(-keys, kind="stable")[: self.n]]]


def trials(lister: Lister, cuts: Sequence[Cut], negatives: Negatives, counts: Counter[str]) -> list[Listed]:
    """One list a target: it and its negatives, in order of ``counts``, as a popularity server has it."""
    result = []
    for cut in cuts:
        history = tuple(cut.history)  # records once, not for every reading
        for at, target in enumerate(cut.targets):
            ids = [target, *negatives.drawn(cut, at)]
            ids.sort(key=lambda item_id: (-counts[item_id], item_id))
            alone = Cut(cut.user_id, cut.n_events, history, (target,))
            result.append(lister.among(alone, [Candidate(lister.items[item_id]) for item_id in ids]))
    return result


def by_column(listed: Sequence[Listed], name: str) -> metrics.Places:
    """Places after sorting by one feature alone; ties keep the list's order."""
    at = lists.NAMES.index(name)
    return _sorted(listed, [each.matrix[:, at] for each in listed])


def by_server(listed: Sequence[Listed], server: ItemServer) -> metrics.Places:
    """Places by a server's scores; an item that it does not know scores 0."""
    row_of, similarity = server.past.row_of, server.similarity
    columns = []
    for each in listed:
        user = server.past.read([each.cut.history], server.reading)[0]
        known = np.flatnonzero(user)
        at = np.array([row_of.get(item_id, -1) for item_id in each.ids])
        # Only what the list asks for: all scores of all lists would be 100 times the work.
        own = user[known] @ similarity[np.ix_(known, at)]
        columns.append(np.where(at >= 0, own, 0.0))
    return _sorted(listed, columns)


def by_words(listed: Sequence[Listed], items: Sequence[Item], lister: Lister) -> metrics.Places:
    """Places by the cosine of TF-IDF vectors, titles and tags, of candidate and liked history."""
    vector_of = tf_idf(items)
    columns = []
    for each in listed:
        user: dict[str, float] = defaultdict(float)
        for rating in each.known[-lister.taste.max_events :]:
            if rating.liked:
                for word, weight in vector_of[rating.item_id].items():
                    user[word] += weight
        columns.append(
            np.array(
                [sum(user.get(word, 0.0) * weight for word, weight in vector_of[i].items()) for i in each.ids]
            )
        )
    return _sorted(listed, columns)


def tf_idf(items: Iterable[Item]) -> dict[str, dict[str, float]]:
    """Every item's words by weight, of length 1: count times log(n_items / n_items with the word)."""
    words = {item.id: Counter(lexical.words(item.title, item.text, *item.tags)) for item in items}
    having = Counter(word for found in words.values() for word in found)
    return {
        item_id: lexical.unit({w: n * math.log(len(words) / having[w]) for w, n in found.items()})
        for item_id, found in words.items()
    }


def met(log: Log) -> dict[str, set[str]]:
    """All that every user ever met."""
    return {user: {log.items[row].id for row in past.rows} for user, past in log.of_users()}


def _sorted(listed: Sequence[Listed], columns: Sequence[NDArray[np.floating]]) -> metrics.Places:
    found: list[int] = []
    for each, column in zip(listed, columns, strict=True):
        found.extend(each.places(np.argsort(-column, kind="stable")))
    return np.array(found, np.int64)
