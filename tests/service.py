"""A real service, started as a user would start it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_reranker_client import EdgeReranker

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def surroundings(data_dir: Path, cache_dir: Path) -> dict[str, str]:
    return os.environ | {
        "EDGE_RERANKER_DATA_DIR": str(data_dir),
        "EDGE_RERANKER_CACHE": str(cache_dir),
        "EDGE_RERANKER_KEY_SOURCE": "file",
    }


@contextlib.contextmanager
def serving(data_dir: Path, cache_dir: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A service until the block ends; then it must stop by itself when asked to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_reranker.cli", "serve", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(data_dir, cache_dir),
    )
    try:
        with EdgeReranker(data_dir=data_dir) as client:
            until = time.monotonic() + 30
            while not client.healthy(timeout_s=1):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < until, "the service did not start in time"
                time.sleep(0.05)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def open_files(pid: int) -> list[str]:
    """What the descriptors of a service or a worker are."""
    _only_root(pid)
    return [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]


def environment(pid: int) -> bytes:
    """The environment that a service or a worker was started with."""
    _only_root(pid)
    return Path(f"/proc/{pid}/environ").read_bytes()


def _only_root(pid: int) -> None:
    if os.geteuid():
        assert Path(f"/proc/{pid}/fd").stat().st_uid == 0, "it should be closed to its own user"
        pytest.skip("only root can look into a process that closes its memory to other programs")


def catches(pid: int, signal_: signal.Signals) -> bool:
    """Whether a process has set a handler for a signal."""
    found = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (signal_ - 1) & 1)
