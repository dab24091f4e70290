"""A real server on a real unix socket, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge_reranker.server import Server
from edge_reranker_client import EdgeReranker, discovery
from tests.server.fake_core import FakeCore


@dataclass
class Running:
    """One server that answers, with what a test needs to reach it."""

    core: FakeCore
    data_dir: Path
    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def socket(self) -> Path:
        return discovery.socket_path(self.data_dir)

    def token(self, scope: str) -> str:
        return discovery.token_path(self.data_dir, scope).read_text().strip()

    def stop(self, grace_s: float = 2.0) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(grace_s), self.loop).result(10)

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A bare channel, for what the client would never send."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            yield channel

    def bearer(self, scope: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token(scope)}"),)


@contextlib.contextmanager
def running(data_dir: Path, core: FakeCore | None = None, **options: Any) -> Iterator[Running]:
    """Serves ``core`` until the block ends; raises what starting raises."""
    core = core or FakeCore()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    socket = discovery.socket_path(data_dir)
    server = Server(core, data_dir=data_dir, **{"socket_path": socket, **options})
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        try:
            yield Running(core, data_dir, server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(1.0), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Shorter than pytest's own, because a socket's path can have about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="er-") as folder:
        yield Path(folder).resolve()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Running]:
    """A server with a fake core."""
    with running(tmp_path / "data") as it:
        yield it


@pytest.fixture
def app(served: Running) -> Iterator[EdgeReranker]:
    """A client with the app's token."""
    with EdgeReranker(data_dir=served.data_dir) as client:
        yield client


@pytest.fixture
def owner(served: Running) -> Iterator[EdgeReranker]:
    """A client with the owner's token."""
    with EdgeReranker(data_dir=served.data_dir, owner=True) as client:
        yield client
