"""The whole protocol: servers, pools, placebos, sampled lists, cold items, and fewer users to learn from.

Behind every server but the one that the pack was made for, the fusion's weights are fitted anew on the
fusion users with that server's own lists: how far to trust the towers depends on what the server knows
already. The fusion users also tune the servers (see ``tuning``). The later users only test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, metrics, protocol, retrained, run, sampled, servers, table, tuning
from edge_reranker.evaluation.lists import Learned, Listed
from edge_reranker.evaluation.log import Log
from edge_reranker.evaluation.table import Row, Section
from edge_reranker.evaluation.world import FIT_POOL, Say, Trainer, Users, Weighing, World, counted
from edge_reranker.models.pack import Pack
from edge_reranker.ranking import features, fusion
from edge_reranker.ranking.profile import Taste

POOLS = (20, 50, 100, 300)
FEW_USERS = (25, 50, 100)
CURVE = (25, 50, 100, 200)
SEEDS = (0, 1, 2)
KNOWN = (1, 2, 3, 5, 8)
POPULARITY, KNN, EASE = SERVERS = ("popularity", "ItemKNN", "EASE")


def evaluate(
    data: Log,
    pack: Pack,
    hidden: NDArray[np.floating],
    trainer: Trainer,
    *,
    pools: Sequence[int] = POOLS,
    seeds: Sequence[int] = SEEDS,
    few: Sequence[int] = FEW_USERS,
    curve: Sequence[int] = CURVE,
    say: Say = lambda _: None,
) -> table.Tables:
    """All sections, in the shape of ``table``. ``hidden`` as in ``run.evaluate``; ``say`` gets progress."""
    learned = Learned.of(pack, data.items, hidden)
    items = {item.id: item for item in data.items}
    taste = Taste.of(pack.manifest.taste)
    split = protocol.split(data)
    world = World(data, hidden, split, pack, trainer, say, items, taste, learned)
    sections = [
        *behind_servers(world, pools, few),
        newcomers(world),
        placebos(world),
        among(world, "99 popularity-sampled negatives", 99, popular=True),
        among(world, "19 uniform negatives", 19, popular=False),
        retrained.cold(world, seeds),
        retrained.learning(world, curve, seeds),
    ]
    made: dict[str, str | float] = {
        "pack": pack.id,
        "test_users": len({cut.user_id for cut in split.test}),
        "test_cases": sum(len(cut.targets) for cut in split.test),
        "seeds": ", ".join(map(str, seeds)),
    }
    return {"sections": sections, "made": made}


def behind_servers(world: World, pools: Sequence[int], few: Sequence[int]) -> list[Section]:
    """Every server's own order against ours, per pool; then servers that learned from few users."""
    pack = world.pack.manifest
    own = Weighing(fusion.Weights.of(pack.fusion), fusion.Weights.of(pack.without_model))
    sections = []
    for name, (server, note) in _servers(world, world.head).items():
        world.say(f"{name} server, {note}")
        weighing = own if name == POPULARITY else _fitted(world, server)
        rows = [row for n in pools for row in _pool_rows(world, name, server, n, weighing)]
        sections.append(_behind(f"Behind {name}", f"Parameters: {note}.", rows, "pool"))
    fewer: dict[str, list[Row]] = {name: [] for name in SERVERS}
    for n_users in few:
        for name, (server, note) in _servers(world, world.head[:n_users]).items():
            world.say(f"{name} server of {n_users} users, {note}")
            fewer[name] += _pool_rows(world, name, server, FIT_POOL, _fitted(world, server), n_users)
    note = "Tuned and fitted anew for each; the pack has learned from all head users, its map of items too."
    sections += [
        _behind(f"Behind {name} of few users", note, rows, "n_users") for name, rows in fewer.items()
    ]
    return sections


def _behind(title: str, note: str, rows: list[Row], x: str) -> Section:
    note = f"Changes are against the server's order. {note}"
    return {"title": title, "note": note, "rows": rows, "plot": {"x": x, "y": "ndcg10", "by": "order"}}


def _servers(world: World, users: Users) -> dict[str, tuple[servers.Server, str]]:
    past = servers.Past.of(users, world.items)
    objective = tuning.own_order(world.split.fusion)
    knn, ease = tuning.tuned_knn(past, objective), tuning.tuned_ease(past, objective)
    popular = world.popularity(users)
    return {
        POPULARITY: (popular, "no parameters"),
        KNN: (knn.server, str(knn)),
        EASE: (ease.server, str(ease)),
    }


def _fitted(world: World, server: servers.Server) -> Weighing:
    return world.fitted([world.lister(server).listed(cut) for cut in world.split.fusion])


def _pool_rows(
    world: World, name: str, server: servers.Server, n: int, weighing: Weighing, n_users: int | None = None
) -> list[Row]:
    listed = [world.lister(server, n).listed(cut) for cut in world.split.test]
    before, users = lists.server_places(listed), lists.users(listed)
    places = {
        "server": before,
        "ours without the model": lists.places(listed, weighing.without_model),
        "ours": lists.places(listed, weighing.ours),
    }
    columns: dict[str, table.Cell] = {"server": name, "pool": n, "hit_rate": float((before > 0).mean())}
    if n_users is not None:
        columns["n_users"] = n_users
    return [table.row(order, [found], users, [before], **columns) for order, found in places.items()]


def newcomers(world: World, known: Sequence[int] = KNOWN) -> Section:
    """The same users and targets when the device knows no more than their newest few events."""
    world.say("newcomers")
    lister, pack = world.lister(world.popularity(), FIT_POOL), world.pack.manifest
    weights = {
        "ours without the model": fusion.Weights.of(pack.without_model),
        "ours": fusion.Weights.of(pack.fusion),
    }
    rows = []
    for n in known:
        listed = [lister.listed(cut, known=list(cut.history)[-n:]) for cut in world.split.test]
        before, users = lists.server_places(listed), lists.users(listed)
        found = {"server": before} | {name: lists.places(listed, each) for name, each in weights.items()}
        rows += [table.row(name, [places], users, [before], known=n) for name, places in found.items()]
    return {
        "title": "Newcomers",
        "note": f"Popularity server, top {FIT_POOL}; changes are against its order. The device knows so many "
        "of the newest events, and nothing before them.",
        "rows": rows,
        "plot": {"x": "known", "y": "ndcg10", "by": "order"},
    }


def placebos(world: World) -> Section:
    """What must gain nothing: no history, a stranger's, the titles or the candidates shuffled."""
    world.say("placebos")
    rng = np.random.default_rng(0)
    cuts, n = world.split.test, FIT_POOL
    server = world.popularity()
    lister = world.lister(server, n)
    listed = [lister.listed(cut) for cut in cuts]
    to = rng.permutation(len(world.hidden))
    items = world.data.items
    wrong = Learned.make(
        world.learned.affinity.towers,
        world.learned.affinity.items,
        items,
        world.hidden[to],
        texts=[items[at] for at in to],
    )
    strangers = run.another_users(cuts)
    mixed = [_shuffled(each, rng) for each in listed]
    pack = world.pack.manifest
    ours, without = fusion.Weights.of(pack.fusion), fusion.Weights.of(pack.without_model)
    before, users = lists.server_places(listed), lists.users(listed)
    found = {
        "server": before,
        "ours without the model": lists.places(listed, without),
        "ours": lists.places(listed, ours),
        "no history": lists.places([lister.listed(cut, known=()) for cut in cuts], ours),
        "another user's history": lists.places(
            [lister.listed(cut, known=other.history) for cut, other in zip(cuts, strangers, strict=True)],
            ours,
        ),
        "shuffled titles": lists.places([lister.knowing(each, wrong) for each in listed], ours),
        "shuffled candidates, server": lists.server_places(mixed),
        "shuffled candidates, ours": lists.places(mixed, ours),
    }
    return {
        "title": "Placebos",
        "note": f"Popularity server, top {n}; changes are against its order. Shuffled titles: every item has "
        "another's text, for the model and for the map. Shuffled candidates: the server's order is lost.",
        "rows": [
            table.row(order, [places], users, [before], server=POPULARITY, pool=n)
            for order, places in found.items()
        ],
        "plot": None,
    }


def _shuffled(listed: Listed, rng: np.random.Generator) -> Listed:
    """The same candidates as a server would send them that puts them in any order."""
    to = rng.permutation(len(listed.ids))
    matrix = listed.matrix[to]
    matrix[:, lists.NAMES.index("server_rank")] = features.server_rank(len(to))
    place_of = np.argsort(to)
    targets = tuple(None if at is None else int(place_of[at]) for at in listed.targets)
    return replace(listed, matrix=matrix, items=tuple(listed.items[at] for at in to), targets=targets)


def among(world: World, title: str, n: int, *, popular: bool) -> Section:
    """Each target among ``n`` sampled items, ranked by ours and by the field's usual baselines."""
    world.say(title)
    counts = counted(world.head)
    lister = world.lister(servers.PopularityServer((), {}))
    negatives = world.negatives(n, popular=popular)
    fit = sampled.trials(lister, world.split.fusion, negatives, counts)
    test = sampled.trials(lister, world.split.test, negatives, counts)
    weighing = world.fitted(fit)
    past = servers.Past.of(world.head, world.items)

    def objective(server: servers.ItemServer) -> float:
        return float(metrics.ndcg(sampled.by_server(fit, server)).mean())

    knn, ease = tuning.tuned_knn(past, objective), tuning.tuned_ease(past, objective)
    before = lists.server_places(test)
    found = {
        **world.baselines(lister, test, world.learned),
        KNN: sampled.by_server(test, knn.server),
        EASE: sampled.by_server(test, ease.server),
        "ours without the model": lists.places(test, weighing.without_model),
        "ours": lists.places(test, weighing.ours),
    }
    users = lists.users(test)
    return {
        "title": title,
        "note": "No server; changes are against popularity. Weights and baselines were tuned on the fusion "
        f"users in this very protocol. ItemKNN: {knn}; EASE: {ease}",
        "rows": [table.row(order, [places], users, [before]) for order, places in found.items()],
        "plot": None,
    }
