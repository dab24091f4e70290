"""What the device lends to the model: its physical cores, within the quota of the control group."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

# More threads than this wait for memory rather than compute, on what people carry about.
_MOST = 4


def n_threads(cpus: set[int] | None = None, root: Path = Path("/")) -> int:
    """Threads for a model: one a physical core, within the quota of this process; 1 to 4.

    ``cpus`` are the processors to be had, by default those this process may run on; /sys and /proc are in
    ``root``.
    """
    cores = physical_cores(usable_cpus() if cpus is None else cpus, root)
    return max(1, int(min(cores, cpu_quota(root), _MOST)))


def usable_cpus() -> set[int]:
    """Numbers of the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores(cpus: set[int], root: Path) -> int:
    """How many cores the processors ``cpus`` are: two that share one compute as fast as one.

    A processor of which the kernel tells nothing counts as a core.
    """
    return len({_core(cpu, root) for cpu in cpus})


def _core(cpu: int, root: Path) -> tuple[str, ...]:
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    try:
        return tuple((topology / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        return (f"cpu{cpu}",)


def cpu_quota(root: Path) -> float:
    """Processors' worth of time that the control groups of this process allow; ``inf`` without a limit."""
    return min(_quotas(root), default=math.inf)


def _quotas(root: Path) -> Iterator[float]:
    """Every limit on the way up: a group has no more than those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if not controllers:  # version 2
            for group in _and_above(mounts, path):
                yield _ratio(*_words(group / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                for group in _and_above(mounts / name, path):
                    yield _ratio(*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us"))


def _and_above(mount: Path, path: str) -> Iterator[Path]:
    """The group and those around it; in a container only some of them can be seen."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (OSError, ValueError):
        return []


def _ratio(*words: str) -> float:
    """Quota by period, both in microseconds; "max" and -1 mean no limit, as do files that are not there."""
    try:
        quota_us, period_us = (float(word) for word in words)
    except ValueError:
        return math.inf
    return quota_us / period_us if quota_us > 0 and period_us > 0 else math.inf
