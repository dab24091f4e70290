"""Lists for tier 2: what the tiers below say of them, and the very tokens that the service would read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_reranker.deadline import Deadline
from edge_reranker.evaluation import lists, log, protocol
from edge_reranker.evaluation.lists import Learned, Listed, Lister
from edge_reranker.evaluation.log import Interaction, Interactions, Log
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.models.pack import TasteSettings
from edge_reranker.ranking import features, fusion
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.profile import TAKEN_BACK, Profile, Taste
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring import CrossScorer, Prompt, User
from edge_reranker.scoring.epochs import Owner
from edge_reranker.training import item_to_item
from edge_reranker.training import recipe as recipes
from edge_reranker.training.cross import Example
from edge_reranker.training.head import Recipe
from edge_reranker.types import Context, EventType, Item

TOP_K = 20
_N_CUTS = 12
_EARLIEST, _LATEST = 5, 60
_N_OTHERS = 5
_PROMPT_MS = 60_000.0

Ranks = NDArray[np.intp]
Float32 = NDArray[np.float32]


def unseen_lists(
    data: Log,
    hidden: NDArray[np.floating],
    head: Mapping[str, Interactions],
    *,
    seed: int,
    recipe: Recipe,
    items: item_to_item.Settings | None,
    taste: TasteSettings,
) -> list[Listed]:
    """Lists of ``head``'s users, each half of them by server and towers that learned from the other half.

    So the tiers below say of them what they say of somebody new. A user is asked up to 12 times, after 5 to
    60 interactions. Raises as ``recipes.learn``.
    """
    names = list(head)
    by_id = {item.id: item for item in data.items}
    found: list[Listed] = []
    for asked, others in ((names[::2], names[1::2]), (names[1::2], names[::2])):
        histories = [recipes.history(head[name], taste) for name in others]
        arrays, map_of = recipes.learn(data.items, hidden, histories, recipe, items, seed=seed)
        known = None if map_of is None else ItemToItem.of(map_of)
        learned = Learned.make(Towers.of(arrays), known, data.items, hidden)
        server = PopularityServer((each for name in others for each in head[name]), by_id)
        lister = Lister(server, by_id, Taste.of(taste), learned)
        after = {name: _moments(len(head[name]), [seed, names.index(name)]) for name in asked}
        pasts = {name: head[name] for name in asked}
        found += [lister.listed(cut) for cut in protocol.cuts(pasts, after)]
    return found


def _moments(n: int, seed: Sequence[int]) -> list[int]:
    possible = np.arange(_EARLIEST, min(_LATEST, n - 1) + 1)
    drawn = np.random.default_rng(seed).permutation(possible)[:_N_CUTS]
    return sorted(drawn.tolist())


def tops(listed: Sequence[Listed], weights: fusion.Weights, k: int = TOP_K) -> list[Ranks]:
    """The first ``k`` candidates of each list after fusion, which is what tier 2 reads."""
    return [fusion.order(fusion.fuse(each.matrix, lists.NAMES, weights))[:k] for each in listed]


def examples(
    scorer: CrossScorer,
    listed: Sequence[Listed],
    weights: fusion.Weights,
    items: Mapping[str, Item],
    taste: TasteSettings,
    *,
    seed: int,
    k: int = TOP_K,
) -> Iterator[Example]:
    """What tier 2 learns from: the first ``k`` of each list, what was liked of the rest, some of the others.

    The others stand for all that are left out, so their logit has the log of how many each stands for
    (Bengio and Senecal, "Adaptive importance sampling", 2008): without them, what seldom is among the first
    would be met only where it was liked. Lists of which nothing was liked are left out.
    """
    kept = [each for each in listed if any(at is not None for at in each.targets)]
    chosen = [
        _chosen(each, top, [seed, at])
        for at, (each, top) in enumerate(zip(kept, tops(kept, weights, k), strict=True))
    ]
    rows = [some for some, _ in chosen]
    read = prompts(scorer, kept, rows, items, taste)
    for each, (some, more), prompt in zip(kept, chosen, read, strict=True):
        offset = fusion.fuse(each.matrix, lists.NAMES, weights)[some] + more
        wanted = np.isin(some, _liked(each))
        yield Example(prompt, offset.astype(np.float32), (wanted / wanted.sum()).astype(np.float32))


def _chosen(listed: Listed, top: Ranks, seed: Sequence[int]) -> tuple[Ranks, NDArray[np.float64]]:
    """Rows for training, and what is added to the logit of each."""
    first = list(dict.fromkeys([*top.tolist(), *_liked(listed)]))
    rest = np.setdiff1d(np.arange(len(listed.matrix)), first)
    others = np.random.default_rng(seed).permutation(rest)[:_N_OTHERS]
    more = np.zeros(len(first) + len(others))
    more[len(first) :] = np.log(len(rest) / max(1, len(others)))
    return np.array([*first, *others.tolist()]), more


def _liked(listed: Listed) -> list[int]:
    return [at for at in listed.targets if at is not None]


def prompts(
    scorer: CrossScorer,
    listed: Sequence[Listed],
    rows: Sequence[Ranks],
    items: Mapping[str, Item],
    taste: TasteSettings,
) -> list[Prompt]:
    """What the model reads of the candidates ``rows`` of each list, had the events come one after another.

    Of lists that know the same person, the shorter history must be the beginning of the longer.
    Raises EngineError.
    """
    of_user: dict[str, list[int]] = {}
    for at, each in enumerate(listed):
        of_user.setdefault(each.known[0].user_id if each.known else "", []).append(at)
    telling = {EventType[name] for name, weight in taste.event_weights.items() if weight > 0} | TAKEN_BACK
    found: dict[int, Prompt] = {}
    for name, group in of_user.items():
        group.sort(key=lambda at: len(listed[at].known))
        n_told = 0
        for at in group:
            known = listed[at].known
            for n in range(n_told + 1, len(known)):
                scorer.prompt(_user(name, known[:n], items, telling), (), Deadline.after_ms(_PROMPT_MS))
            user = _user(name, known, items, telling)
            candidates = [listed[at].items[row] for row in rows[at]]
            found[at] = scorer.prompt(user, candidates, Deadline.after_ms(_PROMPT_MS))
            n_told = len(known)
        scorer.forget(name)
    return [found[at] for at in range(len(listed))]


def _user(
    name: str, known: Sequence[Interaction], items: Mapping[str, Item], telling: set[EventType]
) -> User:
    events = tuple(each for each in log.events(known, items) if each.type in telling)
    return User(Owner(name, 0), len(known), Context(events), Profile())


def with_scores(listed: Sequence[Listed], rows: Sequence[Ranks], scores: Sequence[Float32]) -> list[Listed]:
    """The lists with tier 2's column, as the pipeline sets it for the candidates that were read."""
    result = []
    for each, some, own in zip(listed, rows, scores, strict=True):
        values, reached = np.zeros(len(each.matrix)), np.zeros(len(each.matrix), np.bool_)
        values[some], reached[some] = own, True
        matrix = features.with_columns(each.matrix, {CrossScorer.column: (values, reached)})
        result.append(replace(each, matrix=matrix))
    return result
