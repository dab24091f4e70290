"""Threads for the model, from made-up devices."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edge_reranker.engine import device


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def topology(root: Path, cores: dict[int, tuple[int, int]]) -> None:
    for cpu, (package, core) in cores.items():
        folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
        write(root, {f"{folder}/physical_package_id": str(package), f"{folder}/core_id": str(core)})


def test_two_processors_of_one_core_count_once(tmp_path: Path) -> None:
    topology(tmp_path, {0: (0, 0), 1: (0, 1), 2: (0, 0), 3: (0, 1)})
    assert device.physical_cores({0, 1, 2, 3}, tmp_path) == 2


def test_cores_of_two_packages_are_different_ones(tmp_path: Path) -> None:
    topology(tmp_path, {0: (0, 0), 1: (1, 0)})
    assert device.physical_cores({0, 1}, tmp_path) == 2


def test_only_processors_that_this_process_may_use_count(tmp_path: Path) -> None:
    topology(tmp_path, {cpu: (0, cpu) for cpu in range(8)})
    assert device.physical_cores({2, 3, 5}, tmp_path) == 3


def test_without_a_topology_every_processor_is_a_core(tmp_path: Path) -> None:
    assert device.physical_cores({0, 1, 2}, tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "max 100000"}, math.inf),
        # The group around it has less; and in a container the inner path may not be there.
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
                "sys/fs/cgroup/a/cpu.max": "200000 100000",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "0::/../out", "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            math.inf,
        ),
        ({"proc/self/cgroup": "nonsense\n0::/a", "sys/fs/cgroup/a/cpu.max": "what is this"}, math.inf),
    ],
)
def test_the_quota_is_the_least_on_the_way_up(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    write(tmp_path, files)
    assert device.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("n_cores", "cpu_max", "threads"),
    [
        (2, "max 100000", 2),
        (8, "max 100000", 4),
        (8, "250000 100000", 2),
        (8, "20000 100000", 1),
    ],
)
def test_threads_are_cores_within_the_quota_at_least_one_at_most_four(
    tmp_path: Path, n_cores: int, cpu_max: str, threads: int
) -> None:
    topology(tmp_path, {cpu: (0, cpu) for cpu in range(n_cores)})
    write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": cpu_max})
    assert device.n_threads(set(range(n_cores)), tmp_path) == threads
