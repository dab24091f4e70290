"""``quantize pick``: the fastest variant that ranks as the reference does, within a bound on memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.errors import FailedPrecondition
from edge_reranker.evaluation import metrics
from edge_reranker.models.device_types import PUBLISHED
from edge_reranker_quantize.agreement import Float, Likeness, likeness, tau
from edge_reranker_quantize.measure import (
    Machine,
    OfEncoder,
    OfScorer,
    Subject,
    clocked,
    n_asked,
    ranker,
)
from edge_reranker_quantize.of_scorer import Enough
from edge_reranker_quantize.speed import Speed
from edge_reranker_quantize.variants import REFERENCE, Source

MIN_TAU = 0.98
MOST_LOST = 0.002  # of NDCG@10: the 95 % interval of the change must lie above its negative
MIN_REQUESTS = 200
MOST_REQUESTS = 2_000
TYPES = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0", "Q4_1", "IQ4_NL")
_N_ROUNDS = 3
_LOOK_AFTER, _LOOK_EVERY = 30, 10

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tried:
    """One variant, how fast it is, and what became of it; ``rankings`` None: nobody looked at them."""

    type: str
    size_bytes: int
    speed: Speed
    verdict: str
    rankings: Likeness | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What was picked, "" for nothing, and all that was tried, fastest first."""

    model: str
    role: str
    picked: str
    baseline: str
    machine: Machine
    n_requests: int
    tried: tuple[Tried, ...]

    @property
    def of_picked(self) -> Tried | None:
        """What was found of the variant that was picked."""
        return next((each for each in self.tried if each.type == self.picked), None)


def pick(
    source: Source,
    variants: Mapping[str, Path],
    subject: Subject,
    say: Say,
    deadline: Deadline,
    *,
    memory_bytes: int = 0,
    n_requests: int = MIN_REQUESTS,
) -> Choice:
    """From the fastest down, the first whose rankings can't be told from the reference's.

    A variant is indistinguishable when the mean of Kendall's tau over the requests is at least ``MIN_TAU``
    and the interval of the change of NDCG@10 lies above -``MOST_LOST``. One that has clearly failed is not
    measured to its end; where only the interval is too wide, up to ``MOST_REQUESTS`` are asked.
    ``memory_bytes`` 0 means no bound; it is of the worker as it was measured. Raises
    EngineDied, FailedPrecondition for a log that asks too little.
    """
    n_there = n_asked(subject, n_requests)
    if n_there < n_requests:
        raise FailedPrecondition(
            f"the log asks {n_there} times, {n_requests} requests are needed; "
            "take a log with more later users, or `quantize measure` to look for yourself"
        )
    clock, machine = clocked(variants, subject)
    baseline = PUBLISHED if source.has_published else REFERENCE
    for at in range(_N_ROUNDS):
        say(f"speed, round {at + 1} of {_N_ROUNDS}")
        clock.round(variants)
    speeds = {name: clock.of(name, baseline) for name in variants}
    ranked: OfScorer | OfEncoder | None = None
    picked, tried = "", []
    for name in sorted(speeds, key=lambda name: -speeds[name].to_baseline):
        speed, size_bytes = speeds[name], variants[name].stat().st_size
        found = None
        if picked:
            verdict = "slower than what was picked"
        elif memory_bytes and speed.resident_bytes > memory_bytes:
            verdict = f"its worker takes more than {memory_bytes / 1e6:.0f} MB"
        elif deadline.passed:
            verdict = "no time was left for it"
        else:
            if ranked is None:
                say(f"rankings of the reference, {REFERENCE}")
                ranked = ranker(variants, subject, n_requests, MOST_REQUESTS)
            say(f"rankings of {name}, {speed.to_baseline:.2f} x as fast as {baseline}")
            found, verdict = _judged(ranked, name, variants[name], deadline, say)
            picked = "" if verdict else name
        tried.append(Tried(name, size_bytes, speed, verdict or "picked", found))
    return Choice(source.name, subject.role, picked, baseline, machine, n_there, tuple(tried))


def _judged(
    ranked: OfScorer | OfEncoder, name: str, path: Path, deadline: Deadline, say: Say
) -> tuple[Likeness, str]:
    """How like the reference it ranks, and what speaks against it; "" for nothing.

    While only the number of requests speaks against it, more are asked, if there are more and there is time.
    """
    found = ranked.reference if name == REFERENCE else ranked.rankings(path, _enough(ranked, 0, deadline))
    while True:
        n, n_reference = len(found.users), len(ranked.reference.users)
        like = likeness(found, ranked.reference.first(n))
        if like.tau.mean < MIN_TAU:
            return like, f"tau {like.tau.mean:.3f}, less than {MIN_TAU}, in {n} requests"
        if n < n_reference:
            return like, f"no time was left for more than {n} requests"
        if like.change.low > -MOST_LOST:
            return like, ""
        unsure = f"NDCG@10 may fall by {-like.change.low:.4f}, {MOST_LOST} is the most, in {n} requests"
        if like.change.mean <= -MOST_LOST or n >= ranked.n_most or deadline.passed:
            return like, unsure
        say(f"{name}: {unsure}; asking more")
        ranked.extend(min(2 * n, ranked.n_most), lambda _: deadline.passed)
        found = ranked.rankings(path, _enough(ranked, n, deadline), before=found)


def _enough(ranked: OfScorer | OfEncoder, n_before: int, deadline: Deadline) -> Enough:
    """Whether it has clearly failed, or time is up; ``n_before`` requests were ranked already."""
    taus: list[float] = []

    def enough(scores: Sequence[Float]) -> bool:
        at = n_before + len(scores) - 1
        taus.append(tau(scores[-1], ranked.reference.scores[at]))
        if deadline.passed:
            return True
        if n_before or len(taus) < _LOOK_AFTER or len(taus) % _LOOK_EVERY:
            return False
        return metrics.bootstrap(np.array(taus), ranked.reference.users[: len(taus)]).high < MIN_TAU

    return enough


def as_text(choice: Choice) -> str:
    """A table for people, and the choice in one line."""
    lines = [
        f"{choice.model}, {choice.role}; {choice.n_requests} requests or more, "
        f"{choice.machine.n_threads} threads, {choice.machine.processor}",
        "",
        f"{'type':<10} {'MB':>6} {'RSS MB':>7} {'speed':>6}  {'tau [95 % interval]':<23}  "
        f"{'change of NDCG@10':<27}  verdict",
    ]
    for each in choice.tried:
        like = each.rankings
        shown = ("", "")
        if like is not None:
            t, c = like.tau, like.change
            shown = (
                f"{t.mean:.3f} [{t.low:.3f}, {t.high:.3f}]",
                f"{c.mean:+.4f} [{c.low:+.4f}, {c.high:+.4f}]",
            )
        lines.append(
            f"{each.type:<10} {each.size_bytes / 1e6:6.1f} {each.speed.resident_bytes / 1e6:7.0f} "
            f"{each.speed.to_baseline:6.2f}  {shown[0]:<23}  {shown[1]:<27}  {each.verdict}"
        )
    found = choice.of_picked
    lines.append("")
    if found is None:
        lines.append("nothing was picked: no variant ranks as the reference does, within the bounds")
    else:
        lines.append(f"{found.type}: {found.speed.to_baseline:.2f} x as fast as {choice.baseline}")
    return "\n".join(lines)
