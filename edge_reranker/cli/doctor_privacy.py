"""What ``doctor`` says of the promises of docs/privacy.md, as they are kept on this very machine."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_reranker.cli.finding import Finding
from edge_reranker.config import Config

_NOT_YET = "made by the first `serve`"
# Text files that belong there, and hold nothing of what the user did; tokens/ has more.
_TEXT_FILES = frozenset({"key", "key.new", "key-id", "key-check", "serve.lock", "config.toml", "report.json"})
_LOOKED_AT_BYTES = 4096
_NETWORK = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")


def files(data_dir: Path) -> Finding:
    """Whether everything in the data directory is closed to others."""
    if not data_dir.exists():
        return Finding("files", True, _NOT_YET)
    n_files, bad = 0, []
    for path, status in _below(data_dir):
        n_files += 1
        if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != data_dir.stat().st_uid:
            bad.append(f"{path} (mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid})")
    if bad:
        return Finding(
            "files", False, _some(bad) + " can be opened by others", f"run `chmod -R go-rwx {data_dir}`"
        )
    return Finding("files", True, f"{n_files} in {data_dir}, none of them open to others")


def encrypted(data_dir: Path) -> Iterator[Finding]:
    """Whether the database is encrypted, and nothing legible lies beside it."""
    from edge_reranker.store import cipher_version, is_plain_database

    version = cipher_version()
    if not version:
        yield Finding(
            "encryption", False, "this sqlcipher3 has none", "run `pip install --force-reinstall sqlcipher3`"
        )
        return
    paths = [path for path, status in _below(data_dir) if stat.S_ISREG(status.st_mode)]
    plain = [str(path) for path in paths if is_plain_database(path)]
    legible = [str(path) for path in paths if _is_text(path, data_dir)]
    if plain:
        yield Finding(
            "encryption", False, f"{_some(plain)}: a database in plain text", f"delete or move {plain[0]}"
        )
    elif (data_dir / "store.db").exists():
        yield Finding("encryption", True, f"SQLCipher {version}; no database in plain text in {data_dir}")
    else:
        yield Finding("encryption", True, f"SQLCipher {version}; {_NOT_YET}")
    if legible:
        detail = f"{_some(legible)}: text that is not encrypted, such as an export"
        yield Finding("leftovers", False, detail, f"delete {legible[0]}, or move it to where it is safe")
    else:
        yield Finding("leftovers", True, "none: no file of plain text but settings, key and tokens")


def service(config: Config) -> Iterator[Finding]:
    """What the kernel tells of the service that runs, and of its workers; nothing where none does."""
    pid = _listener(config.socket) if sys.platform == "linux" else None
    if pid is None:
        return
    with contextlib.suppress(
        FileNotFoundError, ProcessLookupError
    ):  # it ended meanwhile; another finding says so
        pids = [pid, *_children(pid)]
        yield _core(pids)
        yield from _opened(pids, config)


def swap() -> Iterator[Finding]:
    """Where memory may be written to by the system itself; no word where it cannot be told."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/swaps").read_text(encoding="ascii", errors="replace").splitlines()[1:]
        places = [line.split()[0] for line in lines]
        exposed = [
            place for place in places if not place.startswith(("/dev/dm-", "/dev/zram", "/dev/mapper/"))
        ]
        # A note: whether the disk below is encrypted as a whole cannot be told from here.
        told = (
            f"{_some(exposed)}: memory can get there, and into a hibernation image; encrypt the disk"
            if exposed
            else ""
        )
        yield Finding(
            "swap", True, told or (f"in memory or encrypted: {_some(places)}" if places else "none")
        )


def _core(pids: list[int]) -> Finding:
    for pid in pids:
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
        found = re.search(r"^Max core file size +(\w+) +(\w+)", limits, re.MULTILINE)
        if found is None or found.groups() != ("0", "0"):
            why = f"process {pid} would leave its memory in a file if it crashed"
            return Finding("crashes", False, why, "start the service with `edge-reranker serve`")
    return Finding("crashes", True, f"leave no core file: its limit is 0 in {len(pids)} processes")


def _opened(pids: list[int], config: Config) -> Iterator[Finding]:
    network = {
        line.split()[9]
        for table in _NETWORK
        if (path := Path(f"/proc/{pids[0]}/net/{table}")).exists()
        for line in path.read_text(encoding="ascii").splitlines()[1:]
    }
    try:
        links = {
            (pid, int(each.name)): os.readlink(each)
            for pid in pids
            for each in Path(f"/proc/{pid}/fd").iterdir()
        }
    except PermissionError:
        why = "closed to other programs, so only root can list what the service has open"
        yield Finding("sockets", True, f"{why}: `sudo edge-reranker doctor --data-dir {config.data_dir}`")
        return
    foreign = [link for link in links.values() if link.startswith("socket:[") and link[8:-1] in network]
    if foreign:
        why = f"{len(foreign)} network sockets are open in the service"
        yield Finding("sockets", False, why, f"stop it, and see what else runs in process {pids[0]}")
    else:
        yield Finding(
            "sockets", True, "the service and its workers have unix sockets only, none of the network"
        )
    wide = sorted(
        {link for at, link in links.items() if link.startswith("/") and _written(*at) and _is_wide(link)}
    )
    if wide:
        yield Finding(
            "open files",
            False,
            f"{_some(wide)}: written by the service, and open to others",
            f"run `chmod go-rwx {wide[0]}`",
        )
    else:
        yield Finding("open files", True, "none that the service writes can be opened by others")


def _written(pid: int, descriptor: int) -> bool:
    lines = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    flags = next((line.split()[1] for line in lines if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def _is_wide(link: str) -> bool:
    with contextlib.suppress(OSError):
        status = Path(link).stat()
        return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o077)
    return False


def _listener(path: Path) -> int | None:
    """The process that answers at a socket, as the kernel knows it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        probe.connect(os.fspath(path))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0]) or None
    return None


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in a folder but links, with its status; what vanishes meanwhile is left out."""
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if not stat.S_ISLNK(status.st_mode):
                yield path, status


def _is_text(path: Path, data_dir: Path) -> bool:
    if path.name in _TEXT_FILES or path.parent == data_dir / "tokens":
        return False
    with path.open("rb") as file:
        data = file.read(_LOOKED_AT_BYTES)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # The last letter may be cut off.
        return error.start > _LOOKED_AT_BYTES - 4
    return bool(data) and b"\0" not in data


def _some(things: list[str]) -> str:
    return ", ".join(things[:2]) + (f" and {len(things) - 2} more" if len(things) > 2 else "")
