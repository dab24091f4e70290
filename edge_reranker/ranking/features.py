"""Tier 0: what is known of each candidate without any model, as columns of unit scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reranker.ranking import lexical
from edge_reranker.ranking.profile import SECONDS_A_DAY, Profile, Taste
from edge_reranker.types import Candidate, RerankQuery

FEATURES = (
    "server_rank",  # log of the chance that a user who is not known picks this place of the list, centred
    "server_score",  # the server's own score, standardised; 0 unless every candidate has one
    "history_text",  # BM25 of title and text with the words of the history
    "query_text",  # BM25 of title, text and tags with the words of the query
    "tags",  # cosine of the candidate's tags and the history's
    "attributes",  # share of the history that has the candidate's value, mean over its attributes
    "recency",  # halves with every half-life since publication, centred
    "neighbours",  # weight of the history items that the backend calls similar
    "public_vector",  # cosine with the history's mean in a vector space of the backend's own, centred
    "towers",  # tier 1's learned part; filled in by ``with_columns``, like the rest
    "towers_recent",  # the same for the newest events only
    "content",  # its other part, for unseen items: likeness of the texts, learned from nobody
    "content_recent",  # the same for the newest events only
    "query_content",  # likeness of the candidate's text and the query
    "unseen",  # 1 for an item that nobody knew of whom the pack learned; it has no "towers"
    "item_to_item",  # what people who like the newest events' items like too, as the pack knows it
    "scorer",  # tier 2
    "context_tags",  # how the tags' cosine is another where and when this is asked for (``context``)
)
PERSONAL = frozenset(
    {
        "history_text",
        "tags",
        "attributes",
        "neighbours",
        "public_vector",
        "towers",
        "towers_recent",
        "content",
        "content_recent",
        "unseen",
        "item_to_item",
        "scorer",
        "context_tags",
    }
)

# What no pack has a weight for: it starts at none, and only this user's own feedback gives it a say.
OF_THE_USER = frozenset({"context_tags"})

# What only the encoder fills; in its place other columns say more without it.
OF_THE_ENCODER = frozenset({"towers", "towers_recent", "content", "content_recent", "query_content"})

# The history for which columns of the user stay as they are; a unit, because weights are fitted to it.
_N_USUAL = 20

Vectors = Mapping[str, Mapping[str, NDArray[np.float32]]]


class SaysOfContext(Protocol):
    """What the user's contexts say of candidates; see ``context.Contexts``."""

    def column(
        self, candidates: Sequence[Candidate], query: RerankQuery, now_s: float
    ) -> NDArray[np.float64]:
        """One number per candidate, [n_candidates]; all 0 where the context says nothing."""


def features(
    profile: Profile,
    query: RerankQuery,
    *,
    now_s: float,
    taste: Taste | None = None,
    named: Sequence[str] = (),
    history_vectors: Vectors | None = None,
    words: NDArray[np.float64] | None = None,
    contexts: SaysOfContext | None = None,
) -> NDArray[np.float64]:
    """All columns of ``FEATURES``, then one per name in ``named``: [n_candidates, n_columns].

    ``now_s`` is in seconds since 1970 UTC. ``named`` are names from the candidates' ``features`` that the
    pack has weights for; a candidate without one gets the mean of the others (0 after centring).
    ``history_vectors`` maps a vector space to the history items' vectors by id. ``words`` [2, n_candidates]
    are the profile's and the query's ``word_scores``, where they are known already. Every column in
    ``PERSONAL`` is exactly 0 for an empty profile, and grows with the history (``evidence``). Every value is
    finite.
    """
    taste = taste or Taste()
    candidates = query.candidates
    n = len(candidates)
    columns: dict[str, NDArray[np.float64]] = {"server_rank": server_rank(n)}
    columns["server_score"] = _server_score(candidates)
    found = word_scores([profile.words], query) if words is None else words
    columns["history_text"], columns["query_text"] = found
    columns["tags"] = _tags(profile, candidates)
    columns["attributes"] = _attributes(profile, candidates)
    columns["recency"] = _recency(candidates, now_s, taste.fresh_half_life_days)
    columns["neighbours"] = _neighbours(profile, candidates)
    columns["public_vector"] = _public_vector(profile, candidates, history_vectors or {})
    known = evidence(max(1, len(profile.items)))  # of somebody who only searched, something is known too
    for name in PERSONAL & columns.keys():
        columns[name] = columns[name] * known
    if contexts is not None:
        columns["context_tags"] = contexts.column(candidates, query, now_s)
    zero = np.zeros(n)
    matrix = [columns.get(name, zero) for name in FEATURES]
    matrix += [_named(candidates, name) for name in named]
    return np.column_stack(matrix)


def evidence(n_items: int) -> float:
    """What a column of a user with ``n_items`` in the history is multiplied by: the root of their number.

    Such a column is a mean over the history, and a mean's error falls with that root. With one weight for
    everybody, a single event would be believed as much as fifty (docs/decisions/0018).
    """
    return math.sqrt(n_items / _N_USUAL)


def with_columns(
    matrix: NDArray[np.float64],
    columns: Mapping[str, tuple[NDArray[np.floating], NDArray[np.bool_] | None]],
) -> NDArray[np.float64]:
    """A copy of ``matrix`` with these columns set: scores centred over the reached, 0 elsewhere.

    Scores and reached are [n_candidates]; None means all were reached. A choice model is blind to
    what all candidates share, so centring changes nothing among the reached. It makes 0 mean "no
    evidence either way", so a candidate that was not reached keeps its fused score without the column,
    and being reached is neither good nor bad by itself.
    """
    result = matrix.copy()
    for name, (scores, reached) in columns.items():
        result[:, FEATURES.index(name)] = _centred(scores, reached)
    return result


def server_rank(n: int) -> NDArray[np.float64]:
    """-log(place), places from 1, centred over the list of ``n`` (Zipf's law); [n]."""
    column = -np.log(np.arange(1, n + 1, dtype=np.float64))
    return column - column.mean() if n else column


def _server_score(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    values = np.array([np.nan if c.server_score is None else c.server_score for c in candidates])
    # A score that contradicts the list says nothing sure: the order is the server's word.
    if len(values) < 2 or not np.isfinite(values).all() or (values[1:] > values[:-1]).any():
        return np.zeros(len(values))
    return _standard(values)


def word_scores(histories: Sequence[Mapping[str, float]], query: RerankQuery) -> NDArray[np.float64]:
    """BM25 of every candidate for the words of each history, then for the query's: [n + 1, n_candidates].

    Bit for bit the same for one history, whatever others it is asked with.
    """
    asked = lexical.query_words(query.query)
    if not asked and not any(histories):
        return np.zeros((len(histories) + 1, len(query.candidates)))
    documents = [lexical.words(c.item.title, c.item.text, *c.item.tags) for c in query.candidates]
    return lexical.scores(documents, [*histories, asked])


def _tags(profile: Profile, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    column = np.zeros(len(candidates))
    if profile.tags:
        weight_of = profile.tags.get
        for row, candidate in enumerate(candidates):
            # Each once and in order: a set's order is another in every process, and so is the sum's last bit.
            tags = dict.fromkeys(map(str.casefold, candidate.item.tags))
            if tags:
                column[row] = sum(map(weight_of, tags, repeat(0.0))) / math.sqrt(len(tags))
    return column


def _attributes(profile: Profile, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    column = np.zeros(len(candidates))
    if profile.attributes:
        share_of = profile.attributes.get
        for row, candidate in enumerate(candidates):
            pairs = candidate.item.attributes.items()
            if pairs:
                column[row] = sum(map(share_of, pairs, repeat(0.0))) / len(pairs)
    return column


def _recency(candidates: Sequence[Candidate], now_s: float, half_life_days: float) -> NDArray[np.float64]:
    published = np.array([np.nan if c.published_at is None else c.published_at for c in candidates])
    known = np.isfinite(published)
    age_days = np.maximum(0.0, now_s - np.where(known, published, now_s)) / SECONDS_A_DAY
    return _centred(0.5 ** (age_days / half_life_days), known)


def _neighbours(profile: Profile, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    column = np.zeros(len(candidates))
    largest = max((near.weight for c in candidates for near in c.neighbours), default=0.0)
    if not profile.items or largest <= 0:
        return column
    length = float(np.linalg.norm(profile.weights))
    weight_of = {
        item.id: float(weight) / length for item, weight in zip(profile.items, profile.weights, strict=True)
    }
    for row, candidate in enumerate(candidates):
        if candidate.neighbours:
            column[row] = sum([near.weight * weight_of.get(near.id, 0.0) for near in candidate.neighbours])
    return column / largest


def _public_vector(
    profile: Profile, candidates: Sequence[Candidate], history_vectors: Vectors
) -> NDArray[np.float64]:
    scores = np.zeros(len(candidates))
    reached = np.zeros(len(candidates), np.bool_)
    for space, of_item in history_vectors.items():
        lengths = [len(c.vector) for c in candidates if c.vector_space == space]
        # A backend may have changed a space under its name: only what has this list's length is comparable.
        n_dims = max(lengths, key=lengths.count, default=0)
        users = [
            weight * _unit(of_item[item.id])
            for item, weight in zip(profile.items, profile.weights, strict=True)
            if item.id in of_item and len(of_item[item.id]) == n_dims
        ]
        if not users:
            continue
        user = _unit(np.sum(users, axis=0))
        for row, candidate in enumerate(candidates):
            if candidate.vector_space == space and len(candidate.vector) == len(user):
                scores[row] = _unit(np.array(candidate.vector)) @ user
                reached[row] = True
    return _centred(scores, reached)


def _named(candidates: Sequence[Candidate], name: str) -> NDArray[np.float64]:
    values = np.array([c.features.get(name, np.nan) for c in candidates], np.float64)
    known = np.isfinite(values)
    column = np.zeros(len(values))
    if known.any():
        column[known] = _standard(values[known])
    return column


def _centred(scores: NDArray[np.floating], reached: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    reached = np.ones(len(values), np.bool_) if reached is None else reached
    if not reached.any():
        return np.zeros(len(values))
    return np.asarray(np.where(reached, values - values[reached].mean(), 0.0), np.float64)


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0, deviation 1, clipped to 6; huge values are scaled down first, so nothing overflows."""
    largest = np.abs(values).max()
    scaled = values / largest if largest > 0 else values
    deviation = scaled.std()
    if deviation <= 1e-12:
        return np.zeros(len(values))
    return np.asarray(np.clip((scaled - scaled.mean()) / deviation, -6.0, 6.0), np.float64)


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(vector, np.float64)
    largest = np.abs(values).max(initial=0.0)
    if largest <= 0:
        return values
    values = values / largest
    return np.asarray(values / np.linalg.norm(values), np.float64)
