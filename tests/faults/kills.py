"""Processes that record until they are killed: forks of one that has loaded everything, so they are quick.

    python -m tests.faults.kills [early]

reads lines "DATA_DIR PROMISES NUMBER" from its standard input and forks a process for each, whose id it
prints; a line "end PID" collects that process. With "early" they promise before they record: the control.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_reranker.errors import StoreError
from edge_reranker.store import Store, writer
from tests.faults.power_loss import SURROUNDINGS, Promised
from tests.faults.workload import Promises, batch

# How long a process lives at most that is not waited for, and how many promises others make.
_EARLY_S = 0.1
_MOST_PROMISES = 25
_GIVE_UP_S = 30.0


@dataclass(slots=True)
class Killed:
    """What was found after a number of kills."""

    kills: int = 0
    acknowledged: int = 0
    missing: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)
    # Kills that came before the store was open, and during a forget.
    early: int = 0
    forgetting: int = 0


def kill(folder: Path, n_kills: int, seed: int, *, control: str = "") -> Killed:
    """Kill a recording process again and again, and look each time whether all it promised is there."""
    found, promised = Killed(), Promised()
    rng = random.Random(seed)
    data_dir, promises = folder / "data", folder / "promises"
    folder.mkdir(parents=True, exist_ok=True)
    with _nursery(control) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for number in range(n_kills):
            promises.write_bytes(b"")
            nursery.stdin.write(f"{data_dir} {promises} {number}\n")
            nursery.stdin.flush()
            pid = int(nursery.stdout.readline())
            _wait(promises, rng)
            os.kill(pid, signal.SIGKILL)
            nursery.stdin.write(f"end {pid}\n")
            nursery.stdin.flush()
            assert nursery.stdout.readline() == "-9\n", "the process ended by itself"
            found.kills += 1
            before = len(promised.recorded)
            lines = promises.read_text().splitlines(keepends=True)
            for line in lines:
                if line.endswith("\n"):
                    promised.take(line)
            found.early += before == len(promised.recorded)
            found.forgetting += bool(lines) and lines[-1].startswith("?")
            _look(data_dir, promised, found)
    found.acknowledged = len(promised.recorded)
    return found


def _wait(promises: Path, rng: random.Random) -> None:
    """Until some moment: soon for one in four, else once so many promises were made."""
    n_promises = 0 if rng.random() < 0.25 else rng.randint(1, _MOST_PROMISES)
    until = time.monotonic() + _GIVE_UP_S
    while promises.read_bytes().count(b"\n") < n_promises:
        assert time.monotonic() < until, "nothing was promised"
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.02 if n_promises else _EARLY_S))


def _look(data_dir: Path, promised: Promised, found: Killed) -> None:
    try:
        with Store.open(data_dir, key_source="file") as store:
            found.unsound += store.check()
            kept = {e.event_id for e in store.context("app", 100_000).events}
    except StoreError as e:
        found.unsound.append(str(e))
    else:
        found.missing += promised.broken_by(kept)


@contextlib.contextmanager
def _nursery(control: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faults.kills", *([control] if control else [])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **SURROUNDINGS}
    ) as nursery:
        try:
            yield nursery
        finally:
            assert nursery.stdin is not None
            nursery.stdin.close()
            nursery.wait(30)


def _live(data_dir: Path, promises: Path, number: str, *, early: bool) -> None:
    """Record in three threads and forget in another, until killed."""
    # Short, so that a kill comes during a fold now and then.
    writer.LOG_COMMITS = 8
    told = Promises(promises)
    store = Store.open(data_dir, key_source="file")

    def work(thread: int) -> None:
        n = 0
        while True:
            events = batch(f"{number}-{thread}-{n}")
            if early:
                told.note("+", [e.event_id for e in events])
            store.record("app", events)
            if not early:
                told.note("+", [e.event_id for e in events])
            if thread == 0 and n % 4 == 3:
                told.forget(store, [e.event_id for e in events], item_id=f"i-{number}-{thread}-{n}")
            n += 1

    for thread in range(3):
        threading.Thread(target=work, args=(thread,)).start()


def main() -> None:
    """Fork and collect as told, until standard input ends."""
    early = sys.argv[1:] == ["early"]
    for line in sys.stdin:
        first, *rest = line.split()
        if first == "end":
            _, status = os.waitpid(int(rest[0]), 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        elif (pid := os.fork()) == 0:
            os.close(0)
            _live(Path(first), Path(rest[0]), rest[1], early=early)
            return
        else:
            print(pid, flush=True)


if __name__ == "__main__":
    main()
