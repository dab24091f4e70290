"""Keeping alike candidates apart: how alike they are, and what that costs the next in line.

Both methods take the next candidate by (1 - strength) * relevance + strength * novelty, where novelty is 0
before anything was taken:

- MMR: minus the largest similarity with one that was taken. Carbonell and Goldstein, "The use of MMR,
  diversity-based reranking", SIGIR 1998.
- DPP: log d_i^2, by which log det of the taken ones' similarities grows: greedy MAP of a determinantal point
  process. Chen, Zhang and Zhou, "Fast greedy MAP inference for determinantal point process to improve
  recommendation diversity", NeurIPS 2018, whose update by Cholesky's factors this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reranker.types import Candidate

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

# Of two candidates that read the same, the second is still worth something: log det stays finite.
_RIDGE = 0.1


def described(
    candidates: Sequence[Candidate], pool: Sequence[int], vectors: NDArray[np.floating] | None = None
) -> Float64:
    """Each candidate of the pool by its tags and ``vectors`` [n_pool, n_dims] (zeros: none), of length 1.

    [n_pool, n]. Two are as alike as the cosine says, but at least 0. Tags and vector count the same where a
    candidate has both; one that has neither has zeros and is like nobody.
    """
    rows = _tags([candidates[index].item.tags for index in pool])
    if vectors is not None:
        rows = _unit(np.concatenate([rows, _unit(np.asarray(vectors, np.float64))], axis=1))
    return rows


class Novelty(Protocol):
    """What each candidate of the pool adds to each of several lists."""

    @property
    def values(self) -> Float64:
        """At most 0; 0 for all of an empty list: [n_lists, n_pool]."""

    def took(self, taken: Indices) -> None:
        """Each list was given one more, ``taken`` [n_lists]."""


class Mmr:
    """Of one list or several at once."""

    def __init__(self, rows: Float64, n_lists: int, depth: int) -> None:
        """``rows`` as ``described``; ``depth`` is the most that are taken."""
        self._rows = rows
        self.values: Float64 = np.zeros((n_lists, len(rows)))

    def took(self, taken: Indices) -> None:
        """Novelty falls to minus the similarity with the one that was taken, where it was above."""
        np.minimum(self.values, -_alike(self._rows, taken), out=self.values)


class Dpp:
    """Of one list or several at once."""

    def __init__(self, rows: Float64, n_lists: int, depth: int) -> None:
        """``rows`` as ``described``; ``depth`` is the most that are taken."""
        self._rows = rows
        n = len(rows)
        self._factors: Float64 = np.zeros((n_lists, depth, n))
        self._squares: Float64 = np.ones((n_lists, n))
        self._lists = np.arange(n_lists)
        self._n_taken = 0
        self.values: Float64 = np.zeros((n_lists, n))

    def took(self, taken: Indices) -> None:
        """One more row of the factor, e_i = (L_ji - <c_j, c_i>) / d_j, and d_i^2 less e_i^2."""
        before = self._factors[:, : self._n_taken]
        own = before[self._lists, :, taken]
        row = (1.0 - _RIDGE) * _alike(self._rows, taken)
        row[self._lists, taken] = 1.0
        row -= np.matmul(own[:, None, :], before)[:, 0]
        row /= np.sqrt(self._squares[self._lists, taken])[:, None]
        self._factors[:, self._n_taken] = row
        self._n_taken += 1
        # No less in exact arithmetic, if no cosine was negative.
        self._squares = np.maximum(self._squares - row * row, _RIDGE)
        self.values = np.log(self._squares)


def _alike(rows: Float64, taken: Indices) -> Float64:
    """Similarities of ``taken`` [m] with all, [m, n_pool]. Few are taken; of all pairs there are many."""
    return np.asarray(np.maximum(rows[taken] @ rows.T, 0.0), np.float64)


def _tags(tags: Sequence[tuple[str, ...]]) -> Float64:
    """Each candidate's tags as a vector of length 1: [n, n_tags]."""
    at: dict[str, int] = {}
    known: dict[tuple[str, ...], list[int]] = {}
    own: list[list[int]] = []
    for each in tags:
        found = known.get(each)
        if found is None:
            distinct = dict.fromkeys(map(str.casefold, each))
            found = known[each] = [at.setdefault(tag, len(at)) for tag in distinct]
        own.append(found)
    lengths = np.array(list(map(len, own)), np.intp)
    vectors = np.zeros((len(tags), len(at)))
    rows = np.repeat(np.arange(len(tags)), lengths)
    vectors[rows, list(chain.from_iterable(own))] = np.repeat(1.0 / np.sqrt(np.maximum(lengths, 1)), lengths)
    return vectors


def _unit(rows: Float64) -> Float64:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float64)
