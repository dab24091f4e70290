"""``python -m benchmarks [NAME ...]``: all benchmarks, or those named. Exit code 1 when a bound is missed."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "quality",
    "request",
    "shipped",
    "overhead",
    "tier2",
    "cross",
    "hot",
    "encode",
    "encoders",
    "deadlines",
    "concurrent",
    "memory",
    "take_along",
    "idle",
    "survival",
    "durability",
    "mutants",
    "busy",
    "client_import",
    "contention",
    "logs",
    "flips",
    "backup",
    "retention",
    "isolation",
    "store_size",
    "choices",
)
# Minutes each: only when named.
LONG = ("modes",)


def main() -> None:
    """Runs the benchmarks one after another; their JSON lines go to standard output, the rest to error."""
    missed = []
    for name in sys.argv[1:] or NAMES:
        if name not in (*NAMES, *LONG):
            sys.exit(f"no benchmark is called {name!r}; there are {', '.join((*NAMES, *LONG))}")
        print(f"# {name}", file=sys.stderr, flush=True)
        if not importlib.import_module(f"benchmarks.{name}").main():
            missed.append(name)
    if missed:
        sys.exit(f"missed a bound: {', '.join(missed)}")


main()
