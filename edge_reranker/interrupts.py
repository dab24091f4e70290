"""Signals that wait. Standard library only."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of the block, which they would break half-way: main thread only.

    To block the signals in this thread is not enough: another one, such as NumPy's, would take them. What
    is ignored stays so, for a process that is started in the block inherits it.
    """
    came: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    before = {each: handler for each, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for each in before:
        signal.signal(each, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)
