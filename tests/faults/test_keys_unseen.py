"""The key and the tokens are where they are kept, and nowhere that other programs can look."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_reranker_client import EdgeReranker
from tests.faults.canaries import Marker, files_with, found_in
from tests.service import children, environment, open_files, serving

pytestmark = pytest.mark.model


@dataclass(frozen=True, slots=True)
class Running:
    """A service that has used its key, with its worker; what it said comes when it ends."""

    process: subprocess.Popen[str]
    data_dir: Path

    @property
    def pids(self) -> list[int]:
        return [self.process.pid, *children(self.process.pid)]

    @property
    def secrets(self) -> list[bytes]:
        key = (self.data_dir / "key").read_bytes().strip()
        tokens = [path.read_bytes().strip() for path in (self.data_dir / "tokens").iterdir()]
        return [key, bytes.fromhex(key.decode()), *tokens]


@pytest.fixture(scope="module")
def running(cache_dir: Path) -> Iterator[Running]:
    with contextlib.ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="er-")))
        process = stack.enter_context(serving(data_dir, cache_dir))
        client = stack.enter_context(EdgeReranker(data_dir=data_dir))
        marker = Marker.new()
        client.record(marker.events(10))
        client.rerank(marker.candidates(10))
        yield Running(process, data_dir)


def seen(data: bytes, running: Running) -> list[str]:
    assert data, "the test's own premise: there is something to look at"
    return [form for secret in running.secrets for form in found_in(data, secret)]


def test_no_key_is_in_a_command_line(running: Running) -> None:
    assert len(running.pids) == 2
    for pid in running.pids:
        assert seen(Path(f"/proc/{pid}/cmdline").read_bytes(), running) == []


def test_no_key_is_in_an_environment(running: Running) -> None:
    for pid in running.pids:
        assert seen(environment(pid), running) == []


def test_no_key_is_in_a_file_that_is_mapped_into_memory_or_open(running: Running) -> None:
    for pid in running.pids:
        links = open_files(pid)
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        mapped = {line.split(maxsplit=5)[5] for line in maps if len(line.split(maxsplit=5)) == 6}
        paths = {Path(name) for name in {*mapped, *links} if name.startswith("/") and "/dev/" not in name}
        ours = {path for path in paths if path.is_relative_to(running.data_dir)}
        assert bool(ours) == (pid == running.process.pid), (
            "the service has the store open, the worker has not"
        )
        # Libraries and the model are large, shared, and written by others.
        assert [found for secret in running.secrets for found in files_with(ours, secret)] == []
        assert running.data_dir / "key" not in paths


def test_no_key_is_in_what_the_service_says(running: Running) -> None:
    secrets = running.secrets
    running.process.terminate()
    assert running.process.stderr is not None
    said = running.process.stderr.read().encode()
    assert said.startswith(b"serving on ")
    assert [form for secret in secrets for form in found_in(said, secret)] == []


def test_a_key_that_is_handed_over_openly_is_found() -> None:
    """The control."""
    key = Marker.new().word
    command = [sys.executable, "-c", "print(flush=True); input()", key]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env={"KEY": key}, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            for place in ("cmdline", "environ"):
                assert found_in(Path(f"/proc/{process.pid}/{place}").read_bytes(), key.encode())
        finally:
            process.kill()
