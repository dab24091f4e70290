"""The command line, and the only place that wires real parts together."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from edge_reranker import crashes


def main() -> None:
    """Entry point of ``edge-reranker``."""
    try:
        # Before the imports, which take half a second, or many on a busy board. A command that is told
        # to stop cleans up as it does for Ctrl-C; `serve` has handlers of its own.
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)
        # Many a command holds the user's events, or the key, in memory.
        crashes.leave_nothing()
        # With it gRPC would write tokens, and what is sent with them, to standard error.
        os.environ.pop("GRPC_TRACE", None)
        _imported()()
    except KeyboardInterrupt:
        sys.exit(130)  # while importing, or right before or after the command


class _Stopped(KeyboardInterrupt):
    """Not a KeyboardInterrupt itself: CPython remembers one that came inside `exec` of a text, which
    dataclasses use on import, and in the end kills itself with SIGINT although it was handled.
    """


def _stop(*_: object) -> None:
    raise _Stopped


def _imported() -> Callable[[], None]:
    try:
        from edge_reranker.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(
            f"Error: {error.name} is not installed; the commands need `pip install 'edge-reranker[device]'`"
        )
    return run
