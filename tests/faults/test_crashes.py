"""A crash leaves nothing, and nobody looks into service, worker or command from outside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker_client import EdgeReranker
from tests.faults.canaries import Marker, below, files_with
from tests.service import children, surroundings

LIBC = ctypes.CDLL(None)
PR_CAPBSET_DROP = 24
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def want_cores() -> None:
    """In the child: as in the shell of a developer who collects them."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def as_anybody() -> None:
    """In the child: no right of root's, and cores are wanted."""
    want_cores()
    for capability in range(64 if os.geteuid() == 0 else 0):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@contextlib.contextmanager
def service(data_dir: Path, cache_dir: Path, cwd: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_reranker.cli", "serve", *options],
        env=surroundings(data_dir, cache_dir),
        stderr=subprocess.DEVNULL,
        cwd=cwd,
        preexec_fn=as_anybody,
    )
    try:
        with EdgeReranker(data_dir=data_dir) as client:
            until = time.monotonic() + 60
            while not client.healthy(timeout_s=1):
                assert process.poll() is None
                assert time.monotonic() < until, "the service did not start in time"
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def core_limit(pid: int) -> list[str]:
    found = re.search(r"^Max core file size\s+(\w+)\s+(\w+)", Path(f"/proc/{pid}/limits").read_text(), re.M)
    assert found is not None
    return list(found.groups())


def closed_to_others(pid: int) -> bool:
    """Whether another program of the same user is refused its memory; both without root's rights."""
    look = f"try: open('/proc/{pid}/mem', 'rb')\nexcept PermissionError: raise SystemExit(3)"
    return subprocess.run([sys.executable, "-c", look], preexec_fn=as_anybody, check=False).returncode == 3


@pytest.mark.model
def test_service_and_worker_leave_no_core_and_cannot_be_looked_into(
    data_dir: Path, cache_dir: Path, tmp_path: Path
) -> None:
    marker, cwd = Marker.new(), tmp_path / "cwd"
    cwd.mkdir()
    with service(data_dir, cache_dir, cwd) as process, EdgeReranker(data_dir=data_dir) as client:
        client.record(marker.events(20))
        (worker,) = children(process.pid)
        for pid in (process.pid, worker):
            assert core_limit(pid) == ["0", "0"]
            assert closed_to_others(pid)
        client.rerank(marker.candidates(50), budget_ms=50)
        os.kill(worker, signal.SIGSEGV)
        until = time.monotonic() + 30
        while not (again := children(process.pid)) or again == [worker]:
            assert time.monotonic() < until, "no new worker came"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGSEGV)
        assert process.wait(timeout=30) == -signal.SIGSEGV
    assert list(cwd.iterdir()) == []
    assert files_with(below(cwd, data_dir), marker.word.encode()) == []


def test_a_command_that_has_the_key_in_hand_cannot_be_looked_into(data_dir: Path, cache_dir: Path) -> None:
    """Such as `record`, which waits for its input here."""
    command = [sys.executable, "-m", "edge_reranker.cli", "record", "-"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=surroundings(data_dir, cache_dir),
        preexec_fn=as_anybody,
    ) as process:
        try:
            until = time.monotonic() + 30
            while core_limit(process.pid) != ["0", "0"] or not closed_to_others(process.pid):
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            process.kill()


def test_without_all_that_a_crash_would_leave_everything(tmp_path: Path) -> None:
    """The control: the same crash of a program that does not protect itself, and of one that half does."""
    if CORE_PATTERN.read_text().strip() != "core":
        pytest.skip("the kernel writes cores elsewhere, or hands them to a program")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no core may be written here at all")
    word = Marker.new().word
    crash = f"import os; text = ''.join({list(word)!r}) * 1000; os.kill(os.getpid(), 11)"
    protect = "from edge_reranker import crashes; crashes.leave_nothing()\n"
    # A handler that the kernel hands cores to gets them whatever the limit is.
    lift = "import resource as r; r.setrlimit(r.RLIMIT_CORE, (r.RLIM_INFINITY,) * 2)\n"
    programs = {"bare": crash, "protected": protect + crash}
    if os.geteuid() == 0:
        programs["protected, without the limit"] = protect + lift + crash
    found = {}
    for name, script in programs.items():
        cwd = tmp_path / name
        cwd.mkdir()
        subprocess.run([sys.executable, "-c", script], cwd=cwd, preexec_fn=want_cores, check=False)
        found[name] = bool(files_with(below(cwd), word.encode()))
        assert found[name] == bool(list(cwd.iterdir()))
    assert found.pop("bare")
    assert not any(found.values())


def test_a_program_that_does_not_protect_itself_can_be_looked_into() -> None:
    """The control, where the kernel leaves it to programs."""
    yama = Path("/proc/sys/kernel/yama/ptrace_scope")
    if yama.exists() and yama.read_text().strip() != "0":
        pytest.skip("the kernel itself refuses one program the memory of another")
    with subprocess.Popen(["/bin/sleep", "30"], preexec_fn=as_anybody) as bare:
        try:
            assert not closed_to_others(bare.pid)
        finally:
            bare.kill()
