"""Threads for the core's synchronous methods: the event loop never waits for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from edge_reranker.errors import Overloaded

T = TypeVar("T")


class Workers:
    """At most ``most`` calls at once, each in a thread of its own, so that none waits for a slower one.

    What a call waits for (the model, the disk) it waits for in its thread, with its deadline. One call
    too many raises Overloaded at once. A call that its client gave up on keeps its place until its
    thread is done: its work sees that no time is left, or its deadline comes.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._free = threading.Semaphore(most)
        self._threads = ThreadPoolExecutor(max_workers=most, thread_name_prefix=f"edge-reranker-{name}")

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises; raises Overloaded."""
        return await asyncio.wrap_future(self._submit(work))

    async def stream(self, work: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
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

        future = self._submit(produce)
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

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if not self._free.acquire(blocking=False):
            raise Overloaded(
                f"{self._most} {self._name} calls are being worked on already; try again shortly"
            )
        try:
            future = self._threads.submit(work)
        except BaseException:
            self._free.release()
            raise
        future.add_done_callback(self._release)
        return future

    def _release(self, _: Future[Any]) -> None:
        self._free.release()
