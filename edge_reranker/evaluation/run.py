"""One number that can be trusted: does the order on the device help users nobody has learned from?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import beyond, lists, metrics, protocol
from edge_reranker.evaluation.log import Log, times_met
from edge_reranker.evaluation.servers import PopularityServer
from edge_reranker.models.pack import Pack
from edge_reranker.ranking import fusion
from edge_reranker.ranking.profile import Taste

SERVER = "server"
OURS = "ours"
WITHOUT_MODEL = "without_model"
NO_HISTORY = "placebo_no_history"
OTHER_HISTORY = "placebo_other_history"

TITLES = {
    SERVER: "server's order",
    WITHOUT_MODEL: "ours without the model",
    OURS: "ours",
    NO_HISTORY: "placebo: no history",
    OTHER_HISTORY: "placebo: another user's history",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured. ``ratio`` is ours over the server's NDCG@10 on all cases.

    ``against_server`` compares every other order with the server's; ``against_without_model`` is ours
    against the same fusion without the model. ``beyond`` is of the three orders that users could get.
    ``no_history_is_server_order``: every list was identical.
    """

    pack: str
    n_users: int
    n_cases: int
    hit_rate: float
    ratio: float
    orders: Mapping[str, metrics.Quality]
    against_server: Mapping[str, metrics.Comparison]
    against_without_model: metrics.Comparison
    beyond: Mapping[str, beyond.Beyond]
    no_history_is_server_order: bool

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """A table for people."""
        lines = [
            f"{self.n_cases:,} cases of {self.n_users} unseen later users; "
            f"the server's list has the item in {self.hit_rate:.1%} of them",
            "",
            f"{'order':<32} {'NDCG@10 all [95 % interval]':<28} {'hits':>6} {'MRR':>6} "
            f"{'HR@1':>6} {'HR@5':>6} {'HR@10':>6}",
        ]
        lines += [_quality_line(name, self.orders[name]) for name in TITLES]
        lines += ["", f"{'change of NDCG@10':<46} {'[95 % interval]':<20} users better/same/worse"]
        lines += [
            _comparison_line(f"{title} - server's order", self.against_server[name])
            for name, title in TITLES.items()
            if name != SERVER
        ]
        lines.append(_comparison_line("ours - ours without the model", self.against_without_model))
        lines += [
            "",
            f"{'first ten, and chances':<32} {'KL of tags to those liked':<28} {'distance of tags':<28} ECE",
        ]
        lines += [_beyond_line(name, found) for name, found in self.beyond.items()]
        same = "exactly" if self.no_history_is_server_order else "NOT exactly"
        lines += [
            "",
            f"ours / server's order: {self.ratio:.2f} x; with no history it is {same} the server's order",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Plain:
    """A log's split and a popularity server's lists, which are the same for every pack of one taste.

    Features that need no pack are made once, when they are first asked for; a pack adds its columns to them.
    """

    data: Log
    split: protocol.Split
    make: lists.Lister

    @classmethod
    def of(cls, data: Log, taste: Taste, *, split_seed: int = 0, n_candidates: int = 100) -> Plain:
        """With the server that has learned from the head's users."""
        split = protocol.split(data, seed=split_seed)
        return cls(data, split, _plain_lister(data, split, taste, n_candidates))

    @cached_property
    def fusion(self) -> list[lists.Listed]:
        """For the users who fit the prior."""
        return [self.make.listed(cut) for cut in self.split.fusion]

    @cached_property
    def test(self) -> list[lists.Listed]:
        """For the later users."""
        return [self.make.listed(cut) for cut in self.split.test]

    @cached_property
    def other_history(self) -> list[lists.Listed]:
        """For the later users, the device knowing another's history."""
        strangers = another_users(self.split.test)
        return [
            self.make.listed(cut, known=other.history)
            for cut, other in zip(self.split.test, strangers, strict=True)
        ]

    @cached_property
    def no_history(self) -> list[lists.Listed]:
        """For the later users, the device knowing nothing."""
        return [self.make.listed(cut, known=()) for cut in self.split.test]

    def knowing(
        self, listed: Iterable[lists.Listed], pack: Pack, hidden: NDArray[np.floating]
    ) -> list[lists.Listed]:
        """``listed`` with what ``pack`` has learned; ``hidden`` as in ``evaluate``."""
        learned = lists.Learned.of(pack, self.data.items, hidden)
        return [self.make.knowing(each, learned) for each in listed]


def evaluate(
    data: Log,
    pack: Pack,
    hidden: NDArray[np.floating],
    *,
    split_seed: int = 0,
    n_candidates: int = 100,
    plain: Plain | None = None,
) -> Report:
    """Rerank a popularity server's lists for every unseen later user.

    ``hidden`` are the items' mean-pooled hidden states [n_items, n_embd] from the pack's encoder, aligned
    with ``data.items``. ``split_seed`` must be the one the pack was trained with. ``plain`` is what can be
    shared by packs of one taste that are measured with the same seed and number of candidates.
    """
    taste = Taste.of(pack.manifest.taste)
    plain = plain or Plain.of(data, taste, split_seed=split_seed, n_candidates=n_candidates)
    listed = plain.knowing(plain.test, pack, hidden)
    with_model = fusion.Weights.of(pack.manifest.fusion)
    without_model = fusion.Weights.of(pack.manifest.without_model)
    empty = plain.knowing(plain.no_history, pack, hidden)
    no_history_is_server_order = all(_is_server_order(each, with_model) for each in empty)
    places = {
        SERVER: lists.server_places(listed),
        OURS: lists.places(listed, with_model),
        WITHOUT_MODEL: lists.places(listed, without_model),
        NO_HISTORY: lists.places(empty, with_model),
    }
    del empty  # lists are large
    places[OTHER_HISTORY] = lists.places(plain.knowing(plain.other_history, pack, hidden), with_model)
    users = lists.users(listed)
    orders = {name: metrics.quality(found, users) for name, found in places.items()}
    before = orders[SERVER].ndcg10.mean
    behind = {SERVER: None, WITHOUT_MODEL: without_model, OURS: with_model}
    return Report(
        pack=pack.id,
        n_users=len(set(users)),
        n_cases=len(users),
        hit_rate=float((places[SERVER] > 0).mean()),
        ratio=orders[OURS].ndcg10.mean / before if before > 0 else 0.0,
        orders=orders,
        against_server={
            name: metrics.compare(found, places[SERVER], users)
            for name, found in places.items()
            if name != SERVER
        },
        against_without_model=metrics.compare(places[OURS], places[WITHOUT_MODEL], users),
        beyond={name: beyond.measure(listed, plain.make.items, weights) for name, weights in behind.items()},
        no_history_is_server_order=no_history_is_server_order,
    )


def lister(
    data: Log,
    split: protocol.Split,
    pack: Pack,
    hidden: NDArray[np.floating],
    n_candidates: int = 100,
) -> lists.Lister:
    """Lists of a popularity server that knows the head's users, with what the pack has learned."""
    plain = _plain_lister(data, split, Taste.of(pack.manifest.taste), n_candidates)
    return replace(plain, learned=lists.Learned.of(pack, data.items, hidden))


def _plain_lister(data: Log, split: protocol.Split, taste: Taste, n_candidates: int) -> lists.Lister:
    items = {item.id: item for item in data.items}
    server = PopularityServer.of_counts(times_met(split.head.values(), data.items), items)
    return lists.Lister(server, items, taste, n=n_candidates)


def another_users(cuts: Sequence[protocol.Cut]) -> list[protocol.Cut]:
    """For every cut one of another user after as many events, the next in line; deterministic."""
    result = []
    for at, cut in enumerate(cuts):
        rest = (cuts[(at + step) % len(cuts)] for step in range(1, len(cuts)))
        others = (each for each in rest if each.user_id != cut.user_id)
        first = next(others)
        alike = (each for each in chain((first,), others) if each.n_events == cut.n_events)
        result.append(next(alike, first))
    return result


def _is_server_order(listed: lists.Listed, weights: fusion.Weights) -> bool:
    order = fusion.order(fusion.fuse(listed.matrix, lists.NAMES, weights))
    return bool((order == np.arange(len(order))).all())


def _quality_line(name: str, quality: metrics.Quality) -> str:
    more = (quality.ndcg10_hits_only, quality.mrr, quality.hr1, quality.hr5, quality.hr10)
    return f"{TITLES[name]:<32} {_interval(quality.ndcg10):<28} {' '.join(f'{x:>6.4f}' for x in more)}"


def _beyond_line(name: str, found: beyond.Beyond) -> str:
    chances = found.reliability
    ece = f"{chances.ece:.5f} (by chance {chances.ece_by_chance:.5f})" if chances else "-"
    return f"{TITLES[name]:<32} {_interval(found.divergence):<28} {_interval(found.distance):<28} {ece}"


def _interval(found: metrics.Interval | None) -> str:
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]" if found else "-"


def _comparison_line(title: str, comparison: metrics.Comparison) -> str:
    change = comparison.ndcg10
    interval = f"[{change.low:+.4f}, {change.high:+.4f}]"
    users = f"{comparison.users_better} / {comparison.users_same} / {comparison.users_worse}"
    return f"{title:<46} {change.mean:+.4f} {interval:<20} {users}"
