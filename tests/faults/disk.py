"""What a disk may hold after the power went: a model that promises no more than POSIX does.

Durable is what a sync that returned has covered: a file's bytes and length by a sync of the file, a name by a
sync of its directory. Of all else, each write is there, or gone, or torn at a sector; each length and each
name is there or gone; and none of it heeds the order in which it was done, but for two changes of one thing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.trace import Call

SECTOR = 512

# Without content that matters: room on the disk, and the index of the log, which every opening makes anew.
_PASSED_OVER = ("reserve", "store.db-shm", "store.db.part-shm")


@dataclass(slots=True)
class _Write:
    offset: int
    data: bytes


@dataclass(slots=True)
class _Length:
    size: int


@dataclass(slots=True)
class _File:
    """``content`` is durable, ``pending`` is not. What a failed sync dropped is in neither: see ``Disk``."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[_Write | _Length] = field(default_factory=list)


@dataclass(slots=True)
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def now(self) -> dict[str, _File | _Folder]:
        """The names as running programs see them."""
        return _renamed(self.names, self.pending)


@dataclass(slots=True)
class _Open:
    target: _File | _Folder
    position: int = 0


class Disk:
    """The files below ``root``, a folder whose own name is durable, as calls change them.

    A sync that fails drops what it should have made durable, and the next one that succeeds knows nothing of
    it: so does Linux, which calls pages clean that it could not write. Running programs still read them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _Folder()
        self._open: dict[int, _Open] = {}
        self._syncing: dict[Call, tuple[_File | _Folder, int]] = {}

    def begin(self, call: Call) -> None:
        """The call may have its effect from here on. Raises AssertionError for one that nobody modelled."""
        match call.name:
            case "write" | "pwrite64":
                self._write(call)
            case "ftruncate":
                self._change(call, _Length(call.number(1)))
            case "fallocate":
                assert self._file(call) is None, "room is taken in a file that matters"
            case "fsync" | "fdatasync":
                opened = self._open.get(call.number(0))
                if opened is not None:
                    self._syncing[call] = opened.target, len(opened.target.pending)
            case "rename" | "unlink" | "mkdir":
                self._name(call)
            case "close":
                self._open.pop(call.number(0), None)
            case "open" | "openat" | "lseek":
                pass
            case "mmap":
                shared = "MAP_SHARED" in call.arguments[3] and "PROT_WRITE" in call.arguments[2]
                assert not shared or self._file(call) is None, "a file that matters is written through a map"
            case _:
                touched = [int(a) for a in call.arguments if a.isdigit() and int(a) in self._open]
                assert not touched, f"{call.name} on a file, which is not modelled"
                root = "".join(f"\\x{byte:02x}" for byte in str(self._root).encode())
                assert not any(root in a for a in call.arguments), f"{call.name} is not modelled"

    def finish(self, call: Call) -> None:
        """The call has returned."""
        match call.name:
            case "open" | "openat":
                self._opened(call, 0 if call.name == "open" else 1)
            case "lseek":
                if opened := self._open.get(call.number(0)):
                    opened.position = call.result
            case "fsync" | "fdatasync":
                target, count = self._syncing.pop(call, (None, 0))
                if target is not None:
                    _sync(target, count, failed=call.result < 0)

    def after_power_loss(self, luck: Luck) -> dict[str, bytes]:
        """One of the states that the disk may be in when the power goes now, by path below the root."""
        return dict(_state(self._top, "", luck))

    def _write(self, call: Call) -> None:
        opened = self._open.get(call.number(0))
        if opened is None or not isinstance(opened.target, _File):
            return
        data = call.data(1)[: call.result]
        if call.name == "pwrite64":
            offset = call.number(3)
        else:
            offset = opened.position
            opened.position += len(data)
        opened.target.pending.append(_Write(offset, data))

    def _change(self, call: Call, change: _Write | _Length) -> None:
        file = self._file(call)
        if file is not None:
            file.pending.append(change)

    def _file(self, call: Call) -> _File | None:
        opened = self._open.get(call.number(0 if call.name != "mmap" else 4))
        return opened.target if opened is not None and isinstance(opened.target, _File) else None

    def _name(self, call: Call) -> None:
        path = call.path(0)
        place = self._place(path)
        if place is None:
            return
        folder, name = place
        if call.name == "mkdir":
            folder.pending.append({name: _Folder()})
        elif call.name == "unlink":
            if name not in _PASSED_OVER:
                folder.pending.append({name: None})
        else:
            there = self._place(call.path(1))
            assert there is not None, "a rename out of the root is not modelled"
            assert there[0] is folder, "a rename out of its folder is not modelled"
            folder.pending.append({name: None, there[1]: folder.now()[name]})

    def _opened(self, call: Call, first: int) -> None:
        path = call.path(first)
        flags = call.arguments[first + 1]
        if path == self._root:
            self._open[call.result] = _Open(self._top)
            return
        place = self._place(path)
        self._open.pop(call.result, None)
        if place is None or place[1] in _PASSED_OVER:
            return
        folder, name = place
        target = folder.now().get(name)
        if target is None:
            assert "O_CREAT" in flags, f"{path} was opened and is not in the model"
            target = _File()
            folder.pending.append({name: target})
        elif "O_TRUNC" in flags and isinstance(target, _File):
            target.pending.append(_Length(0))
        assert "O_APPEND" not in flags, f"{path} is appended to, which is not modelled"
        self._open[call.result] = _Open(target)

    def _place(self, path: Path) -> tuple[_Folder, str] | None:
        """The folder of a path and the name in it; None for what is elsewhere."""
        if not path.is_relative_to(self._root) or path == self._root:
            return None
        folder = self._top
        *folders, name = path.relative_to(self._root).parts
        for each in folders:
            inner = folder.now()[each]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder, name


class Luck:
    """What becomes of changes that no sync has covered; ``kind`` is one of ``KINDS``."""

    KINDS = ("gone", "kept", "torn last", "some", "torn", "lengths", "names")

    def __init__(self, kind: str, seed: int) -> None:
        self._kind = kind
        self._random = random.Random(seed)

    def kept(self, change: object, *, last: bool) -> float:
        """The chance of each sector, or of a length or a set of names, to be there."""
        chance = self._random.random()
        match self._kind:
            case "gone":
                return 0.0
            case "kept":
                return 1.0
            case "torn last":
                return 0.5 if last else 1.0
            case "some":
                return float(chance < 0.5)
            case "torn":
                return chance
            case "lengths":
                return float(isinstance(change, _Length) or chance < 0.2)
            case "names":
                return float(isinstance(change, dict) or chance < 0.2)
            case _:
                raise AssertionError(self._kind)

    def falls(self, chance: float) -> bool:
        """Whether it is there."""
        return self._random.random() < chance


def _sync(target: _File | _Folder, count: int, *, failed: bool) -> None:
    if isinstance(target, _Folder):
        if not failed:
            target.names = _renamed(target.names, target.pending[:count])
            del target.pending[:count]
        return
    if not failed:
        for change in target.pending[:count]:
            _apply(target.content, change)
    del target.pending[:count]


def _renamed(
    names: dict[str, _File | _Folder], changes: list[dict[str, _File | _Folder | None]]
) -> dict[str, _File | _Folder]:
    merged: dict[str, _File | _Folder | None] = {**names}
    for change in changes:
        merged |= change
    return {name: target for name, target in merged.items() if target is not None}


def _apply(content: bytearray, change: _Write | _Length) -> None:
    if isinstance(change, _Length):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    end = change.offset + len(change.data)
    content.extend(bytes(max(0, end - len(content))))
    content[change.offset : end] = change.data


def _state(folder: _Folder, above: str, luck: Luck) -> Iterator[tuple[str, bytes]]:
    kept = [
        change
        for place, change in enumerate(folder.pending, 1)
        if luck.falls(luck.kept(change, last=place == len(folder.pending)))
    ]
    for name, target in sorted(_renamed(folder.names, kept).items()):
        if isinstance(target, _Folder):
            yield from _state(target, f"{above}{name}/", luck)
        else:
            yield above + name, _content(target, luck)


def _content(file: _File, luck: Luck) -> bytes:
    content = bytearray(file.content)
    for place, change in enumerate(file.pending, 1):
        chance = luck.kept(change, last=place == len(file.pending))
        for part in _sectors(change):
            if luck.falls(chance):
                _apply(content, part)
    return bytes(content)


def _sectors(change: _Write | _Length) -> Iterator[_Write | _Length]:
    """The parts of a change that reach the disk each for itself."""
    if isinstance(change, _Length):
        yield change
        return
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield _Write(start, change.data[start - change.offset : stop - change.offset])
        start = stop
