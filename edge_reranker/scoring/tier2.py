"""Tier 2: the model reads the user's context once, and one candidate at a time behind it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine, Stop
from edge_reranker.errors import EngineDied, EngineError
from edge_reranker.prompt import Template, Window
from edge_reranker.scoring.epochs import Epochs, Owner
from edge_reranker.scoring.kept import Kept
from edge_reranker.scoring.plan import Plan
from edge_reranker.scoring.types import REASONS, TierScores, User
from edge_reranker.types import DegradedReason, Item, Piece, RerankQuery

# Together they fill an engine's sequence of 256, which is also the step in which llama.cpp pads it.
_MAX_PREFIX_TOKENS = 208
_MAX_HEADER_TOKENS = 128  # of these
_MAX_CLOSING_TOKENS = 32  # and these
_MAX_SUFFIX_TOKENS = 48
_AFTERWARDS_MS = 2.0
# A sample that tells how much reading moves scores; candidates of equal length still share a decode.
_READ_CHUNK = 8
_MAX_SCORES = 4_096
_MAX_USERS = 64
_PREFILL_MS = 10_000.0

Key = tuple[bytes, str]
"""A context and a candidate's text: what a score depends on."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the model is told about one user: header and ``lines`` in the ``window``, as token ``ids``."""

    owner: Owner
    generation: int
    window: Window
    lines: Mapping[str, list[int]] = field(default_factory=dict)
    ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads: one ``prefix``, a suffix for each candidate; and the ids of both answers."""

    prefix: list[int]
    suffixes: list[list[int]]
    positive: int
    negative: int


class CrossScorer:
    """Reads the logit of the template's positive answer less that of its negative one. Thread-safe.

    The context's tokens are decoded when an event arrives (``prefill``), not when a request does. Scores
    are kept for each namespace: context and text name one, as a scorer has one model and template.
    """

    column = "scorer"

    def __init__(
        self, engine: Engine, template: Template, *, epochs: Epochs | None = None, top_k: int = 20
    ) -> None:
        self._engine = engine
        self._template = template
        self._epochs = epochs or Epochs()
        self._top_k = top_k
        self._lock = threading.Lock()
        self._fixed: list[list[int]] = []
        self._told: dict[str, Told] = {}
        self._first: dict[str, str] = {}
        self._last = ""
        self._scores: Kept[Key, float] = Kept(_MAX_SCORES)

    def score(
        self,
        user: User,
        query: RerankQuery,
        order: Sequence[int],
        deadline: Deadline,
        plan: Plan | None = None,
    ) -> Iterator[TierScores]:
        """Scores of the top K of ``order``: of all at once, or with a ``plan`` of a few at a time."""
        deadline = deadline.less_ms(_AFTERWARDS_MS)
        n = len(query.candidates)
        reason, told = DegradedReason.UNSPECIFIED, False
        texts = {index: self._template.suffix(query.candidates[index].item) for index in order[: self._top_k]}
        keys: dict[int, Key] = {}
        known: dict[Key, float] = {}
        try:
            prefix = self._prefix(user, query.query, deadline)
            context = hashlib.blake2b(np.asarray(prefix, np.int32).tobytes(), digest_size=16).digest()
            keys = {
                index: (context, "".join(piece.text for piece in pieces)) for index, pieces in texts.items()
            }
            known = self._known(user.namespace, set(keys.values()))
            while (missing := [index for index in texts if keys[index] not in known]) and not reason:
                chunk = missing if plan is None or plan.full else plan.next(missing)[:_READ_CHUNK]
                if not chunk:
                    break
                # In the order given; candidates that read the same are read once.
                new = {keys[index]: texts[index] for index in chunk}
                found, reason = self._read(prefix, list(new.values()), deadline)
                fresh = {key: score for key, score in zip(new, found, strict=True) if score is not None}
                self._epochs.during(user.owner, partial(self._remember, user.namespace, fresh))
                known |= fresh
                told = True
                yield _scored(n, keys, known, reason)
        except EngineDied:
            reason, told = DegradedReason.MODEL_UNAVAILABLE, False
        except EngineError:
            reason, told = DegradedReason.MODEL_BUSY, False
        if not told:
            yield _scored(n, keys, known, reason)

    def prefill(self, user: User) -> bool:
        """Decodes some of the user's context ahead of the next request; whether nothing is left to do."""
        try:
            ids = self._prefix(user, "", Deadline.after_ms(_PREFILL_MS))
            return self._engine.prefill(ids, Deadline.after_ms(_PREFILL_MS)).stop != Stop.DEADLINE
        except EngineError:
            return True  # the next request will find the model as it is

    def prompt(self, user: User, items: Sequence[Item], deadline: Deadline) -> Prompt:
        """The tokens that ``score`` has read of ``items`` when there is no query. Raises EngineError."""
        texts = [self._template.suffix(item) for item in items]
        return self._prompt(self._prefix(user, "", deadline), texts, deadline)

    @property
    def last(self) -> Told | None:
        """The context that the model was told last, unless it was forgotten since."""
        with self._lock:
            return self._told.get(self._last)

    def resume(self, namespace: str, first_event: str) -> None:
        """The context of this user begins with this event, as it did before a restart."""
        with self._lock:
            self._first[namespace] = first_event

    def forget(self, namespace: str) -> None:
        """Drops what is kept of a user."""
        with self._lock:
            self._told.pop(namespace, None)
            self._first.pop(namespace, None)
            self._scores.forget(namespace)

    def _read(
        self, prefix: list[int], texts: Sequence[Sequence[Piece]], deadline: Deadline
    ) -> tuple[list[float | None], DegradedReason]:
        """The model's scores, None where it did not get to, and why."""
        prompt = self._prompt(prefix, texts, deadline)
        answers = [prompt.positive, prompt.negative]
        result = self._engine.score(prompt.prefix, prompt.suffixes, answers, deadline)
        scores = [
            float(row[0] - row[1]) if reached else None
            for row, reached in zip(result.logits, result.reached, strict=True)
        ]
        return scores, REASONS[result.stop]

    def _prompt(self, prefix: list[int], texts: Sequence[Sequence[Piece]], deadline: Deadline) -> Prompt:
        _, _, positive, negative, behind = self._tokens(deadline)
        suffixes = [_cut(ids, len(behind)) for ids in self._engine.tokenize(texts, deadline)]
        return Prompt(prefix, suffixes, positive[0], negative[0])

    def _known(self, namespace: str, keys: set[Key]) -> dict[Key, float]:
        with self._lock:
            found = {key: self._scores.get(namespace, key) for key in keys}
        return {key: score for key, score in found.items() if score is not None}

    def _remember(self, namespace: str, scores: dict[Key, float]) -> None:
        with self._lock:
            for key, score in scores.items():
                self._scores.put(namespace, key, score)

    def _prefix(self, user: User, query: str, deadline: Deadline) -> list[int]:
        """The tokens before every candidate. Raises EngineError."""
        with self._lock:
            told = self._told.get(user.namespace)
        if told is None or (told.owner, told.generation) != (user.owner, user.generation):
            told = self._tell(user, told, deadline)
            self._epochs.during(user.owner, lambda: self._keep(user.namespace, told))
        self._last = user.namespace
        if not query:
            return [*told.ids, *self._tokens(deadline)[1]]
        (closing,) = self._engine.tokenize([self._template.closing(query)], deadline)
        return [*told.ids, *closing[-_MAX_CLOSING_TOKENS:]]

    def _keep(self, namespace: str, told: Told) -> None:
        with self._lock:
            while len(self._told) >= _MAX_USERS:
                self._told.pop(next(iter(self._told)))
            self._told[namespace] = told
            self._first[namespace] = told.window.first

    def _tell(self, user: User, before: Told | None, deadline: Deadline) -> Told:
        """The user's events as tokens; only lines that are new are tokenised."""
        header = self._tokens(deadline)[0]
        lines = self._template.lines(user.context)
        known = dict(before.lines) if before is not None and before.owner == user.owner else {}
        new = [line for _, line in lines if line not in known]
        tokens = known | dict(
            zip(new, self._engine.tokenize([[Piece(line)] for line in new], deadline), strict=True)
        )
        room = _MAX_PREFIX_TOKENS - _MAX_CLOSING_TOKENS - len(header)
        with self._lock:
            window = Window(room, self._first.get(user.namespace, ""))
        start = window.start([name for name, _ in lines], [len(tokens[line]) for _, line in lines])
        shown = [token for _, line in lines[start:] for token in tokens[line]][-room:]
        kept = {line: tokens[line] for _, line in lines}
        return Told(user.owner, user.generation, window, kept, [*header, *shown])

    def _tokens(self, deadline: Deadline) -> list[list[int]]:
        """Header, closing without a query, both answers, what stands behind a candidate; asked for once."""
        if not self._fixed:
            template = self._template
            words = [[Piece(template.positive)], [Piece(template.negative)]]
            words.append([Piece(template.after_candidate, structure=True)])
            header, *others = self._engine.tokenize(
                [template.header(), template.closing(""), *words], deadline
            )
            # An instruction of a pack's own, in a script of many tokens a letter, must leave room for events.
            self._fixed = [header[:_MAX_HEADER_TOKENS], *others]
        return self._fixed


def _scored(
    n: int, keys: Mapping[int, Key], known: Mapping[Key, float], reason: DegradedReason
) -> TierScores:
    scores, reached, left = np.zeros(n), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    for index, key in keys.items():
        scores[index], reached[index], left[index] = known.get(key, 0.0), key in known, key not in known
    return TierScores(scores, reached, reason, left=left)


def _cut(ids: list[int], n_behind: int) -> list[int]:
    """A candidate within the limit: the end of its own text goes, not what stands behind it."""
    n_over = max(0, len(ids) - _MAX_SUFFIX_TOKENS)
    end = len(ids) - n_behind
    return ids[: end - n_over] + ids[end:]
