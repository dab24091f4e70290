"""What simulated feedback rounds come to, as sections: learning curves, pools, and people who mean harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation import adversaries, metrics, protocol, rounds, run
from edge_reranker.evaluation.clicks import Cascade, PositionBased
from edge_reranker.evaluation.lists import Lister
from edge_reranker.evaluation.log import Log
from edge_reranker.evaluation.rounds import Mark, Person, Setting, Trace
from edge_reranker.evaluation.table import Cell, Row, Section, Tables
from edge_reranker.evaluation.world import Say
from edge_reranker.models.pack import Pack
from edge_reranker.ranking import fusion
from edge_reranker.ranking.learning.learned import Learned, begin

LABEL = "Simulation"
POOLS = (20, 50, 100, 300)
N_SIMULATED = 200
# People who contradict the model click all the time, and so take long.
N_AGAINST = 100
_SEED = 20231

CLICKS = "clicks"
ARMS: Mapping[str, Setting] = {
    "clicks, history as it was": Setting(grows=False),
    CLICKS: Setting(),
    "clicks and ratings": Setting(rates=True),
    "clicks, cascade": Setting(clicks=Cascade()),
}

_PEOPLE = (
    "Nobody clicked here: clicks are simulated, for users who start after all that was learned. The cases "
    f"are those of the whole protocol at its later cuts; the device knows the first {min(protocol.CUTS)} "
    "events. What was liked between is clicked on when it is seen, and what is measured, the next five likes "
    "after the cut, is held out of all lists of the rounds. Popularity server; what was met is left out."
)


_ORDERS = (
    rounds.SERVER,
    rounds.NOTHING,
    rounds.WEIGHTS,
    rounds.HISTORY,
    rounds.BOTH,
    rounds.SERVED,
    rounds.INFORMED,
)


@dataclass(frozen=True, slots=True)
class World:
    """What all sections share. ``say`` gets progress."""

    who: Sequence[Person]
    lister: Lister
    start: Learned
    say: Say

    def traces(self, label: str, setting: Setting, who: Sequence[Person] | None = None) -> list[Trace]:
        """Everybody's rounds; whoever likes nothing that could be measured has no cases and takes no part."""
        self.say(f"{LABEL}: {label}")
        return rounds.run(self.who if who is None else who, self.lister, self.start, setting)


def evaluate(
    data: Log,
    pack: Pack,
    hidden: NDArray[np.floating],
    *,
    pools: Sequence[int] = POOLS,
    n_rounds: int = rounds.N_ROUNDS,
    say: Say = lambda _: None,
) -> Tables:
    """All sections. ``hidden`` as in ``run.evaluate``. Raises ``FailedPrecondition`` for too small a log."""
    split = protocol.split(data)
    who = rounds.people(split.test)
    lister = run.lister(data, split, pack, hidden)
    return {
        "sections": sections(World(who, lister, started(pack), say), pools, n_rounds),
        "made": {
            "pack": pack.id,
            "what this is": "a simulation: nobody clicked",
            "users, at up to two cuts each": len({each.cut.user_id for each in who}),
            "cases": sum(len(each.cut.targets) for each in who),
            "rounds": n_rounds,
            "click model": f"{PositionBased()}, {Setting().attraction}",
            "intervals": "95 %, bootstrap over users",
        },
    }


def started(pack: Pack) -> Learned:
    """What the service has learned of somebody before any feedback."""
    manifest = pack.manifest
    return begin(fusion.Weights.of(manifest.fusion), fusion.Weights.of(manifest.without_model), pack.id)


def sections(world: World, pools: Sequence[int], n_rounds: int) -> list[Section]:
    """Learning curves, the end of them, pools, and people whose feedback contradicts the model."""
    at = (*(each for each in rounds.CHECKPOINTS if each < n_rounds), n_rounds)

    def of(setting: Setting) -> Setting:
        return replace(setting, n_rounds=n_rounds, checkpoints=at)

    found = {name: world.traces(name, of(setting)) for name, setting in ARMS.items()}
    return [
        curves(found),
        ends(found),
        behind_pools(
            world, found[CLICKS], [replace(of(Setting(n=n)), checkpoints=(n_rounds,)) for n in pools]
        ),
        against_the_model(world, of(Setting())),
    ]


def curves(found: Mapping[str, Sequence[Trace]]) -> Section:
    """NDCG@10 of the held-out likes by rounds, against the same list with nothing learned."""
    rows: list[Row] = []
    for feedback, traces in found.items():
        for marks in _by_round(traces):
            change = _compared(traces, marks, rounds.SERVED, rounds.NOTHING)
            rows.append(
                {
                    "feedback": feedback,
                    "rounds": marks[0].n_rounds,
                    "clicks": _clicks(marks),
                    "NDCG@10 server": _ndcg(marks, rounds.SERVER),
                    "nothing learned": _ndcg(marks, rounds.NOTHING),
                    "served": _ndcg(marks, rounds.SERVED),
                    "served - nothing learned": asdict(change.ndcg10),
                }
            )
    note = (
        "Every round's lists are the same for all orders; lists of other rounds lack what was clicked since."
    )
    return {
        "title": f"{LABEL}: what feedback rounds teach",
        "note": f"{_PEOPLE} {note}",
        "rows": rows,
        "plot": {"x": "rounds", "y": "served - nothing learned", "by": "feedback"},
    }


def ends(found: Mapping[str, Sequence[Trace]]) -> Section:
    """After the last round: which part of what was learned does what, and how many users are worse off."""
    rows: list[Row] = []
    for feedback, traces in found.items():
        marks = _by_round(traces)[-1]
        for order in _ORDERS:
            row: Row = {"feedback": feedback, "order": order, "NDCG@10": _ndcg(marks, order)}
            row["against nothing"] = asdict(_compared(traces, marks, order, rounds.NOTHING).ndcg10)
            row |= _against_server(traces, marks, order)
            if order == rounds.SERVED:
                row["users worse by chance"] = by_chance(traces, marks)
                row["server's order by the gate"] = _gated(marks)
            rows.append(row)
    note = (
        "Weights learned: with the history as at the start; history grown: with the weights as at the start. "
        "Users worse: share whose cases sum to less than by the server's order. By chance: the share there "
        "would be if likes were drawn from the very chances behind the order, so that it harms nobody."
    )
    return {
        "title": f"{LABEL}: after the last round",
        "note": note,
        "rows": rows,
        "plot": {"x": "order", "y": "against server", "by": "feedback"},
    }


def behind_pools(world: World, usual: Sequence[Trace], settings: Sequence[Setting]) -> Section:
    """What is served against the server's order, for lists of several lengths; ``usual`` are of the usual."""
    rows: list[Row] = []
    for setting in settings:
        n = setting.n
        traces = usual if n == Setting().n else world.traces(f"lists of {n}", setting)
        marks = _by_round(traces)[-1]
        row: Row = {"pool": n, "NDCG@10 server": _ndcg(marks, rounds.SERVER)}
        row |= {"served": _ndcg(marks, rounds.SERVED), **_against_server(traces, marks, rounds.SERVED)}
        rows.append({**row, "users worse by chance": by_chance(traces, marks)})
    return {
        "title": f"{LABEL}: lists of other lengths, after the last round",
        "note": "Clicks become history, as in the service.",
        "rows": rows,
        "plot": {"x": "pool", "y": "against server", "by": None},
    }


def against_the_model(world: World, setting: Setting) -> Section:
    """People whose feedback has nothing to do with the columns, or contradicts them; gate on and off."""
    some = list({person.cut.user_id: person for person in world.who}.values())[:N_AGAINST]
    start = world.start.with_model
    groups = {taste: adversaries.made_up(some, start, taste) for taste in adversaries.TASTES}
    groups[adversaries.STRANGER] = adversaries.strangers(some)
    rows: list[Row] = []
    for name, who in groups.items():
        for gated in (True, False):
            label = f"{name}{'' if gated else ', no gate'}"
            traces = world.traces(label, replace(setting, gated=gated), who)
            for marks in _by_round(traces):
                row: Row = {"likes": name, "gate": "on" if gated else "off", "rounds": marks[0].n_rounds}
                row |= {"who": label, "clicks": _clicks(marks)}
                row |= {"NDCG@10 server": _ndcg(marks, rounds.SERVER), "served": _ndcg(marks, rounds.SERVED)}
                change = _compared(traces, marks, rounds.SERVED, rounds.SERVER)
                rows.append({**row, "against server": asdict(change.ndcg10), "by the gate": _gated(marks)})
    note = (
        f"The first {N_AGAINST} users, but what they like is made up: {adversaries.NO_TASTE} (a chance of "
        f"its own for every item, so orders are alike), {adversaries.SERVERS_TASTE} (1 / place, so no order "
        f"is better), {adversaries.CONTRARY} (1 / place from the end of the order at the start); and with "
        "their own likes, when the device goes by another user's history. By the gate: share of users who "
        "get the server's order by then."
    )
    return {
        "title": f"{LABEL}: feedback that contradicts the model",
        "note": note,
        "rows": rows,
        "plot": {"x": "rounds", "y": "against server", "by": "who"},
    }


def by_chance(traces: Sequence[Trace], marks: Sequence[Mark]) -> Cell:
    """The share of users who would come out worse if the chances behind our order were the truth.

    Of every list as many likes are drawn as it really has, without replacement; mean and 95 % of the draws.
    See docs/decisions/0021.
    """
    rng = np.random.default_rng(_SEED)
    users = [trace.person.cut.user_id for trace in traces]
    names, of_user = np.unique(users, return_inverse=True)
    longest = max((len(mark.chances) for mark in marks), default=0)
    gain_at = metrics.ndcg(np.arange(longest + 1))
    total = np.zeros((N_SIMULATED, len(names)))
    for user, mark in zip(of_user, marks, strict=True):
        n_hits = int((mark.places[rounds.SERVER] > 0).sum())
        if not n_hits:
            continue
        noise = rng.gumbel(size=(N_SIMULATED, len(mark.chances)))
        drawn = np.argsort(-(np.log(mark.chances) + noise), axis=1)[:, :n_hits]
        change = gain_at[mark.places_served] - gain_at[1 : len(mark.chances) + 1]
        total[:, user] += change[drawn].sum(axis=1)
    shares = (total < -1e-12).mean(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return {"mean": float(shares.mean()), "low": float(low), "high": float(high)}


def _by_round(traces: Sequence[Trace]) -> list[tuple[Mark, ...]]:
    """The marks of everybody, by checkpoint."""
    return list(zip(*(trace.marks for trace in traces), strict=True))


def _places(marks: Sequence[Mark], order: str) -> metrics.Places:
    return np.concatenate([mark.places[order] for mark in marks])


def _ndcg(marks: Sequence[Mark], order: str) -> float:
    return float(metrics.ndcg(_places(marks, order)).mean())


def _compared(traces: Sequence[Trace], marks: Sequence[Mark], after: str, before: str) -> metrics.Comparison:
    users = [
        trace.person.cut.user_id
        for trace, mark in zip(traces, marks, strict=True)
        for _ in mark.places[rounds.SERVER]
    ]
    return metrics.compare(_places(marks, after), _places(marks, before), users)


def _against_server(traces: Sequence[Trace], marks: Sequence[Mark], order: str) -> Row:
    found = _compared(traces, marks, order, rounds.SERVER)
    n_users = found.users_better + found.users_same + found.users_worse
    return {"against server": asdict(found.ndcg10), "users worse": found.users_worse / n_users}


def _clicks(marks: Sequence[Mark]) -> float:
    return float(np.mean([mark.n_clicks for mark in marks]))


def _gated(marks: Sequence[Mark]) -> float:
    return float(np.mean([mark.by_server for mark in marks]))
