"""The whole protocol: servers, pools, placebos, sampled lists, cold items, and fewer users to learn from.

Behind every server but the one that the pack was made for, the fusion's weights are fitted anew on the
fusion users with that server's own lists: how far to trust the towers depends on what the server knows
already. The fusion users also tune the servers (see ``tuning``). The later users only test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import lists, metrics, protocol, run, sampled, servers, table, tuning
from edge_reranker.evaluation.lists import Listed, Lister, Vectors
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.evaluation.table import Row, Section
from edge_reranker.models.pack import Pack
from edge_reranker.ranking import features, fusion
from edge_reranker.ranking.profile import Taste
from edge_reranker.ranking.towers import Towers
from edge_reranker.types import Item

Users = Sequence[Sequence[Interaction]]
Say = Callable[[str], None]

POOLS = (20, 50, 100, 300)
FIT_POOL = 100
FEW_USERS = (25, 50, 100)
CURVE = (25, 50, 100, 200)
SEEDS = (0, 1, 2)
COLD_SHARE = 0.2
POPULARITY, KNN, EASE = "popularity", "ItemKNN", "EASE"


class Trainer(Protocol):
    """What ``training.retrain`` does; evaluation never imports training."""

    def towers(self, items: Sequence[Item], hidden: NDArray[np.floating], users: Users, seed: int) -> Towers:
        """Towers from ``users``' interactions with ``items``, whose hidden states are [n_items, n_embd]."""

    def weights(self, listed: Sequence[Listed], model: bool) -> fusion.Weights:
        """Fusion weights that suit the choices in ``listed``, with or without the model's columns."""


@dataclass(frozen=True, slots=True)
class World:
    """What all sections share."""

    data: Log
    hidden: NDArray[np.floating]
    split: protocol.Split
    pack: Pack
    trainer: Trainer
    say: Say
    items: Mapping[str, Item]
    taste: Taste
    vectors: Vectors
    pools: Sequence[int] = POOLS
    together: lists.Together | None = None

    @property
    def head(self) -> list[Sequence[Interaction]]:
        """The users that server and towers learn from, in the split's shuffled order."""
        return list(self.split.head.values())

    def lister(self, server: servers.Server, n: int = FIT_POOL) -> Lister:
        """Lists of a server, with what the pack knows."""
        return Lister(server, self.items, self.taste, self.vectors, n, self.together)

    def towers(self, seed: int, users: Users, cold: frozenset[str] = frozenset()) -> Vectors:
        """Vectors of all items, from towers that saw ``users`` and no item in ``cold``."""
        warm = [row for row, item in enumerate(self.data.items) if item.id not in cold]
        made = self.trainer.towers([self.data.items[row] for row in warm], self.hidden[warm], users, seed)
        return Vectors.make(made, self.data.items, self.hidden)


@dataclass(frozen=True, slots=True)
class Weighing:
    """Fusion weights with the model and without."""

    ours: fusion.Weights
    without_model: fusion.Weights


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
    vectors = Vectors.make(Towers.of(pack.head), data.items, hidden)
    items = {item.id: item for item in data.items}
    taste = Taste.of(pack.manifest.taste)
    split = protocol.split(data)
    together = run.together(pack, data)
    world = World(data, hidden, split, pack, trainer, say, items, taste, vectors, pools, together)
    sections = [
        *behind_servers(world, few),
        placebos(world),
        among(world, "99 popularity-sampled negatives", 99, popular=True),
        among(world, "19 uniform negatives", 19, popular=False),
        cold(world, seeds),
        learning(world, curve, seeds),
    ]
    made: dict[str, str | float] = {
        "pack": pack.id,
        "test_users": len({cut.user_id for cut in split.test}),
        "test_cases": sum(len(cut.targets) for cut in split.test),
        "seeds": ", ".join(map(str, seeds)),
    }
    return {"sections": sections, "made": made}


def behind_servers(world: World, few: Sequence[int]) -> list[Section]:
    """Every server's own order against ours, per pool; then servers that learned from few users."""
    rows: list[Row] = []
    notes = []
    for name, (server, note) in _servers(world, world.head).items():
        world.say(f"{name} server, {note}")
        notes.append(f"{name}: {note}")
        pack = world.pack.manifest
        own = name == POPULARITY
        weighing = (
            Weighing(fusion.Weights.of(pack.fusion), fusion.Weights.of(pack.without_model))
            if own
            else _fitted(world, world.lister(server))
        )
        for n in world.pools:
            rows += _pool_rows(world, name, server, n, weighing)
    fewer: list[Row] = []
    for n_users in few:
        for name, (server, note) in _servers(world, world.head[:n_users]).items():
            world.say(f"{name} server of {n_users} users, {note}")
            weighing = _fitted(world, world.lister(server))
            fewer += _pool_rows(world, name, server, FIT_POOL, weighing, n_users)
    return [
        {
            "title": "Servers and pools",
            "note": "Changes are against the server's order. " + "; ".join(notes),
            "rows": rows,
            "plot": {"x": "pool", "y": "ndcg10", "by": "order"},
        },
        {
            "title": "Servers that learned from few users",
            "note": "Tuned and fitted anew for each; the towers are the pack's, of all head users.",
            "rows": fewer,
            "plot": {"x": "n_users", "y": "ndcg10", "by": "order"},
        },
    ]


def _servers(world: World, users: Users) -> dict[str, tuple[servers.Server, str]]:
    past = servers.Past.of(users, world.items)
    objective = tuning.own_order(world.split.fusion)
    knn, ease = tuning.tuned_knn(past, objective), tuning.tuned_ease(past, objective)
    popular = servers.PopularityServer(_all(users), world.items)
    return {
        POPULARITY: (popular, "no parameters"),
        KNN: (knn.server, str(knn)),
        EASE: (ease.server, str(ease)),
    }


def _fitted(world: World, lister: Lister, cuts: Sequence[protocol.Cut] | None = None) -> Weighing:
    return _fitted_to(world, [lister.listed(cut) for cut in cuts or world.split.fusion])


def _fitted_to(world: World, listed: Sequence[Listed]) -> Weighing:
    return Weighing(world.trainer.weights(listed, True), world.trainer.weights(listed, False))


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


def placebos(world: World) -> Section:
    """What must gain nothing: no history, a stranger's, the titles or the candidates shuffled."""
    world.say("placebos")
    rng = np.random.default_rng(0)
    cuts, n = world.split.test, FIT_POOL
    server = servers.PopularityServer(_all(world.head), world.items)
    lister = world.lister(server, n)
    listed = [lister.listed(cut) for cut in cuts]
    shuffled_states = world.hidden[rng.permutation(len(world.hidden))]
    wrong = Vectors.make(world.vectors.towers, world.data.items, shuffled_states)
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
        "shuffled titles": lists.places([lister.with_vectors(each, wrong) for each in listed], ours),
        "shuffled candidates, server": lists.server_places(mixed),
        "shuffled candidates, ours": lists.places(mixed, ours),
    }
    return {
        "title": "Placebos",
        "note": f"Popularity server, top {n}; changes are against its order. Shuffled titles: every item has "
        "another's hidden states, but the map of items knows it. Shuffled candidates: the server's order is "
        "lost.",
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
    counts = _counts(world.head)
    lister = world.lister(servers.PopularityServer((), {}))
    negatives = _negatives(world, n, counts, popular=popular)
    fit = sampled.trials(lister, world.split.fusion, negatives, counts)
    test = sampled.trials(lister, world.split.test, negatives, counts)
    weighing = _fitted_to(world, fit)
    past = servers.Past.of(world.head, world.items)

    def objective(server: servers.ItemServer) -> float:
        return float(metrics.ndcg(sampled.by_server(fit, server)).mean())

    knn, ease = tuning.tuned_knn(past, objective), tuning.tuned_ease(past, objective)
    before = lists.server_places(test)
    found = {
        **_known_to_all(world, lister, test),
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


def _known_to_all(world: World, lister: Lister, listed: Sequence[Listed]) -> dict[str, metrics.Places]:
    return {
        "popularity": lists.server_places(listed),
        "BM25": sampled.by_column(listed, "history_text"),
        "TF-IDF": sampled.by_words(listed, world.data.items, lister),
        "cosine of the towers": sampled.by_column(listed, "towers"),
    }


def _negatives(world: World, n: int, counts: Counter[str], *, popular: bool) -> sampled.Negatives:
    items = world.data.items
    chances = [counts[item.id] if popular else 1 for item in items]
    return sampled.Negatives(n, items, np.array(chances, np.float64), sampled.met(world.data))


def _all(users: Users) -> Iterator[Interaction]:
    return (each for past in users for each in past)


def _counts(users: Users) -> Counter[str]:
    return Counter(each.item_id for each in _all(users))


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
    """Every ranker's places, one array a seed, and the test lists."""
    head = [[each for each in past if each.item_id not in out] for past in world.head]
    counts = _counts(head)
    negatives = _negatives(world, 99, _counts(world.head), popular=True)
    chances = np.where([item.id in out for item in world.data.items], 0.0, negatives.chances)
    lister = Lister(servers.PopularityServer((), {}), world.items, world.taste)
    fit = sampled.trials(
        lister, _without(world.split.fusion, out), replace(negatives, chances=chances), counts
    )
    test = sampled.trials(lister, world.split.test, negatives, counts)
    found: dict[str, list[metrics.Places]] = {}
    for seed in seeds:
        vectors = world.towers(seed, head, out)
        own_fit = [lister.with_vectors(each, vectors) for each in fit]
        own_test = [lister.with_vectors(each, vectors) for each in test]
        weighing = _fitted_to(world, own_fit)
        for ranker, places in {
            **_known_to_all(world, lister, own_test),
            "ours without the model": lists.places(own_test, weighing.without_model),
            "ours": lists.places(own_test, weighing.ours),
        }.items():
            found.setdefault(ranker, []).append(places)
    return found, test


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
    """The popularity server and the towers learn from the first n head users, and from all."""
    rows: list[Row] = []
    for n_users in (*[n for n in curve if n < len(world.head)], len(world.head)):
        world.say(f"learning curve, {n_users} users")
        users = world.head[:n_users]
        server = servers.PopularityServer(_all(users), world.items)
        plain = Lister(server, world.items, world.taste, None, FIT_POOL)
        fit = [plain.listed(cut) for cut in world.split.fusion]
        test = [plain.listed(cut) for cut in world.split.test]
        before = lists.server_places(test)
        found: dict[str, list[metrics.Places]] = {"server": [], "ours without the model": [], "ours": []}
        for seed in seeds:
            vectors = world.towers(seed, users)
            weighing = _fitted_to(world, [plain.with_vectors(each, vectors) for each in fit])
            own = [plain.with_vectors(each, vectors) for each in test]
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
