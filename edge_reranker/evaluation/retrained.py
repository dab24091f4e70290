"""Sections of the full evaluation for which the pack learns anew: cold items, and fewer users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_reranker.evaluation import lists, metrics, protocol, sampled, servers, table
from edge_reranker.evaluation.lists import Listed, Lister
from edge_reranker.evaluation.table import Row, Section
from edge_reranker.evaluation.world import FIT_POOL, World, counted

COLD_SHARE = 0.2


def cold(world: World, seeds: Sequence[int]) -> Section:
    """A fifth of the items taken out of all that is learned, one fifth a split; cold and warm targets apart.

    Negatives are drawn by popularity from all items, as if the cold ones had been there; what is ranked by
    popularity knows nothing of them.
    """
    ids = [item.id for item in world.data.items]
    order = np.random.default_rng(0).permutation(len(ids))
    size = round(COLD_SHARE * len(ids))
    found: dict[str, dict[str, list[metrics.Places]]] = {"cold": {}, "warm": {}}
    users: dict[str, list[str]] = {"cold": [], "warm": []}
    for at in range(len(seeds)):
        out = frozenset(ids[row] for row in order[at * size : (at + 1) * size])
        world.say(f"cold items, split {at + 1} of {len(seeds)}")
        own, listed = _cold_split(world, out, seeds)
        is_cold = np.array([each.cut.targets[0] in out for each in listed])
        names = np.array(lists.users(listed))
        for kind, chosen in (("cold", is_cold), ("warm", ~is_cold)):
            users[kind] += list(names[chosen]) * len(seeds)
            for ranker, places in own.items():
                found[kind].setdefault(ranker, []).append(np.concatenate([each[chosen] for each in places]))
    return {
        "title": "Cold items",
        "note": f"{COLD_SHARE:.0%} of the items in no training, {len(seeds)} splits x {len(seeds)} seeds; "
        "99 popularity-sampled negatives, changes against popularity.",
        "rows": [
            table.row(
                ranker,
                [np.concatenate(places)],
                users[kind],
                [np.concatenate(rankers["popularity"])],
                targets=kind,
                n_targets=len(users[kind]) // len(seeds),
            )
            for kind, rankers in found.items()
            for ranker, places in rankers.items()
        ],
        "plot": None,
    }


def _cold_split(
    world: World, out: frozenset[str], seeds: Sequence[int]
) -> tuple[dict[str, list[metrics.Places]], list[Listed]]:
    """Every ranker's places, one array a seed, and the test lists.

    The fusion is fitted on lists without the cold items. How far to trust what is said of items that nobody
    knows, it learns from a share of the other items that is taken out in the same way, for the fit alone.
    (A pack's training draws that share of all items, and of a popularity server's lists: ``recipe.unaware``.)
    """
    head = [[each for each in past if each.item_id not in out] for past in world.head]
    counts = counted(head)
    negatives = world.negatives(99, popular=True)
    chances = np.where([item.id in out for item in world.data.items], 0.0, negatives.chances)
    lister = Lister(servers.PopularityServer((), {}), world.items, world.taste)
    fit = sampled.trials(
        lister, _without(world.split.fusion, out), replace(negatives, chances=chances), counts
    )
    test = sampled.trials(lister, world.split.test, negatives, counts)
    also = _drawn(world, out)
    fewer = [[each for each in past if each.item_id not in also] for past in head]
    new = sampled.trials(
        lister, _without(world.split.fusion, out), replace(negatives, chances=chances), counted(fewer)
    )
    found: dict[str, list[metrics.Places]] = {}
    for seed in seeds:
        learned = world.learn(seed, head, out)
        own_fit = [lister.knowing(each, learned) for each in fit]
        own_test = [lister.knowing(each, learned) for each in test]
        unaware = world.learn(seed, fewer, out | also)
        weighing = world.fitted(own_fit, [lister.knowing(each, unaware) for each in new])
        for ranker, places in {
            **world.baselines(lister, own_test, learned),
            "ours without the model": lists.places(own_test, weighing.without_model),
            "ours": lists.places(own_test, weighing.ours),
        }.items():
            found.setdefault(ranker, []).append(places)
    return found, test


def _drawn(world: World, out: frozenset[str]) -> frozenset[str]:
    """A share of the items that are not in ``out``, the same every time."""
    ids = [item.id for item in world.data.items if item.id not in out]
    order = np.random.default_rng(1).permutation(len(ids))
    return frozenset(ids[row] for row in order[: round(COLD_SHARE * len(ids))])


def _without(cuts: Sequence[protocol.Cut], out: frozenset[str]) -> list[protocol.Cut]:
    """Cuts as if the items in ``out`` did not exist; those that nothing is left of are left out."""
    result = []
    for cut in cuts:
        history = tuple(each for each in cut.history if each.item_id not in out)
        targets = tuple(target for target in cut.targets if target not in out)
        if history and targets:
            result.append(replace(cut, history=history, targets=targets))
    return result


def learning(world: World, curve: Sequence[int], seeds: Sequence[int]) -> Section:
    """The popularity server and the pack learn from the first n head users, and from all."""
    rows: list[Row] = []
    for n_users in (*[n for n in curve if n < len(world.head)], len(world.head)):
        world.say(f"learning curve, {n_users} users")
        users = world.head[:n_users]
        server = world.popularity(users)
        plain = Lister(server, world.items, world.taste, None, FIT_POOL)
        fit = [plain.listed(cut) for cut in world.split.fusion]
        test = [plain.listed(cut) for cut in world.split.test]
        before = lists.server_places(test)
        found: dict[str, list[metrics.Places]] = {"server": [], "ours without the model": [], "ours": []}
        for seed in seeds:
            learned = world.learn(seed, users)
            weighing = world.fitted([plain.knowing(each, learned) for each in fit])
            own = [plain.knowing(each, learned) for each in test]
            found["server"].append(before)
            found["ours without the model"].append(lists.places(own, weighing.without_model))
            found["ours"].append(lists.places(own, weighing.ours))
        names = lists.users(test)
        rows += [
            table.row(order, places, names, found["server"], n_users=n_users)
            for order, places in found.items()
        ]
    return {
        "title": "Learning curve",
        "note": f"Popularity server, top {FIT_POOL}; {len(seeds)} training seeds. The fusion is fitted on "
        "the same fusion users throughout.",
        "rows": rows,
        "plot": {"x": "n_users", "y": "ndcg10", "by": "order"},
    }
