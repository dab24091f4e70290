"""Does the service help this user? Told from the user's own choices, and as honestly as they allow.

Every choice is judged by what was known before it, prequentially (Dawid, "Present position and potential
developments: the prequential approach", 1984): our order is the one of its time, and its chance comes from
weights that were learned from the choices before it.

What the server's order would have got is told by inverse propensity weighting (Joachims, Swaminathan and
Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM 2017): of a choice at a place that is
examined with chance e, an order that puts the item where it is examined with chance f would have had f / e.
A few such weights can be large, and a bootstrap that has not met them yet is wrong: of simulated users to
whom all orders are alike it told 8 of 40 a difference. So that interval is a betting confidence sequence,
which holds at all times at once, however often somebody looks (Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", 2023). Log chances have no such tails: theirs are a circular block
bootstrap over lists in the order of time (Politis and Romano, "A circular block-resampling procedure for
stationary data", 1992), in blocks of the cube root of their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reranker.evaluation.metrics import Interval
from edge_reranker.evaluation.table import Row, Section, Tables
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.learning.feedback import Choice
from edge_reranker.ranking.learning.learned import Learned
from edge_reranker.ranking.learning.posterior import Posterior, log_chance
from edge_reranker.ranking.learning.shown import examination

Float64 = NDArray[np.float64]

N_RESAMPLES = 2000
N_POINTS = 12
_SEED = 20231
# At 2.5 % a side: a capital that grows so many times over is evidence (Ville 1939).
_ENOUGH = 40.0
# Shares of the largest bet that cannot ruin; their mixture is as good as any of them but for a factor 4.
_BETS = (0.05, 0.15, 0.4, 0.8)
# No bet is larger than for a margin of so much.
_LEAST_MARGIN = 0.05

HELPS, HARMS, OPEN = "helps", "harms", "open"
SERVER, NOTHING, LEARNED = "server's order", "pack, nothing learned", "learned"


@dataclass(frozen=True, slots=True)
class Point:
    """What could be told after ``n_choices``: gain as in ``Mine``."""

    n_choices: int
    gain: Interval


@dataclass(frozen=True, slots=True)
class Mine:
    """The replay. ``gain`` is how many more choices our order had than the server's would have, per choice.

    0.2: a fifth of all choices is owed to our order; None without a choice. ``nats`` are the mean log chances
    of the choices, ``learning`` and ``ours`` their differences: learned less the pack's weights, and less the
    server's. ``verdict`` is HELPS, HARMS or OPEN; ``more`` is about how many more choices would tell, None if
    it is told or cannot be foretold. ``by_server`` counts lists shown in the server's order by the gate.
    """

    pack: str
    n_choices: int
    n_against: int
    n_lists: int
    by_server: int
    other_packs: int
    gain: Interval | None
    nats: Mapping[str, Interval]
    learning: Interval | None
    ours: Interval | None
    verdict: str
    more: int | None
    points: tuple[Point, ...]

    def in_words(self) -> str:
        """The verdict as a sentence or two."""
        if self.gain is None:
            lead = "Nothing can be told yet: no choice was recorded from a ranking"
            if self.other_packs:
                lead += f" of this pack, and {self.other_packs} of other packs"
            return f"{lead}. Events that name their ranking_id are needed."
        size = f"{100 * self.gain.mean:+.0f} choices per 100"
        sure = f"95 %: {100 * self.gain.low:+.0f} to {100 * self.gain.high:+.0f}"
        if self.verdict == HELPS:
            return f"The service helps: its order made {size}, against the server's ({sure})."
        if self.verdict == HARMS:
            return f"The service does not help: its order made {size}, against the server's ({sure})."
        more = "and how many more choices it would take cannot be foretold"
        if self.more is not None:
            more = f"about {self.more:,} more choices would tell, if it goes on like this"
        return f"It cannot be told yet whether the service helps: {size} ({sure}); {more}."

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "in_words": self.in_words()}


def replay(start: Learned, choices: Sequence[Choice]) -> Mine:
    """The replay of a user's choices, oldest first; ``start`` is what the pack believes of anybody.

    Choices of other packs are counted and left out. An item that is chosen from a list again counts once.
    """
    own = [each for each in choices if each.pack == start.pack]
    kept = _once(own)
    picked = [choice for choice in kept if not choice.against]
    gains = _gains(picked)
    sequence = _sequence(gains)
    gain = sequence[-1] if sequence else None
    told = dict(zip(map(id, own), foretold(start, own), strict=True))
    nats = _blocks([(choice.list_id, told[id(choice)]) for choice in kept])
    return Mine(
        pack=start.pack,
        n_choices=len(picked),
        n_against=len(kept) - len(picked),
        n_lists=len({choice.list_id for choice in kept}),
        by_server=len({choice.list_id for choice in kept if choice.by_server}),
        other_packs=len(choices) - len(own),
        gain=gain,
        nats={} if not kept else {name: _resampled(nats[:, [at, 3]]) for at, name in enumerate(_NAMES)},
        learning=None if not kept else _resampled(_difference(nats, 2, 1)),
        ours=None if not kept else _resampled(_difference(nats, 2, 0)),
        verdict=_verdict(gain),
        more=None if gain is None else _more(gains, gain),
        points=_points(sequence),
    )


def verdict(choices: Sequence[Choice]) -> str:
    """HELPS, HARMS or OPEN, without the rest."""
    sequence = _sequence(_gains([choice for choice in _once(choices) if not choice.against]))
    return _verdict(sequence[-1] if sequence else None)


def foretold(start: Learned, choices: Sequence[Choice]) -> list[tuple[float, float, float]]:
    """Every choice's log chance by the server's order, the pack's weights, and those learned before it."""
    found, learned = [], start
    for choice in choices:
        found.append(_chances(choice, start, learned))
        learned = learned.after(choice)
    return found


_NAMES = (SERVER, NOTHING, LEARNED)


def _once(choices: Sequence[Choice]) -> list[Choice]:
    """A click and a like of one item in one list are one choice, the first."""
    first: dict[tuple[bytes, int, bool], Choice] = {}
    for choice in choices:
        first.setdefault((choice.list_id, choice.server_place, choice.against), choice)
    return list(first.values())


def _chances(choice: Choice, start: Learned, learned: Learned) -> tuple[float, float, float]:
    """Log chances of a choice by the server's order, by the pack's weights and by the learned ones."""
    before, now = ((each.of_model if choice.with_model else each.of_none) for each in (start, learned))
    beliefs = (_of_server(before), before.now, now.now)
    server, nothing, found = (log_chance(choice, belief) for belief in beliefs)
    return server, nothing, found


def _of_server(before: Posterior) -> Weights:
    """The belief that the server's order says all; the examination's exponent is the prior's."""
    mean = np.zeros(len(before.prior.mean))
    mean[-1] = before.prior.mean[-1]
    return Weights(before.prior.names, mean, before.prior.covariance)


def _gains(picked: Sequence[Choice]) -> Float64:
    """Every choice's gain, and the most that could have been lost and gained by any: [n, 3].

    A gain is (examination(our place) - examination(server's place)) / examination as it was served.
    """
    rows = [
        (
            float(examination(each.our_place) - examination(each.server_place)) / each.exposure,
            each.most_loss,
            each.most_gain,
        )
        for each in picked
    ]
    return np.array(rows, np.float64).reshape(len(rows), 3)


def _sequence(gains: Float64) -> list[Interval]:
    """The mean gain after each choice and its 95 % confidence sequence; ``gains`` as of ``_gains``.

    For every mean m that is possible, a capital of 1 is bet on g > m, and another on g < m: each choice
    multiplies it by 1 + b (g - m) / (m + most loss), or 1 - b (g - m) / (most gain - m). If m is the mean,
    the chance that one ever grows ``_ENOUGH`` times over is 2.5 %; those m for which it has are ruled out.
    """
    g, loss, gain = (gains[:, at, None] for at in range(3))
    far = max(1.0, float(loss.max(initial=0.0)))
    possible = np.concatenate([-np.geomspace(far, 1.0, 60)[:-1], np.round(np.linspace(-1.0, 1.0, 201), 4)])
    above, below = np.zeros((2, len(g), len(possible)))
    for bet in _BETS:
        up = 1 + bet * (g - possible) / np.maximum(possible + loss, _LEAST_MARGIN)
        down = 1 - bet * (g - possible) / np.maximum(gain - possible, _LEAST_MARGIN)
        above += np.exp(np.minimum(np.cumsum(np.log(np.maximum(up, 1e-12)), axis=0), 300.0)) / len(_BETS)
        below += np.exp(np.minimum(np.cumsum(np.log(np.maximum(down, 1e-12)), axis=0), 300.0)) / len(_BETS)
    means = np.cumsum(g[:, 0]) / np.arange(1, len(g) + 1)
    found = []
    for mean, over, under in zip(means, above >= _ENOUGH, below >= _ENOUGH, strict=True):
        low = possible[over].max(initial=-far)
        high = possible[under].min(initial=1.0)
        found.append(Interval(float(mean), float(min(low, mean)), float(max(high, mean))))
    return found


def _blocks(values: Sequence[tuple[bytes, tuple[float, ...]]]) -> Float64:
    """Sums per list, lists in order of their first value, the last column their number; [n_lists, m + 1]."""
    sums: dict[bytes, Float64] = {}
    for name, found in values:
        row = np.array([*found, 1.0])
        sums[name] = sums[name] + row if name in sums else row
    return np.array(list(sums.values()))


def _difference(sums: Float64, one: int, other: int) -> Float64:
    return np.column_stack([sums[:, one] - sums[:, other], sums[:, -1]])


def _resampled(sums: Float64) -> Interval:
    """Mean of column 0 by column 1 [n_lists, 2], and its 95 % percentile interval over resampled blocks."""
    n = len(sums)
    length = max(1, round(n ** (1 / 3)))
    around = np.cumsum(np.vstack([np.zeros(2), sums, sums[:length]]), axis=0)
    of_block = around[length : n + length] - around[:n]  # block i has the lists i to i + length - 1
    starts = np.random.default_rng(_SEED).integers(n, size=(N_RESAMPLES, math.ceil(n / length)))
    totals = of_block[starts].sum(axis=1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return Interval(float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high))


def _verdict(gain: Interval | None) -> str:
    if gain is None:
        return OPEN
    return HELPS if gain.low >= 0 else HARMS if gain.high <= 0 else OPEN


def _more(gains: Float64, gain: Interval) -> int | None:
    """The best bet's capital grows by mean^2 / (2 variance) a choice, in logs, to log ``_ENOUGH``.

    None: it is told already, or the mean is too near to 0 to say.
    """
    variance = float(gains[:, 0].var())
    if _verdict(gain) != OPEN or len(gains) < 2 or gain.mean**2 < 1e-5 * variance or not variance:
        return None
    return max(1, math.ceil(2 * math.log(_ENOUGH) * variance / gain.mean**2) - len(gains))


def _points(sequence: Sequence[Interval]) -> tuple[Point, ...]:
    """The sequence at up to ``N_POINTS`` places, alike apart on a log scale."""
    if len(sequence) < 2:
        return ()
    at = np.unique(np.geomspace(2, len(sequence), N_POINTS).round().astype(int))
    return tuple(Point(int(n), sequence[n - 1]) for n in at)


def tables(found: Mine) -> Tables:
    """The replay as sections, in the shape of ``table``."""
    rows: list[Row] = [{"choices": each.n_choices, "gain": asdict(each.gain)} for each in found.points]
    curve: Section = {
        "title": "Our order against the server's, by your own choices",
        "note": f"{found.in_words()} Gain: how many more choices per choice our order made than the server's "
        "would have; by inverse propensity, for places that are examined with chance 1 / place. The 95 % "
        "intervals hold at all times at once, however often you look.",
        "rows": rows,
        "plot": {"x": "choices", "y": "gain", "by": None},
    }
    chances: list[Row] = [{"order": name, "log chance": asdict(each)} for name, each in found.nats.items()]
    for name, difference in (("learned - pack", found.learning), ("learned - server's", found.ours)):
        if difference is not None:
            chances.append({"order": name, "log chance": asdict(difference)})
    return {
        "sections": [
            curve,
            {
                "title": "How well your choices were foretold",
                "note": "Mean log chance of a choice in nats, by what was learned before it; 95 % bootstrap.",
                "rows": chances,
                "plot": None,
            },
        ],
        "made": {
            "pack": found.pack,
            "choices": found.n_choices,
            "pushed away": found.n_against,
            "lists": found.n_lists,
            "of them in the server's order by the gate": found.by_server,
            "choices under other packs, left out": found.other_packs,
        },
    }
