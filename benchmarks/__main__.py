"""``python -m benchmarks [NAME ...]``: all benchmarks, or those named. Exit code 1 when a bound is missed."""

from __future__ import annotations

import importlib
import sys

from benchmarks.names import LONG, NAMES, purpose


def main() -> None:
    """Runs the benchmarks one after another; their JSON lines go to standard output, the rest to error."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help())
        return
    missed = []
    for name in sys.argv[1:] or NAMES:
        if name not in (*NAMES, *LONG):
            sys.exit(f"no benchmark is called {name!r}; there are {', '.join((*NAMES, *LONG))}")
        print(f"# {name}", file=sys.stderr, flush=True)
        if not importlib.import_module(f"benchmarks.{name}").main():
            missed.append(name)
    if missed:
        sys.exit(f"missed a bound: {', '.join(missed)}")


def _help() -> str:
    lines = ["python -m benchmarks [NAME ...]: all, or those named; one JSON line each.", ""]
    lines += [f"  {name:<14} {purpose(name)}" for name in NAMES]
    lines += ["", "Only when named, for they take long:", ""]
    lines += [f"  {name:<14} {purpose(name)}" for name in LONG]
    return "\n".join(lines)


main()
