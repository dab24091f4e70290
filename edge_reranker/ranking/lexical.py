"""Words: what a text is about, and BM25 over one request's candidates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import repeat

import bm25s
import numpy as np
from numpy.typing import NDArray

# A body of 4,096 characters would cost 40 times a title and adds little: what matters comes first.
MAX_CHARS = 512

_WORD = re.compile(r"\w+")


def words(*texts: str) -> list[str]:
    """The case-folded words of each text's first ``MAX_CHARS`` characters."""
    return _WORD.findall(" ".join([text[:MAX_CHARS] for text in texts if text]).casefold())


def scores(documents: Sequence[Sequence[str]], queries: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """BM25 of every document for every weighted query, [n_queries, n_documents].

    A query's score is the weighted sum over its words, divided by log(1 + n_documents), the size of the
    rarest word's idf: so it is of unit scale whatever the list's length. Robertson and Zaragoza, "The
    Probabilistic Relevance Framework: BM25 and Beyond", 2009, in the variant of Lucene.
    """
    n = len(documents)
    result = np.zeros((len(queries), n))
    # Only the queries' words can score. All others share one id, which keeps the documents' lengths.
    ids = {word: at for at, word in enumerate(sorted(set().union(*queries)))}
    other = len(ids)
    known = ids.keys()
    if not any(not known.isdisjoint(document) for document in documents):
        return result
    corpus = [list(map(ids.get, document, repeat(other))) for document in documents]
    index = bm25s.BM25(auto_compile=False)
    index.index((corpus, {**ids, "": other}), create_empty_token=False, show_progress=False)
    # bm25s takes no weights for a query's words, but its matrix of scores does.
    matrix = index.scores
    for row, query in enumerate(queries):
        weights = np.zeros(other + 1)
        for word, weight in query.items():
            weights[ids[word]] = weight
        per_entry = np.repeat(weights, np.diff(matrix["indptr"]))
        result[row] = np.bincount(matrix["indices"], weights=matrix["data"] * per_entry, minlength=n)
    return np.asarray(result / np.log1p(n), np.float64)


def query_words(query: str) -> dict[str, float]:
    """A search's words, each with an equal share of 1."""
    found = set(words(query))
    return {word: 1.0 / len(found) for word in found}


def unit(counts: Mapping[str, float]) -> dict[str, float]:
    """Weights of length 1 (Euclidean); empty when there are none."""
    length = math.sqrt(sum(value * value for value in counts.values()))
    return {word: value / length for word, value in counts.items()} if length > 0 else {}
