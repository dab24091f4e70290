"""A service in a house of its own, with strace writing down what it opens, makes and writes.

The house has every place where a program usually leaves things: home, caches, temporary and working folder.
strace tells what was opened elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_reranker_client import EdgeReranker
from tests.faults.canaries import below
from tests.service import children

_MAKES = (
    "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,bind,umask,memfd_create,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,unlink,unlinkat"
)
_WRITES = "write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,splice"
# What Python and the C library write to that keeps nothing.
_NOTHING_KEPT = ("/dev/null", "/dev/tty", "/dev/pts/", "/proc/self/", "/proc/thread-self/")
# Every library that could log, told to tell all it can.
LOUD = {
    "PYTHONFAULTHANDLER": "1",
    "PYTHONASYNCIODEBUG": "1",
    "GRPC_VERBOSITY": "DEBUG",
    "GRPC_TRACE": "all",
    "GGML_LOG_LEVEL": "5",
    "LLAMA_LOG_VERBOSITY": "9",
}
_SERVE_LOUDLY = (
    "import logging, sys; logging.basicConfig(level=1); from edge_reranker.cli import main; "
    "sys.argv[0] = 'edge-reranker'; main()"
)
_OPENED = re.compile(r'(?:open|openat|openat2|creat)\((?:[^",]*, )?"((?:[^"\\]|\\.)*)"(.*)\)\s+= (\d+)')
_MADE = re.compile(r'(mkdir|mkdirat|mknod|mknodat)\((?:[^",]*, )?"((?:[^"\\]|\\.)*)", (.*)\)\s+= 0')
_BOUND = re.compile(r'bind\(\d+, \{sa_family=AF_UNIX, sun_path="([^"]*)"')
_NAMED = re.compile(
    r'(?:rename|renameat|renameat2|link|linkat|symlink|symlinkat)\(.*"((?:[^"\\]|\\.)*)"[^"]*\)\s+= 0'
)
_GONE = re.compile(r'(?:unlink|rename)(?:at2?)?\((?:[^",]*, )?"((?:[^"\\]|\\.)*)".*\)\s+= 0')
_CHANGED = re.compile(r'f?chmod(?:at)?\((?:[^",]*, )?(?:"((?:[^"\\]|\\.)*)"|\d+), (\d+)')
_UMASK = re.compile(r"umask\((\d+)")


def tracer(log: Path, *, writes: bool = False) -> list[str]:
    """What to put before a command so that ``log`` tells of it; skips the test where that is impossible."""
    found = shutil.which("strace")
    if found is None or not sys.platform.startswith("linux"):
        pytest.skip("strace is missing; install it with: apt-get install strace")
    # The service closes its memory to other programs of its user: only root can trace it.
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user"]
    inside = unshare if os.geteuid() else []
    tried = subprocess.run(
        [*inside, found, "-qq", "-o", os.devnull, "true"], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip("this user may not trace programs, not even in a user namespace")
    calls = f"{_MAKES},{_WRITES}" if writes else _MAKES
    size = str(1 << 20) if writes else "4096"
    shown = ["-y"] if writes else []
    return [
        *inside,
        *(found, "-f", "--seccomp-bpf", "-qq", "-s", size, *shown, "-o", str(log)),
        *("-e", f"trace={calls}", "-e", "signal=none"),
    ]


@dataclass(frozen=True, slots=True)
class House:
    """Folders of a user who has nothing but this service."""

    root: Path
    cache: Path

    @classmethod
    def build(cls, root: Path, cache: Path) -> House:
        house = cls(root, cache)
        for folder in ("home", "tmp", "cwd", "run", "told"):
            (root / folder).mkdir(parents=True)
        return house

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def environment(self) -> dict[str, str]:
        home, python = self.root / "home", os.environ.get("PYTHONPATH", "")
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": python,
            "PYTHONDONTWRITEBYTECODE": "1",  # of ours and of libraries: not what is looked for
            "HOME": str(home),
            "TMPDIR": str(self.root / "tmp"),
            "SQLITE_TMPDIR": str(self.root / "tmp"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "share"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "EDGE_RERANKER_DATA_DIR": str(self.data),
            "EDGE_RERANKER_CACHE": str(self.cache),
            "EDGE_RERANKER_KEY_SOURCE": "file",
        }

    def files(self) -> list[Path]:
        """Everything there is in it now."""
        return list(below(self.root))

    @contextlib.contextmanager
    def serving(
        self, name: str, *options: str, umask: int = 0o022, writes: bool = False, loud: bool = True
    ) -> Iterator[Service]:
        """A traced service; its log and what it says are ``told/NAME.*``."""
        log = self.root / "told" / f"{name}.strace"
        start = [sys.executable, "-c", _SERVE_LOUDLY] if loud else [sys.executable, "-m", "edge_reranker.cli"]
        command = [*tracer(log, writes=writes), *start, "serve", *options]
        with (self.root / "told" / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env=self.environment | (LOUD if loud else {}),
                cwd=self.root / "cwd",
                umask=umask,
            )
        with EdgeReranker(data_dir=self.data, owner=True) as client:
            until = time.monotonic() + 90
            try:
                while not client.healthy(timeout_s=1):
                    assert process.poll() is None, (self.root / "told" / f"{name}.out").read_text()[-2000:]
                    assert time.monotonic() < until, "the service did not start in time"
                    time.sleep(0.1)
                service = Service(process, _first_child(process.pid), client, log)
                yield service
                if process.poll() is None:
                    service.end(signal.SIGTERM)
            finally:
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    os.kill(_first_child(process.pid), signal.SIGKILL)
                process.kill()
                process.wait()


@dataclass(frozen=True, slots=True)
class Service:
    """One that runs: ``pid`` is its own, ``process`` strace's around it."""

    process: subprocess.Popen[bytes]
    pid: int
    client: EdgeReranker
    log: Path

    def workers(self) -> list[int]:
        """Its workers, once there are any."""
        until = time.monotonic() + 30
        while not (found := children(self.pid)):
            assert time.monotonic() < until, "no worker came"
            time.sleep(0.05)
        return found

    def end(self, signal_: signal.Signals) -> None:
        os.kill(self.pid, signal_)
        self.process.wait(timeout=60)


def _first_child(pid: int) -> int:
    found = children(pid)
    if not found:
        raise ProcessLookupError(pid)
    return found[0]


@dataclass(frozen=True, slots=True)
class Made:
    """A file, directory or socket that was made or changed, and the mode that it got at that moment."""

    path: str
    mode: int


def written(logs: Sequence[Path]) -> set[str]:
    """Every path that was opened for writing, or that something was renamed or linked to."""
    found = set()
    for line in _lines(logs):
        opened = _OPENED.search(line)
        if opened and re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|creat\(", line):
            found.add(_plain(opened[1]))
        named = _NAMED.search(line)
        if named:
            found.add(_plain(named[1]))
        if "memfd_create(" in line:
            found.add("memfd")
    return {path for path in found if not path.startswith(_NOTHING_KEPT)}


def made(logs: Sequence[Path], umask: int) -> list[Made]:
    """What was made, with the mode that it had from its first moment on, and what was changed to which."""
    found = []
    for log in logs:
        mask = umask
        there: set[str] = set()  # an open with O_CREAT of what is there makes nothing
        for line in _lines([log]):
            if changed := _UMASK.search(line):
                mask = int(changed[1], 8)
            elif opened := _OPENED.search(line):
                path = _plain(opened[1])
                if "O_CREAT" in line and path not in there:
                    mode = int(opened[2].rsplit(", ", 1)[1].rstrip(" }"), 8)
                    found.append(Made(path, mode & ~mask))
                there.add(path)
            elif folder := _MADE.search(line):
                mode = re.findall(r"0\d*", folder[3])[0]
                found.append(Made(_plain(folder[2]), int(mode, 8) & ~mask))
            elif bound := _BOUND.search(line):
                found.append(Made(bound[1], 0o777 & ~mask))
            elif changed := _CHANGED.search(line):
                found.append(Made(_plain(changed[1] or ""), int(changed[2], 8)))
            elif gone := _GONE.search(line):
                there.discard(_plain(gone[1]))
    return found


def wide(things: Sequence[Made]) -> list[str]:
    """Those that others could open at some moment."""
    return [f"{each.path}: {each.mode:04o}" for each in things if each.mode & 0o077]


def _lines(logs: Sequence[Path]) -> Iterator[str]:
    """Whole calls: strace tells one that another thread's came between in two pieces."""
    for log in logs:
        begun: dict[str, str] = {}
        with log.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                thread, _, text = line.rstrip("\n").partition(" ")
                text = text.strip()
                if text.endswith("<unfinished ...>"):
                    begun[thread] = text.removesuffix("<unfinished ...>")
                elif text.startswith("<... "):
                    yield begun.pop(thread, "") + text.partition("resumed>")[2]
                else:
                    yield text
        # Cut off by a kill: it may have happened.
        yield from begun.values()


def _plain(text: str) -> str:
    return text.encode("latin-1", "replace").decode("unicode_escape", "replace")


def told(log: Path, forms: Sequence[bytes]) -> list[str]:
    """Writes to files and devices whose bytes have one of the forms; for a log with ``writes``."""
    wanted = [_as_strace_writes(form) for form in forms]
    call = re.compile(rf"(?:{_WRITES.replace(',', '|')})\(\d+</")
    return [line[:200] for line in _lines([log]) if call.match(line) and any(each in line for each in wanted)]


def _as_strace_writes(data: bytes) -> str:
    signs = {ord('"'): '\\"', ord("\\"): "\\\\", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
    return "".join(signs.get(each) or (chr(each) if 32 <= each < 127 else f"\\{each:o}") for each in data)
