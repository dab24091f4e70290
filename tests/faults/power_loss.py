"""Power losses at any moment of a recorded run, and what the store makes of what the disk then holds."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_reranker.errors import StoreError
from edge_reranker.store import Store
from tests.faults import trace
from tests.faults.disk import Disk, Luck
from tests.faults.trace import Call
from tests.faults.workload import BATCH, NAMESPACES

_ROOT = Path(__file__).parent.parent.parent
# So that children load this package and the code under test, and write no bytecode while they are watched.
SURROUNDINGS = {"PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path]), "PYTHONDONTWRITEBYTECODE": "1"}
_CHANGES = frozenset({"write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "unlink", "mkdir"})


@dataclass(slots=True)
class Promised:
    """What the store has promised up to some moment."""

    recorded: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)

    def take(self, line: str) -> None:
        """A line of the workload's promises."""
        mark, *ids = line.split()
        {"+": self.recorded, "?": self.asked, "-": self.forgotten}[mark].update(ids)

    def broken_by(self, kept: set[str]) -> list[str]:
        """What of it does not hold when ``kept`` is what the store has."""
        found = [f"lost: {i}" for i in sorted(self.recorded - self.asked - kept)]
        found += [f"not forgotten: {i}" for i in sorted(self.forgotten & kept)]
        batches = Counter(i.partition(".")[0] for i in kept)
        touched = {i.partition(".")[0] for i in self.asked}
        halves = {b for b, n in batches.items() if b not in touched and n not in (BATCH, 6, 40)}
        return found + [f"half a batch: {b}" for b in sorted(halves)]


@dataclass(slots=True)
class Found:
    """What was found in a number of states."""

    states: int = 0
    corrupt: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def bad(self) -> list[str]:
        """Every state that must not be, in words."""
        return self.corrupt + self.broken


@dataclass(frozen=True, slots=True)
class Recording:
    """A run of the workload: its calls, and the two places that they speak of."""

    calls: Sequence[Call]
    root: Path
    promises: Path

    def syncs_after_half_a_fold(self) -> list[int]:
        """Which of the writer's syncs are of the database after a fold that had stopped half-way.

        Those first after which most pages of that fold stay unwritten for longest. Counted from 1,
        in the writer's thread, as strace's ``when=`` does; no other thread has as many.
        """
        names: dict[int, str] = {}
        counts: Counter[str] = Counter()
        n_others = sum(c.name == "fsync" and c.thread == self.calls[0].thread for c in self.calls)
        half: set[str] = set()
        pages: set[str] = set()
        missing: dict[int, set[str]] = {}
        lasted: Counter[int] = Counter()
        for call in self.calls:
            if call.name == "openat":
                names[call.result] = call.path(1).name
            target = names.get(call.number(0)) if call.name in ("pwrite64", "fsync") else None
            if call.name == "pwrite64" and target == "store.db":
                pages.add(call.arguments[3])
            elif call.name == "fsync":
                counts[call.thread] += 1
                if target == "store.db":
                    missing = {when: lost - pages for when, lost in missing.items()}
                    lasted.update({when: len(lost) for when, lost in missing.items()})
                    if counts[call.thread] > n_others:
                        missing[counts[call.thread]] = half - pages
                    half, pages = set(), set()
                elif target == "store.db-wal":
                    # Not the sync that ends a fold: it had stopped half-way.
                    half, pages = half | pages, set()
        assert lasted, "no fold stopped half-way: the workload does not do what it is for"
        return [when for when, _ in lasted.most_common()]

    def moments(self) -> list[int]:
        """The places in the log at which something below the root changes."""
        first = next(c.begun for c in self.calls if c.name == "mkdir")
        changes = [c for c in self.calls if c.name in _CHANGES and c.begun >= first]
        return sorted({place for c in changes for place in (c.begun, c.done) if place < sys.maxsize})


def record(folder: Path, work: str, *, control: str = "", inject: Sequence[str] = ()) -> Recording:
    """Run the workload in an empty folder, under strace."""
    root = folder / "disk"
    root.mkdir(parents=True)
    promises = folder / "promises"
    command = [sys.executable, "-m", "tests.faults.workload", str(root / "data"), str(promises), work]
    calls = trace.record(
        [*command, *([control] if control else [])],
        folder / "log",
        inject=inject,
        environment=SURROUNDINGS,
    )
    return Recording(calls, root, promises)


def states(
    recording: Recording, n_states: int, seed: int
) -> Iterator[tuple[str, dict[str, bytes], Promised]]:
    """Losses spread over the run, each with its name, what the disk holds, and what was promised by then."""
    moments = recording.moments()
    rng = random.Random(seed)
    kinds = [Luck.KINDS[n % len(Luck.KINDS)] for n in range(n_states)]
    # Each kind is spread over the whole run.
    rng.shuffle(kinds)
    points = sorted(moments[n * len(moments) // n_states] for n in range(n_states))
    disk, promised = Disk(recording.root), Promised()
    promises_fd: set[int] = set()
    timeline = sorted(
        [(c.begun, 0, k) for k, c in enumerate(recording.calls)]
        + [(c.done, 1, k) for k, c in enumerate(recording.calls) if c.done < sys.maxsize]
    )
    place = 0
    for number, (point, kind) in enumerate(zip(points, kinds, strict=True)):
        while place < len(timeline) and timeline[place][0] <= point:
            _, done, k = timeline[place]
            place += 1
            call = recording.calls[k]
            (disk.finish if done else disk.begin)(call)
            if done and call.name == "openat" and call.path(1) == recording.promises:
                promises_fd.add(call.result)
            if not done and call.name == "write" and call.number(0) in promises_fd:
                promised.take(call.data(1).decode("ascii"))
        held = disk.after_power_loss(Luck(kind, seed * 1_000_003 + number))
        yield f"{kind}, at line {point} of the log, state {number}", held, promised


def examine(recording: Recording, n_states: int, seed: int) -> Found:
    """Open the store in each of the states and see whether it keeps what it promised."""
    found = Found()
    # In memory where that can be: what is measured is what the store makes of the bytes.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="er-", dir=memory if memory.is_dir() else None) as scratch:
        place = Path(scratch) / "data"
        for name, held, promised in states(recording, n_states, seed):
            found.states += 1
            place.mkdir(mode=0o700)
            for path, content in held.items():
                inside, _, rest = path.partition("/")
                assert inside == "data"
                (place / rest).write_bytes(content)
            try:
                kept = _open(place)
            except StoreError as e:
                found.corrupt.append(f"{name}: {e}")
            else:
                broken = promised.broken_by(kept)
                if broken:
                    found.broken.append(f"{name}: {', '.join(broken[:3])}")
            shutil.rmtree(place)
    return found


def _open(data_dir: Path) -> set[str]:
    """The ids of all events; raises StoreError for a store that does not open or is not sound."""
    with Store.open(data_dir, key_source="file") as store:
        wrong = store.check()
        if wrong:
            raise StoreError(f"unsound: {wrong[:2]}")
        return {e.event_id for namespace in NAMESPACES for e in store.context(namespace, 100_000).events}
