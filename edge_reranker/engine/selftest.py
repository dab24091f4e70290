"""Whether a model that has loaded can be trusted: finite numbers, a known pair in its order, its speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine.types import Engine, FloatArray, Role, Stop
from edge_reranker.errors import EngineBusy, EngineDied, ModelInvalid
from edge_reranker.types import KnownPair, Piece

_TEXT = "A detective and a thief meet in a city at night, and both know that only one of them will leave it."
_SEQUENCE_TOKENS = 32
_SEQUENCES = 6
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Report:
    """What a self-test found: tokens per second, best of three, and the known pair's margin if there is one.

    The margin is a difference of logits (scorer) or of cosines (encoder).
    """

    tokens_per_s: float
    margin: float | None = None


def self_test(
    engine: Engine, role: Role, what: str, deadline: Deadline, known: KnownPair | None = None
) -> Report:
    """Tries a model out; ``what`` names it in errors.

    Raises ModelInvalid that says what failed, EngineBusy when time ran out.
    """
    try:
        margin = None if known is None else _margin(engine, role, what, deadline, known)
        if known is not None and margin is not None and not margin >= known.margin / 2:
            raise _failed(
                what, f"it prefers {known.near!r} to {known.far!r} by {margin:.3g}, not by {known.margin:.3g}"
            )
        return Report(_tokens_per_s(engine, role, what, deadline), margin)
    except EngineDied as error:
        raise _failed(what, str(error)) from error


def _margin(engine: Engine, role: Role, what: str, deadline: Deadline, known: KnownPair) -> float:
    ids = _tokens(engine, what, deadline, known.text, known.near, known.far)
    if role == "encoder":
        text, near, far = _encode(engine, what, ids, deadline)
        return _cosine(text, near) - _cosine(text, far)
    logits = _score(engine, what, [], ids[:1], [ids[1][0], ids[2][0]], deadline)
    return float(logits[0, 0] - logits[0, 1])


def _tokens_per_s(engine: Engine, role: Role, what: str, deadline: Deadline) -> float:
    (ids,) = _tokens(engine, what, deadline, _TEXT)
    best_s = float("inf")
    for round_ in range(_ROUNDS):
        # Each begins at another token: nothing is shared, and no round finds another's prefix.
        starts = [round_ * (_SEQUENCES + 1) + place for place in range(_SEQUENCES + 1)]
        prefix, *sequences = [_turned(ids, start) for start in starts]
        start_s = time.perf_counter()
        if role == "encoder":
            _encode(engine, what, [prefix, *sequences], deadline)
        elif role == "ranker":
            ranked = engine.rank(prefix, sequences, deadline)
            _finite(what, ranked.scores, ranked.stop)
        else:
            _score(engine, what, prefix, sequences, ids[:1], deadline)
        best_s = min(best_s, time.perf_counter() - start_s)
    return (_SEQUENCES + 1) * _SEQUENCE_TOKENS / best_s


def _turned(ids: Sequence[int], start: int) -> list[int]:
    return [ids[(start + place) % len(ids)] for place in range(_SEQUENCE_TOKENS)]


def _tokens(engine: Engine, what: str, deadline: Deadline, *texts: str) -> list[list[int]]:
    ids = engine.tokenize([[Piece(text)] for text in texts], deadline)
    if not all(ids):
        raise _failed(what, "its tokenizer gives no tokens for plain text")
    return ids


def _encode(engine: Engine, what: str, ids: Sequence[Sequence[int]], deadline: Deadline) -> FloatArray:
    result = engine.encode(ids, deadline)
    return _finite(what, result.vectors, result.stop)


def _score(
    engine: Engine,
    what: str,
    prefix: Sequence[int],
    suffixes: Sequence[Sequence[int]],
    targets: Sequence[int],
    deadline: Deadline,
) -> FloatArray:
    result = engine.score(prefix, suffixes, targets, deadline)
    return _finite(what, result.logits, result.stop)


def _finite(what: str, values: FloatArray, stop: Stop) -> FloatArray:
    if stop == Stop.DIED:
        raise _failed(what, "its worker died")
    if stop != Stop.DONE:
        raise EngineBusy(f"{what}: its self-test did not end in time; allow more time")
    if not np.isfinite(values).all():
        raise _failed(what, "its numbers are not finite")
    return values


def _cosine(a: FloatArray, b: FloatArray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))


def _failed(what: str, why: str) -> ModelInvalid:
    return ModelInvalid(f"{what} failed its self-test: {why}; pull or add it again")
