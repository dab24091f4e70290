"""What a process did to its files, in order, as strace saw it.

strace runs the process itself, so nothing in it knows that it is watched, and a system call that nobody
thought of is an error here instead of a gap.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL = "strace is missing or may not trace here; on Debian: apt-get install strace"

# Calls that change a file or a name, and those that tell which file a descriptor means.
_CALLS = (
    "open,openat,openat2,creat,close,dup,dup2,dup3,lseek,mmap,"
    "write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,splice,"
    "truncate,ftruncate,fallocate,sync,syncfs,fsync,fdatasync,sync_file_range,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += +(-?\w+|\?)(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_UNFINISHED = " <unfinished ...>"
_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded, or failed on purpose.

    ``begun`` and ``done`` are places in the log: from the first on, the call may have had its effect, from
    the second on it has.
    """

    name: str
    thread: str
    arguments: tuple[str, ...]
    result: int
    begun: int
    done: int
    injected: bool

    def path(self, place: int) -> Path:
        """An argument that is a path."""
        return Path(os.fsdecode(self.data(place)))

    def data(self, place: int) -> bytes:
        """An argument that is bytes."""
        return bytes.fromhex(self.arguments[place].strip('"').replace("\\x", ""))

    def number(self, place: int) -> int:
        """An argument that is a number."""
        return int(self.arguments[place], 0)


@functools.cache
def usable() -> bool:
    """Whether there is a strace that may trace."""
    found = shutil.which("strace")
    if found is None or not sys.platform.startswith("linux"):
        return False
    tried = subprocess.run([found, "-f", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False)
    return tried.returncode == 0


def record(
    command: Sequence[str],
    log: Path,
    *,
    inject: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> list[Call]:
    """Run ``command`` to its end; what it did. ``inject`` is as strace's ``-e inject=``."""
    faults = [part for each in inject for part in ("-e", f"inject={each}")]
    # --seccomp-bpf: other system calls do not stop the process.
    run = subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-qq", "-xx", "-s", str(_BLOCK), "-o", str(log)),
            *("-e", f"trace={_CALLS}", "-e", "signal=none", *faults, *command),
        ],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=None if environment is None else {**os.environ, **environment},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    with log.open(encoding="ascii") as lines:
        return parse(lines)


def parse(lines: Iterator[str]) -> list[Call]:
    """The calls of a log, in the order in which they began; those that failed by themselves left out."""
    begun: dict[str, tuple[int, str]] = {}
    calls: list[Call] = []
    for place, line in enumerate(lines):
        thread, text = _parts(_LINE, line.rstrip("\n"))
        if text.startswith(("+++", "---")):
            continue
        start = place
        if text.endswith(_UNFINISHED):
            begun[thread] = place, text.removesuffix(_UNFINISHED)
            continue
        if text.startswith("<..."):
            _, rest = _parts(_RESUMED, text)
            start, before = begun.pop(thread)
            text = before + rest
        name, arguments, result, remark = _parts(_CALL, text)
        injected = "INJECTED" in remark
        if result == "?":
            begun[thread] = start, text
            continue
        if result.startswith("-") and not injected:
            continue
        calls.append(Call(name, thread, tuple(arguments.split(", ")), int(result, 0), start, place, injected))
    # A call that a kill cut off may have had its effect.
    for thread, (start, text) in begun.items():
        name, _, arguments = text.partition("(")
        if name in ("write", "pwrite64"):
            parts = tuple(arguments.partition(")")[0].split(", "))
            calls.append(Call(name, thread, parts, len(parts[1]) // 4, start, sys.maxsize, False))
    return sorted(calls, key=lambda call: call.begun)


def _parts(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    found = pattern.fullmatch(text)
    assert found is not None, f"a line of strace's that nobody understands: {text[:200]}"
    return found.groups()
