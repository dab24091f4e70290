"""One instance, one private socket, and nothing of others deleted."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_reranker.errors import AlreadyRunning, FailedPrecondition
from edge_reranker.server import InstanceLock
from edge_reranker.server.listen import MAX_SOCKET_PATH_BYTES
from edge_reranker_client import EdgeReranker, discovery
from tests.server.fixtures import running

ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listening(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    it = socket.socket(socket.AF_UNIX)
    it.bind(str(path))
    it.listen()
    return it


@pytest.mark.usefixtures("open_umask")
def test_socket_and_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    with running(tmp_path / "data") as it:
        assert stat.S_ISSOCK(it.socket.stat().st_mode)
        assert mode(it.socket) == 0o600
        assert mode(it.socket.parent) == 0o700
        assert mode(it.data_dir) == 0o700
        # The umask in force is the caller's own again.
        assert os.umask(0) == 0


def test_directories_that_were_open_are_closed(tmp_path: Path) -> None:
    run = tmp_path / "data" / "run"
    run.mkdir(parents=True)
    run.chmod(0o777)
    run.parent.chmod(0o755)
    with running(tmp_path / "data"):
        assert (mode(run), mode(run.parent)) == (0o700, 0o700)


def test_second_server_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        with pytest.raises(AlreadyRunning, match=str(tmp_path)), running(tmp_path):
            pass
        with pytest.raises(AlreadyRunning), running(tmp_path, socket_path=tmp_path / "other.sock"):
            pass
        assert not (tmp_path / "other.sock").exists()
        with EdgeReranker(data_dir=first.data_dir) as client:
            assert client.healthy()


def test_socket_of_another_live_service_is_not_stolen(tmp_path: Path) -> None:
    with running(tmp_path / "one") as first:
        with (
            pytest.raises(AlreadyRunning, match="another service answers here"),
            running(tmp_path / "two", socket_path=first.socket),
        ):
            pass
        with EdgeReranker(data_dir=first.data_dir) as client:
            assert client.healthy()


def test_stop_leaves_tokens_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        it.stop()
        files = sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if not each.is_dir())
        assert files == ["tokens/app.token", "tokens/owner.token"]


def test_server_starts_again_at_once_and_its_socket_stays(tmp_path: Path) -> None:
    for _ in range(5):
        with running(tmp_path) as it, EdgeReranker(data_dir=tmp_path) as client:
            assert client.healthy()
            assert it.socket.exists()


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = discovery.socket_path(tmp_path)
    listening(path).close()
    with running(tmp_path), EdgeReranker(data_dir=tmp_path) as client:
        assert client.healthy()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_file_in_the_way_is_named_and_kept(tmp_path: Path, make: object) -> None:
    path = discovery.socket_path(tmp_path)
    path.parent.mkdir()
    make(path)  # type: ignore[operator]
    with pytest.raises(FailedPrecondition, match="not a socket is in the way; move it"), running(tmp_path):
        pass
    assert os.path.lexists(path)


def test_somebody_elses_new_socket_survives_our_stop(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        it.socket.unlink()
        other = listening(it.socket)
        inode = it.socket.stat().st_ino
        it.stop()
        # gRPC itself removes the path on its way out on some versions; what we promise is not to add to it.
        assert not it.socket.exists() or it.socket.stat().st_ino == inode
        other.close()


def test_refused_start_leaves_no_lock_behind(tmp_path: Path) -> None:
    path = discovery.socket_path(tmp_path)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(FailedPrecondition), running(tmp_path):
        pass
    path.unlink()
    with running(tmp_path), EdgeReranker(data_dir=tmp_path) as client:
        assert client.healthy()


def test_path_too_long_for_a_socket_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_SOCKET_PATH_BYTES)
    with (
        pytest.raises(FailedPrecondition, match=rf"can have {MAX_SOCKET_PATH_BYTES} bytes, this one has \d+"),
        running(tmp_path / "data", socket_path=path),
    ):
        pass


def test_longest_path_works() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x" * (MAX_SOCKET_PATH_BYTES - len(os.fsencode(folder)) - 1))
        data_dir = Path(folder) / "data"
        with running(data_dir, socket_path=path), EdgeReranker(path, data_dir=data_dir) as client:
            assert client.healthy()


@pytest.mark.parametrize("name", ["with space", "é", "100%41", "a#b?c", "a+b"])
def test_signs_in_a_path_do_no_harm(tmp_path: Path, name: str) -> None:
    with running(tmp_path / name) as it, EdgeReranker(data_dir=it.data_dir) as client:
        assert client.rerank([{"id": "a"}]).ids == ("a",)
        assert it.socket.exists()


def test_comma_in_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot have a comma"), running(tmp_path / "a,b"):
        pass


def test_directory_where_others_can_write_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with (
        pytest.raises(FailedPrecondition, match="other users can write here"),
        running(tmp_path / "data", socket_path=shared / "s.sock"),
    ):
        pass
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


def test_lock_taken_by_the_caller_is_used_and_kept(tmp_path: Path) -> None:
    with InstanceLock(tmp_path) as lock:
        with running(tmp_path, lock=lock) as it, EdgeReranker(data_dir=it.data_dir) as client:
            assert client.healthy()
        assert lock.held
        with pytest.raises(AlreadyRunning):
            InstanceLock(tmp_path).acquire()
    InstanceLock(tmp_path).acquire()


def test_lock_has_one_holder_at_a_time_even_as_its_file_comes_and_goes(tmp_path: Path) -> None:
    holders: list[int] = []
    most = []

    def hold_often() -> int:
        taken = 0
        for _ in range(300):
            lock = InstanceLock(tmp_path)
            try:
                lock.acquire()
            except AlreadyRunning:
                continue
            taken += 1
            holders.append(1)
            most.append(len(holders))
            holders.pop()
            lock.release()
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = sum(each.result() for each in [threads.submit(hold_often) for _ in range(4)])
    assert taken >= 300
    assert max(most) == 1
    assert list(tmp_path.iterdir()) == []


def test_lock_file_removed_just_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    removed: list[bool] = []

    def remove_first(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(True)
            (tmp_path / "serve.lock").unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with InstanceLock(tmp_path), pytest.raises(AlreadyRunning):
        InstanceLock(tmp_path).acquire()


@pytest.mark.parametrize("mode", [0o1777, 0o1700])
def test_shared_directory_is_no_data_directory_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(FailedPrecondition, match="shared with other users"), running(tmp_path):
        pass
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == []


SERVE = """
import asyncio, sys
from pathlib import Path
from edge_reranker.server import Server
from tests.server.fake_core import FakeCore

async def main(data_dir):
    server = Server(FakeCore(), data_dir=data_dir, socket_path=data_dir / "run" / "edge-reranker.sock")
    await server.start()
    print("up", flush=True)
    await server.serve()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_killed_server_leaves_nothing_that_stops_the_next_one(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        with pytest.raises(AlreadyRunning), running(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert discovery.socket_path(tmp_path).exists()
    start_s = time.monotonic()
    with running(tmp_path), EdgeReranker(data_dir=tmp_path) as client:
        assert client.healthy()
    assert time.monotonic() - start_s < 5
