"""The power goes at any moment, and nothing that was acknowledged is lost.

What a process writes is recorded with strace, and the states that a disk may then hold are made of that and
opened.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.faults import power_loss, trace
from tests.faults.disk import SECTOR, Disk, Luck
from tests.faults.power_loss import Promised, Recording, examine, record
from tests.faults.trace import Call

pytestmark = pytest.mark.skipif(not trace.usable(), reason=trace.INSTALL)

_N_STATES = 420
_SEED = 20_261_125


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A run of the store as it is."""
    return record(tmp_path_factory.mktemp("recorded"), "run")


def test_nothing_acknowledged_is_lost_and_nothing_forgotten_comes_back(recorded: Recording) -> None:
    """From the store's making on, through checkpoints, shared commits, forgets and a second opening."""
    found = examine(recorded, _N_STATES, _SEED)
    assert found.states == _N_STATES
    assert found.bad == []


def test_without_any_sync_the_harness_finds_corrupt_states(tmp_path: Path) -> None:
    found = examine(record(tmp_path, "run", control="OFF"), 60, _SEED)
    assert found.corrupt
    assert found.broken


def test_without_a_sync_per_commit_the_harness_finds_lost_events(tmp_path: Path) -> None:
    found = examine(record(tmp_path, "run", control="NORMAL"), 60, _SEED)
    assert found.corrupt == []
    assert any("lost" in each for each in found.broken)


@pytest.mark.parametrize("when", ["30+7", "35..38", "50..53"])
def test_what_a_disk_failed_to_sync_is_not_acknowledged_later(tmp_path: Path, when: str) -> None:
    """The batch is sent again after the error, and is in the log by then: but not on the disk."""
    found = examine(record(tmp_path, "alone", inject=[f"fsync:error=EIO:when={when}"]), 40, _SEED)
    assert found.bad == []


def test_what_was_folded_in_before_a_sync_failed_is_folded_in_again(tmp_path: Path) -> None:
    """A reader stopped the fold half-way, and its second half is what the sync failed for."""
    syncs = record(tmp_path / "plain", "persist").syncs_after_half_a_fold()
    found = examine(record(tmp_path / "failed", "persist", inject=failing(syncs[0])), 40, _SEED)
    assert found.bad == []
    # How batches share commits differs from run to run, so in a run of its own it may be the next one.
    assert any(
        examine(
            record(tmp_path / f"control{when}", "persist", inject=failing(when), control="trusting"),
            40,
            _SEED,
        ).bad
        for when in syncs[:8]
    )


def failing(when: int) -> list[str]:
    return [f"fsync:error=EIO:when={when}"]


def test_a_writer_that_trusts_a_failed_sync_is_found_out(tmp_path: Path) -> None:
    recording = record(tmp_path, "alone", inject=["fsync:error=EIO:when=35..38"], control="trusting")
    assert any("lost" in each for each in examine(recording, 40, _SEED).broken)


@pytest.fixture
def disk() -> Disk:
    """With one file "f", open as 5, whose name is durable and which holds two sectors of "a"."""
    made = Disk(Path("/d"))
    _do(made, "openat", "AT_FDCWD", _quoted(b"/d"), "O_RDONLY|O_DIRECTORY", result=4)
    _do(made, "openat", "AT_FDCWD", _quoted(b"/d/f"), "O_RDWR|O_CREAT", result=5)
    _write(made, b"a" * 2 * SECTOR, 0)
    _do(made, "fsync", "5")
    _do(made, "fsync", "4")
    return made


def _do(disk: Disk, name: str, *arguments: str, result: int = 0) -> None:
    call = Call(name, "1", arguments, result, 0, 0, False)
    disk.begin(call)
    disk.finish(call)


def _write(disk: Disk, data: bytes, offset: int) -> None:
    _do(disk, "pwrite64", "5", _quoted(data), str(len(data)), str(offset), result=len(data))


def _quoted(data: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'


def _may_hold(disk: Disk) -> set[bytes | None]:
    return {disk.after_power_loss(Luck(kind, seed)).get("f") for kind in Luck.KINDS for seed in range(30)}


def test_what_was_synced_is_there(disk: Disk) -> None:
    assert _may_hold(disk) == {b"a" * 2 * SECTOR}


def test_a_write_without_a_sync_may_be_gone_there_or_torn_at_a_sector(disk: Disk) -> None:
    _write(disk, b"b" * 2 * SECTOR, 0)
    halves = {bytes([x]) * SECTOR + bytes([y]) * SECTOR for x in b"ab" for y in b"ab"}
    assert _may_hold(disk) == halves


def test_writes_reach_the_disk_in_any_order(disk: Disk) -> None:
    _write(disk, b"b", 0)
    _write(disk, b"c", 1)
    assert {(held or b"")[:2] for held in _may_hold(disk)} == {b"aa", b"ba", b"ac", b"bc"}


def test_a_name_without_a_sync_of_its_folder_may_be_the_old_or_the_new(disk: Disk) -> None:
    _do(disk, "rename", _quoted(b"/d/f"), _quoted(b"/d/g"))
    names = {frozenset(disk.after_power_loss(Luck(kind, seed))) for kind in Luck.KINDS for seed in range(30)}
    assert names == {frozenset({"f"}), frozenset({"g"})}


def test_a_write_that_began_during_a_sync_is_not_covered_by_it(disk: Disk) -> None:
    sync = Call("fsync", "1", ("5",), 0, 0, 0, False)
    disk.begin(sync)
    _write(disk, b"b", 0)
    disk.finish(sync)
    assert b"a" * 2 * SECTOR in _may_hold(disk)


def test_a_sync_that_fails_drops_what_it_should_have_kept_and_the_next_is_no_help(
    disk: Disk,
) -> None:
    _write(disk, b"b", 0)
    _do(disk, "fsync", "5", result=-1)
    _do(disk, "fsync", "5")
    assert _may_hold(disk) == {b"a" * 2 * SECTOR}


def test_a_call_that_nobody_modelled_is_an_error(disk: Disk) -> None:
    with pytest.raises(AssertionError, match="not modelled"):
        _do(disk, "writev", "5", "[...]", result=1)


def test_promises_that_are_broken_are_named() -> None:
    promised = Promised()
    for line in ("+ a.0 a.1 a.2", "+ b.0 b.1 b.2", "? b.0", "- b.0"):
        promised.take(line)
    assert promised.broken_by({"a.0", "a.1", "a.2", "b.1", "b.2"}) == []
    assert promised.broken_by({"a.0", "a.1", "b.0", "b.1", "b.2", "c.0"}) == [
        "lost: a.2",
        "not forgotten: b.0",
        "half a batch: a",
        "half a batch: c",
    ]


def test_a_state_is_named_so_that_it_can_be_made_again(recorded: Recording) -> None:
    first, second = (list(power_loss.states(recorded, 20, _SEED)) for _ in range(2))
    assert [(name, held) for name, held, _ in first] == [(name, held) for name, held, _ in second]
    assert dataclasses.asdict(first[-1][2])["recorded"]
