"""``quantize measure``: variants of one model side by side, in one run."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.engine.types import Role
from edge_reranker.errors import EngineDied, FailedPrecondition
from edge_reranker.evaluation.log import Log
from edge_reranker.models.device_types import PUBLISHED
from edge_reranker.models.pack import Encoder, Pack
from edge_reranker.models.pull import sha256_of
from edge_reranker_quantize import of_encoder, of_scorer, workload
from edge_reranker_quantize.agreement import (
    Divergence,
    Float,
    Likeness,
    Rankings,
    VectorError,
    divergence,
    likeness,
    vector_error,
)
from edge_reranker_quantize.of_scorer import Noise
from edge_reranker_quantize.speed import Clock, Speed
from edge_reranker_quantize.variants import REFERENCE, Source

N_REQUESTS = 200
N_ROUNDS = 5
LEAST_REQUESTS = 30
_BESIDE = 30  # requests' worth of noise and divergence
_SHARE = 0.85  # of the time left: speeds were taken in another minute than that in which requests are read
_N_STREAM = 4_096
_LOAD_MS = 600_000.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What it was measured on; ``system`` is llama.cpp's word on the processor's features."""

    processor: str
    architecture: str
    system: str
    n_threads: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant. ``divergence`` and ``noise`` are of a scorer, ``vectors`` of an encoder."""

    type: str
    size_bytes: int
    speed: Speed
    rankings: Likeness
    divergence: Divergence | None = None
    noise: Noise | None = None
    vectors: VectorError | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All variants against ``reference``; speeds also by ``baseline``'s, round by round."""

    model: str
    role: Role
    sha256: str
    reference: str
    baseline: str
    machine: Machine
    n_requests: int
    n_rounds: int
    variants: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom to ask, and how: a scorer's requests are the log's; an encoder also has the pack that reads it."""

    role: Role
    data: Log
    n_threads: int
    encoder: Encoder | None = None
    pack: Pack | None = None


def measure(
    source: Source,
    variants: Mapping[str, Path],
    subject: Subject,
    say: Say,
    deadline: Deadline,
    *,
    n_requests: int = N_REQUESTS,
    n_rounds: int = N_ROUNDS,
) -> Report:
    """Speed in ``n_rounds`` rounds over all variants in turn, then each one's rankings.

    A scorer's rankings are of as many of ``n_requests`` requests as all variants have the time for before
    the deadline, and of ``LEAST_REQUESTS`` however late it is. Raises EngineDied, FailedPrecondition for a
    log that asks nothing.
    """
    clock, machine = clocked(variants, subject)
    baseline = PUBLISHED if source.has_published else REFERENCE
    for at in range(n_rounds):
        say(f"speed, round {at + 1} of {n_rounds}")
        clock.round(variants)
    speeds = {name: clock.of(name, baseline) for name in variants}
    say(f"rankings of the reference, {REFERENCE}")
    ranked = ranker(variants, subject, n_requests, enough=_in_time(speeds, deadline))
    found = []
    for name, path in variants.items():
        say(f"rankings of {name}")
        found.append(ranked.measured(name, path, speeds[name]))
    return Report(
        source.name,
        subject.role,
        sha256_of(source.path),
        REFERENCE,
        baseline,
        machine,
        ranked.n_requests,
        n_rounds,
        tuple(found),
    )


def _in_time(speeds: Mapping[str, Speed], deadline: Deadline) -> of_scorer.Enough:
    """Whether the reference has read as many requests as there is time for, if every variant reads them."""
    longest = max(speeds[REFERENCE].prefill)
    # The reference reads twice: now, and as one of the variants.
    cost = 1 + sum(speeds[REFERENCE].prefill[longest] / each.prefill[longest] for each in speeds.values())
    share_s = _SHARE * deadline.remaining_ms() / 1000 / cost
    times_s: list[float] = []

    def enough(scores: Sequence[Float]) -> bool:
        times_s.append(time.monotonic())
        pace_s = (times_s[-1] - times_s[0]) / max(1, len(times_s) - 1)
        return len(scores) >= max(LEAST_REQUESTS, share_s / max(pace_s, 1e-6) - _BESIDE)

    return enough


def clocked(variants: Mapping[str, Path], subject: Subject) -> tuple[Clock, Machine]:
    """What times the variants, and the machine it does so on."""
    engine = _start(variants[REFERENCE], subject)
    try:
        system = engine.info.system if engine.info else ""
        ids = workload.stream(engine, subject.data.items, _N_STREAM)
    finally:
        engine.close()
    machine = Machine(_processor(), platform.machine(), system.strip(), subject.n_threads)
    return Clock(subject.role, subject.n_threads, ids), machine


def _start(path: Path, subject: Subject) -> WorkerEngine:
    engine = WorkerEngine(EngineSpec(path, subject.role, subject.n_threads))
    if not engine.wait_ready(Deadline.after_ms(_LOAD_MS)):
        problem = engine.problem
        engine.close()
        raise EngineDied(problem or f"{path} does not load")
    return engine


def n_asked(subject: Subject, most: int) -> int:
    """How many requests the log has for a scorer, at the ``most``; an encoder ranks all its lists at once."""
    return len(workload.requests(subject.data, most)) if subject.role == "scorer" else most


def ranker(
    variants: Mapping[str, Path],
    subject: Subject,
    n_requests: int,
    n_most: int = 0,
    enough: of_scorer.Enough | None = None,
) -> OfScorer | OfEncoder:
    """What compares a variant's rankings with the reference's."""
    if subject.role == "encoder":
        return OfEncoder(variants[REFERENCE], subject)
    return OfScorer(variants[REFERENCE], subject, n_requests, max(n_requests, n_most), enough)


class OfScorer:
    """Requests read by the reference once, as many as anybody needs, then by any variant."""

    def __init__(
        self,
        reference: Path,
        subject: Subject,
        n_requests: int,
        n_most: int,
        enough: of_scorer.Enough | None = None,
    ) -> None:
        """``n_requests`` to begin with, fewer if it is ``enough``; ``n_most`` for who has to look closer."""
        self._path, self._n_threads = reference, subject.n_threads
        self._asked = workload.requests(subject.data, n_most)
        if not self._asked:
            raise FailedPrecondition("the log has no later user who likes anything: nothing can be asked")
        self.n_most = len(self._asked)
        engine = of_scorer.start(reference, self._n_threads)
        try:
            self._prompts = workload.prompts(engine, self._asked)
            self.reference = self._read(engine, 0, n_requests, enough)
            self.n_requests = len(self.reference.users)
        finally:
            engine.close()
        self._next: Float | None = None

    def extend(self, n: int, enough: of_scorer.Enough) -> None:
        """Has the reference read the first ``n`` requests, until it is ``enough``."""
        if n > len(self.reference.users):
            self.reference = self._more(self._path, self.reference, n, enough)

    def rankings(
        self, path: Path, enough: of_scorer.Enough | None = None, before: Rankings | None = None
    ) -> Rankings:
        """A variant's own, behind those that it has ``before``, until it is ``enough``."""
        return self._more(path, before, len(self.reference.users), enough)

    def measured(self, name: str, path: Path, speed: Speed) -> Measured:
        """All there is to say of a variant."""
        if self._next is None:
            self._next = self._next_tokens(self._path)
        unified = of_scorer.start(path, self._n_threads, "unified")
        try:
            isolated = of_scorer.start(path, self._n_threads)
            try:
                rankings = self._read(isolated, 0, self.n_requests)
                noise = of_scorer.noise(isolated, unified, self._prompts)
            finally:
                isolated.close()
            apart = divergence(of_scorer.next_tokens(unified, self._prompts), self._next)
        finally:
            unified.close()
        return Measured(name, path.stat().st_size, speed, likeness(rankings, self.reference), apart, noise)

    def _next_tokens(self, path: Path) -> Float:
        engine = of_scorer.start(path, self._n_threads, "unified")
        try:
            return of_scorer.next_tokens(engine, self._prompts)
        finally:
            engine.close()

    def _more(self, path: Path, before: Rankings | None, n: int, enough: of_scorer.Enough | None) -> Rankings:
        engine = of_scorer.start(path, self._n_threads)
        try:
            found = self._read(engine, len(before.users) if before else 0, n, enough)
        finally:
            engine.close()
        return found if before is None else before.then(found)

    def _read(
        self, engine: WorkerEngine, first: int, n: int, enough: of_scorer.Enough | None = None
    ) -> Rankings:
        return of_scorer.rankings(engine, self._prompts[first:n], self._asked[first:n], enough)


class OfEncoder:
    """Items read by the reference once, then by any variant; lists as the pack fuses them."""

    def __init__(self, reference: Path, subject: Subject) -> None:
        if subject.encoder is None or subject.pack is None:
            raise FailedPrecondition("an encoder is measured by the lists of a pack that reads it; name one")
        self._encoder = subject.encoder
        self._items, self._n_threads = subject.data.items, subject.n_threads
        self._lists = of_encoder.Lists(subject.data, subject.pack)
        self._states = self._read(reference)
        self.reference = self._lists.rankings(self._states)

        self.n_requests = self.n_most = len(self.reference.users)

    def extend(self, n: int, enough: of_scorer.Enough) -> None:
        """Nothing: there are all lists already."""

    def rankings(
        self, path: Path, enough: of_scorer.Enough | None = None, before: Rankings | None = None
    ) -> Rankings:
        """A variant's own; ``enough`` is not asked, since lists cost nothing once the items are read."""
        return self._lists.rankings(self._read(path))

    def measured(self, name: str, path: Path, speed: Speed) -> Measured:
        """All there is to say of a variant."""
        states = self._read(path)
        found = likeness(self._lists.rankings(states), self.reference)
        return Measured(name, path.stat().st_size, speed, found, vectors=vector_error(states, self._states))

    def _read(self, path: Path) -> Float:
        return of_encoder.states(path, self._encoder, self._items, self._n_threads)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        # x86 names the model; ARM tells the part's number, and its features either way.
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in ("model name", "hardware", "cpu part"):
                return value.strip()
    return platform.processor() or platform.machine()


def as_text(report: Report) -> str:
    """A table for people."""
    ours = report.role == "encoder"
    head = f"{'type':<10} {'MB':>6} {'RSS MB':>7} {'load s':>7} {'t/s 64':>7} {'t/s 512':>8} {'speed':>6}  "
    head += f"{'tau [95 % interval]':<23} {'top 5':>6}  {'change of NDCG@10':<27}"
    head += (
        f" {'error':>7} {'cosine':>8}"
        if ours
        else f" {'KL':>8} {'p99':>7} {'top 1':>6} {'noise':>6} {'beside':>7}"
    )
    lines = [
        f"{report.model}, {report.role}; {report.n_requests} requests, {report.n_rounds} rounds, "
        f"{report.machine.n_threads} threads, {report.machine.processor}",
        f"speed is by {report.baseline}'s, all else by {report.reference}'s",
        "",
        head,
    ]
    lines += [_line(each) for each in report.variants]
    return "\n".join(lines)


def _line(each: Measured) -> str:
    speed, found = each.speed, each.rankings
    short, long_ = (speed.prefill[n] for n in sorted(speed.prefill))
    tau, change = found.tau, found.change
    line = (
        f"{each.type:<10} {each.size_bytes / 1e6:6.1f} {speed.resident_bytes / 1e6:7.0f} {speed.load_s:7.2f} "
        f"{short:7.0f} {long_:8.0f} {speed.to_baseline:6.2f}  "
        f"{f'{tau.mean:.3f} [{tau.low:.3f}, {tau.high:.3f}]':<23} {found.top5:6.3f}  "
        f"{f'{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]':<27}"
    )
    if each.vectors is not None:
        line += f" {each.vectors.mean:7.4f} {each.vectors.least_cosine:8.5f}"
    if each.divergence is not None:
        line += f" {each.divergence.mean:8.5f} {each.divergence.p99:7.4f} {each.divergence.top1:6.3f}"
    if each.noise is not None:
        line += f" {each.noise.isolated:6.3f} {each.noise.unified:7.3f}"
    return line
