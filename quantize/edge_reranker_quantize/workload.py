"""What variants of a model are measured on: requests of users nobody has learned from, and real texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine
from edge_reranker.evaluation import log, protocol, sampled
from edge_reranker.evaluation.log import Log
from edge_reranker.prompt import TEMPLATES
from edge_reranker.ranking.profile import Profile
from edge_reranker.scoring import CrossScorer, Prompt, User
from edge_reranker.scoring.epochs import Owner
from edge_reranker.types import Context, Item, Piece

N_CANDIDATES = 12
N_EVENTS = 8
TEMPLATE = "titles"
_SEED = 5
_TOKENIZE_MS = 60_000.0


@dataclass(frozen=True, slots=True)
class Request:
    """One user's last events, candidates by popularity, and which of them the user really liked next."""

    user_id: str
    context: Context
    candidates: tuple[Item, ...]
    targets: tuple[int, ...]


def requests(data: Log, n: int) -> list[Request]:
    """``n`` requests of later users at a moment each, fewer where the log has no more; always the same ones.

    A request's candidates are what was liked next, and others drawn by popularity up to ``N_CANDIDATES``.
    Raises ``FailedPrecondition`` as ``protocol.split``.
    """
    parted = protocol.split(data)
    counts = Counter(each.item_id for past in parted.head.values() for each in past)
    chances = np.array([counts[item.id] for item in data.items], np.float64)
    negatives = sampled.Negatives(N_CANDIDATES, data.items, chances, sampled.met(data))
    by_id = {item.id: item for item in data.items}
    found = []
    for at in np.random.default_rng(_SEED).permutation(len(parted.test))[:n]:
        cut = parted.test[at]
        ids = [*cut.targets, *negatives.drawn(cut, 0)][:N_CANDIDATES]
        ids.sort(key=lambda item_id: (-counts[item_id], item_id))
        events = log.events(list(cut.history)[-N_EVENTS:], by_id)
        found.append(
            Request(
                cut.user_id,
                Context(events),
                tuple(by_id[item_id] for item_id in ids),
                tuple(ids.index(target) for target in cut.targets),
            )
        )
    return found


def prompts(engine: Engine, asked: Sequence[Request]) -> list[Prompt]:
    """The tokens of each request, as tier 2 reads them. Raises EngineError."""
    scorer = CrossScorer(engine, TEMPLATES[TEMPLATE])
    found = []
    for at, each in enumerate(asked):
        user = User(Owner(f"request {at}", 0), len(each.context.events), each.context, Profile())
        found.append(scorer.prompt(user, each.candidates, Deadline.after_ms(_TOKENIZE_MS)))
        scorer.forget(f"request {at}")
    return found


def stream(engine: Engine, items: Sequence[Item], n: int) -> list[int]:
    """At least ``n`` token ids of real titles, one behind another. Raises EngineError."""
    text = ". ".join(item.title or item.text for item in items[: max(200, n)])
    (ids,) = engine.tokenize([[Piece(text)]], Deadline.after_ms(_TOKENIZE_MS))
    while len(ids) < n:  # a small catalogue is read again
        ids = [*ids, *ids]
    return ids
