"""Export and Import: long calls, a piece at a time, at the pace of their client."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

from edge_reranker.errors import Overloaded
from edge_reranker.server import lines, read_lines
from edge_reranker.server.core import Core, Import
from edge_reranker.server.workers import Workers
from edge_reranker.types import Recorded

MOST = 4


class Transfers:
    """At most ``MOST`` exports and imports at once; one more raises Overloaded. For one event loop.

    Between two pieces a call has no thread: how slow its client is costs nobody anything.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._n = 0
        # More threads than calls: that of a call which was cut off may still be at its last piece.
        self._workers = Workers("transfer", 2 * MOST)

    async def export(self, namespace: str) -> AsyncIterator[bytes]:
        """An export in chunks."""
        with self._place():
            chunks = lines.chunks(self._core.export(namespace))
            while (chunk := await self._workers.run(lambda: next(chunks, None))) is not None:
                yield chunk

    async def import_(self, namespace: str, chunks: AsyncIterator[bytes]) -> Recorded:
        """Takes an export in, all of it or nothing. Raises InvalidArgument for the first bad line."""
        with self._place():
            taking = _Import(self._core, namespace)
            try:
                async for chunk in chunks:
                    await self._workers.run(lambda chunk=chunk: taking.feed(chunk))  # type: ignore[misc]
                return await self._workers.run(taking.finish)
            finally:
                taking.close()

    def close(self) -> None:
        """Takes no more work and waits for none."""
        self._workers.close()

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._n == MOST:
            raise Overloaded(f"{MOST} exports and imports are under way already; try again when one is done")
        self._n += 1
        try:
            yield
        finally:
            self._n -= 1


class _Import:
    """One import, whose ``close`` may come while a thread is still at it; that one then closes."""

    def __init__(self, core: Core, namespace: str) -> None:
        self._lines = read_lines.Lines(time.time())
        # Begun in a thread, by the first piece: it makes a file.
        self._begin = partial(core.importing, namespace)
        self._taken: Import | None = None
        self._closed = False
        self._lock = threading.Lock()

    def feed(self, chunk: bytes) -> None:
        with self._working() as taken:
            for line, record in self._lines.feed(chunk):
                if self._closed:
                    return
                with read_lines.in_line(line):
                    taken.add(line, record)

    def finish(self) -> Recorded:
        with self._working() as taken:
            self._lines.finish()
            return taken.finish()

    def close(self) -> None:
        """Leaves nothing behind, now or as soon as a thread is done. Never waits. Idempotent."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                if self._taken is not None:
                    self._taken.close()
            finally:
                self._lock.release()

    @contextlib.contextmanager
    def _working(self) -> Iterator[Import]:
        try:
            with self._lock:
                if self._taken is None:
                    self._taken = self._begin()
                yield self._taken
        except BaseException:
            self._closed = True
            raise
        finally:
            if self._closed:
                self.close()
