"""The worker killed 100 times, in three ways, under load; then mutated model files given to workers."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import candidates, films, liked, report, service
from edge_reranker_client import EdgeReranker, Ranking

_KILLS = 100
_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
_BUDGET_MS = 200
_ANSWER_MS = 500.0
_BACK_S = 5.0
_GIVE_UP_S = 60.0


@dataclass(slots=True)
class Kills:
    """What a client saw while the worker was killed again and again. Times are seconds and milliseconds."""

    by_signal: Counter[str] = field(default_factory=Counter)
    n_answers: int = 0
    without_model: int = 0
    errors: list[str] = field(default_factory=list)
    worst_answer_ms: float = 0.0
    worst_back_s: float = 0.0
    workers: set[int] = field(default_factory=set)
    same_service: bool = False

    @property
    def survived(self) -> bool:
        """Whether every request got a complete answer in time, and every worker its successor."""
        return (
            self.same_service
            and not self.errors
            and self.worst_answer_ms <= _ANSWER_MS
            and self.worst_back_s <= _BACK_S
            and len(self.workers) == self.by_signal.total() + 1
        )


def main() -> bool:
    """One service, 100 kills."""
    found = kill(_KILLS)
    return report(
        "survival",
        {
            "kills": dict(found.by_signal),
            "workers": len(found.workers),
            "same_service": found.same_service,
            "n_answers": found.n_answers,
            "without_model": found.without_model,
            "errors": found.errors[:3],
            "worst_answer_ms": found.worst_answer_ms,
            "worst_back_s": found.worst_back_s,
        },
        {
            "the service lives": found.same_service,
            "every answer complete": not found.errors,
            f"answers within {_ANSWER_MS:.0f} ms": found.worst_answer_ms <= _ANSWER_MS,
            f"the worker is back within {_BACK_S:.0f} s": found.worst_back_s <= _BACK_S,
            "one new worker a kill": len(found.workers) == _KILLS + 1,
        },
    )


def kill(n_kills: int) -> Kills:
    """Kills the worker of a real service under load, each time once it has answered again."""
    found = Kills()
    others = set(children(os.getpid()))
    with service() as client:
        (ours,) = set(children(os.getpid())) - others
        client.record(liked(films()[:10]))
        client.warmup()
        load = _Load(client, found)
        try:
            for signal_ in itertools.islice(itertools.cycle(_SIGNALS), n_kills):
                (worker,) = children(ours)
                found.workers.add(worker)
                load.wait_model(time.perf_counter())
                killed_at = time.perf_counter()
                os.kill(worker, signal_)
                found.by_signal[signal_.name] += 1
                load.wait_model(_successor(ours, worker))
                found.worst_back_s = max(found.worst_back_s, time.perf_counter() - killed_at)
            found.workers.update(children(ours))
        finally:
            load.stop()
        found.same_service = set(children(os.getpid())) - others == {ours}
    return found


def _successor(service_pid: int, worker: int) -> float:
    """Waits for another worker; when it was there."""
    until = time.perf_counter() + _GIVE_UP_S
    while not set(children(service_pid)) - {worker}:
        assert time.perf_counter() < until, "no new worker"
        time.sleep(0.005)
    return time.perf_counter()


class _Load:
    """A client that sends new films without a pause."""

    def __init__(self, client: EdgeReranker, found: Kills) -> None:
        self._client = client
        self._found = found
        self._pool = candidates(films()[:60])
        self._changed = threading.Condition()
        self._stopped = False
        self._with_model_since = 0.0  # when the last request began that the model had a part in
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_model(self, since: float) -> None:
        """Waits until the model has had a part in a request that began after ``since``."""
        with self._changed:
            came = self._changed.wait_for(lambda: self._with_model_since > since, timeout=_GIVE_UP_S)
        assert came, f"no answer with the model in {_GIVE_UP_S} s"

    def stop(self) -> None:
        """Ends after the request at hand."""
        self._stopped = True
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopped:
                return
            sent = [
                dataclasses.replace(each, title=f"{each.title} {number}") if place % 2 else each
                for place, each in enumerate(self._pool)
            ]
            start = time.perf_counter()
            try:
                answer = self._client.rerank(sent, budget_ms=_BUDGET_MS)
            except Exception as error:
                self._found.errors.append(repr(error))
                continue
            self._take_in(answer, start)
            if sorted(answer.ids) != sorted(each.id for each in sent):
                self._found.errors.append("not a permutation")

    def _take_in(self, answer: Ranking, start: float) -> None:
        found = self._found
        found.n_answers += 1
        found.worst_answer_ms = max(found.worst_answer_ms, (time.perf_counter() - start) * 1000.0)
        if answer.degraded_reason == "MODEL_UNAVAILABLE":
            found.without_model += 1
            return
        with self._changed:
            self._with_model_since = start
            self._changed.notify_all()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended since
            found += [int(child) for child in (task / "children").read_text().split()]
    return found
