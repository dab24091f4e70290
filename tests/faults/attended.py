"""A process with an open store that does as it is told, so that faults can be put around it while it runs.

    python -m tests.faults.attended DATA_DIR

answers each line of its standard input with one line: "ok" and a number, or an error's class and text.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_reranker.errors import EdgeRerankerError
from edge_reranker.store import Store
from edge_reranker.types import Selector
from tests.faults import trace
from tests.faults.power_loss import SURROUNDINGS
from tests.faults.workload import batch

_PR_SET_PTRACER, _ANY = 0x59616D61, -1
# All that lies in the data directory and may be written.
_FILES = ("store.db", "store.db-wal", "store.db-shm", "probe.part", "reserve")


class Attended:
    """The process, from the side of the test."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        self._process = process
        self._data_dir = data_dir

    def ask(self, *words: str) -> str:
        """The answer to one line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().rstrip("\n")

    @contextlib.contextmanager
    def fault(self, *faults: str) -> Iterator[None]:
        """In the block, calls on the store's files fail as strace's ``-e inject=`` says."""
        paths = [part for name in _FILES for part in ("-P", str(self._data_dir / name))]
        command = ["strace", "-f", "-p", str(self._process.pid), "-o", os.devnull, *paths]
        for each in faults:
            command += ["-e", f"inject={each}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                assert tracer.stderr is not None
                _wait_until_attached(self._process.pid, tracer)
                yield
            finally:
                tracer.send_signal(signal.SIGINT)
                tracer.wait(10)

    def until_ok(self, *words: str, give_up_s: float = 10.0) -> float:
        """Ask again and again; how many seconds it took until the answer was "ok"."""
        start = time.monotonic()
        while not (answer := self.ask(*words)).startswith("ok"):
            assert time.monotonic() < start + give_up_s, f"no recovery: {answer}"
            time.sleep(0.02)
        return time.monotonic() - start


@contextlib.contextmanager
def attended(data_dir: Path) -> Iterator[Attended]:
    """A process with the store of ``data_dir``."""
    command = [sys.executable, "-m", "tests.faults.attended", str(data_dir)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **SURROUNDINGS}
    ) as process:
        assert process.stdin is not None
        try:
            yield Attended(process, data_dir)
        finally:
            process.stdin.close()
            process.wait(30)
    assert process.returncode == 0


def _wait_until_attached(pid: int, tracer: subprocess.Popen[str]) -> None:
    """Until every thread of the process has a tracer."""
    until = time.monotonic() + 20
    while True:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        if all("TracerPid:\t0\n" not in (t / "status").read_text() for t in threads):
            return
        assert tracer.poll() is None, f"{trace.INSTALL}: {tracer.stderr and tracer.stderr.read()}"
        assert time.monotonic() < until, "strace does not attach"
        time.sleep(0.01)


def _answer(store: Store, words: Sequence[str]) -> int:
    match words:
        case ["record", name]:
            return store.record("app", batch(name)).recorded
        case ["large", name]:
            return store.record("app", batch(name, 200)).recorded
        case ["read"]:
            return len(store.context("app", 100_000).events)
        case ["forget", name]:
            return store.forget("app", Selector(item_id=f"i-{name}")).events
        case ["check"]:
            assert store.check() == []
            return 0
    raise AssertionError(words)


def main() -> None:
    """Answer until standard input ends."""
    # Where a process may trace its own children only, a test could not attach to this one later.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
    with Store.open(Path(sys.argv[1]), key_source="file") as store:
        for line in sys.stdin:
            try:
                answer = f"ok {_answer(store, line.split())}"
            except EdgeRerankerError as e:
                answer = f"{type(e).__name__} {e}"
            print(answer, flush=True)


if __name__ == "__main__":
    main()
