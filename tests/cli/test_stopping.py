"""Commands that are told to stop: what ends, with which code, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service import Run, catches, children, serving, surroundings


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_service_leaves_nothing_behind(
    data_dir: Path, cache_dir: Path, signal_: signal.Signals
) -> None:
    with serving(data_dir, cache_dir, "--model", "none") as process:
        process.send_signal(signal_)
        assert process.wait(timeout=20) == 0
        left = {path.name for path in data_dir.rglob("*") if path.is_file() or path.is_socket()}
    assert left == {"store.db", "key", "key-check", "reserve", "app.token", "owner.token"}


@pytest.mark.model
def test_a_stopped_service_leaves_no_worker(data_dir: Path, cache_dir: Path, run: Run) -> None:
    with serving(data_dir, cache_dir) as process:
        workers = children(process.pid)
        assert workers, "the model's worker is a process of its own"
        process.kill()  # however it ends
        process.wait(timeout=20)
        process.returncode = 0
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and state(pid) != "Z" for pid in workers):
        assert time.monotonic() < until, "a worker outlived its service"
        time.sleep(0.05)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_command_begins_ends_it_like_one_later(signal_: signal.Signals) -> None:
    """It comes right after its handler is set, where no command is there yet to take it."""
    script = (
        "import os, signal, sys\n"
        "real = signal.signal\n"
        "def set_and_send(number, handler):\n"
        "    real(number, handler)\n"
        f"    if number == {int(signal_)}: os.kill(os.getpid(), number)\n"
        "signal.signal = set_and_send\n"
        "sys.argv = ['edge-reranker', '--help']\n"
        "from edge_reranker.cli import main\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "")


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_command_imports_ends_it_like_one_later(
    tmp_path: Path, signal_: signal.Signals
) -> None:
    """It comes inside an `exec`, as dataclasses use it: CPython would kill itself for an interrupt there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, os, signal\n"
        "set_handler, run, armed = signal.signal, builtins.exec, []\n"
        "def watched(number, handler):\n"
        "    armed.append(number)\n"
        "    return set_handler(number, handler)\n"
        "def disturbed(source, *spaces):\n"
        f"    first = 'import os; os.kill(os.getpid(), {int(signal_)})\\nfor _ in range(9): pass\\n'\n"
        "    return run(first + source if armed and isinstance(source, str) else source, *spaces)\n"
        "signal.signal, builtins.exec = watched, disturbed\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "edge_reranker.cli", "demo", "--model", "none"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "EDGE_RERANKER_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 130
    assert "Traceback" not in found.stderr


@pytest.mark.model
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "moment",
    [
        lambda pid, _: catches(pid, signal.SIGTERM),  # before it, Python itself starts: it ends as it likes
        lambda pid, _: children(pid),
        lambda _, folder: list(folder.glob("*/s.sock")),
    ],
    ids=["importing", "starting the service", "served"],
)
def test_a_stopped_demo_leaves_neither_service_nor_folder(
    tmp_path: Path,
    data_dir: Path,
    cache_dir: Path,
    signal_: signal.Signals,
    moment: Callable[[int, Path], object],
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_reranker.cli", "demo"],
        env=surroundings(data_dir, cache_dir) | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not moment(process.pid, tmp_path):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    started = children(process.pid)
    process.send_signal(signal_)
    assert process.wait(timeout=30) == 130
    assert all(state(pid) == "Z" for pid in started)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.model
@pytest.mark.parametrize("in_native_code", [False, True])
def test_ctrl_c_while_a_model_is_made_stops_the_pull(
    tmp_path: Path, cache_dir: Path, in_native_code: bool
) -> None:
    """The source is there, so the pull begins to quantise at once; it stops, and leaves no part."""
    folder = tmp_path / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").symlink_to(
        cache_dir / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edge_reranker.cli",
            "model",
            "pull",
            "smollm2-135m",
            "--cache-dir",
            str(tmp_path),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "making the encoder" in process.stderr.readline()
    # Either before native code has begun, or while it writes.
    while in_native_code and not any(part.stat().st_size for part in folder.glob(".*.part")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
