"""Threads for the core's synchronous methods: the event loop never waits for one."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edge_reranker.errors import Overloaded

T = TypeVar("T")


# Of all apps together, as a multiple of one app's: what threads and lists in flight may take of the memory.
_ALL = 4


class Workers:
    """At most ``most`` calls of an app at once, each in a thread of its own: none waits for a slower one.

    All apps together have four times as many, and whoever has none under way gets one in any case: an app
    that floods takes nobody's place. What a call waits for (the model, the disk) it waits for in its thread,
    with its deadline. One call too many raises Overloaded at once. A call that its client gave up on keeps
    its place until its thread is done: its work sees that no time is left, or its deadline comes.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        # Threads are made as they are needed; their number is bounded where calls are let in.
        self._threads = ThreadPoolExecutor(max_workers=10_000, thread_name_prefix=f"edge-reranker-{name}")

    async def run(self, work: Callable[[], T], *, app: str = "") -> T:
        """What ``work`` returns or raises; raises Overloaded. ``app`` is whose call it is."""
        return await asyncio.wrap_future(self._submit(work, app))

    async def stream(self, work: Callable[[], Iterator[T]], *, app: str = "") -> AsyncIterator[T]:
        """What ``work`` yields, as it comes; raises Overloaded.

        Once the consumer stops, the producer is closed at its next item.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
        stopped = threading.Event()

        def put(entry: tuple[T] | None) -> None:
            if not stopped.is_set():
                loop.call_soon_threadsafe(queue.put_nowait, entry)

        def produce() -> None:
            items = work()
            try:
                for item in items:
                    if stopped.is_set():
                        break
                    put((item,))
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()

        future = self._submit(produce, app)
        future.add_done_callback(lambda _: put(None))
        try:
            while (entry := await queue.get()) is not None:
                yield entry[0]
            future.result()
        finally:
            stopped.set()
            future.cancel()

    def close(self) -> None:
        """Takes no more work and waits for none; what runs ends with its own deadline."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], T], app: str) -> Future[T]:
        with self._lock:
            mine = self._under_way[app]
            if mine >= self._most or (mine and self._under_way.total() >= _ALL * self._most):
                raise Overloaded(f"{mine} {self._name} calls are being worked on already; try again shortly")
            self._under_way[app] += 1
        try:
            future = self._threads.submit(work)
        except BaseException:
            self._release(app)
            raise
        future.add_done_callback(lambda _: self._release(app))
        return future

    def _release(self, app: str) -> None:
        with self._lock:
            self._under_way[app] -= 1
            if not self._under_way[app]:
                del self._under_way[app]
