"""``python -m benchmarks.table LINES > benchmarks/README.md``: the JSON lines of a run as tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from benchmarks.names import LONG, NAMES, purpose

_PACKAGES = ("llama_cpp_python", "grpcio", "protobuf", "numpy", "sqlcipher3", "bm25s")


def main() -> None:
    """What there is, one table of bounds, then each benchmark's figures."""
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    print("\n".join([*_head(), "", *_purposes(lines), "", *_bounds(lines), *_figures(lines)]))


def _head() -> Iterator[str]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    commit = subprocess.run(
        ["/usr/bin/env", "git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    yield "# Benchmarks"
    yield ""
    yield "Made by `make bench > lines.jsonl`, then `python -m benchmarks.table lines.jsonl`."
    yield "Ratios compare what ran interleaved in one run; times alone are this machine's."
    yield ""
    yield f"- machine: {_processor()}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"
    yield f"- versions: Python {platform.python_version()}, {versions}"
    yield f"- commit: {commit}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "unknown")


def _purposes(lines: list[dict[str, object]]) -> Iterator[str]:
    """Of all, the ones that were not run too: those have no figures below."""
    run = {line["benchmark"] for line in lines}
    yield "Each alone: `python -m benchmarks NAME` (`--help` lists them)."
    yield ""
    yield "| benchmark | what | figures below |"
    yield "|---|---|---|"
    for name in (*NAMES, *LONG):
        long = "; only when named" if name in LONG else ""
        yield f"| {name} | {purpose(name)} | {'yes' if name in run else 'not run' + long} |"


def _bounds(lines: list[dict[str, object]]) -> Iterator[str]:
    yield "| benchmark | bound | met |"
    yield "|---|---|---|"
    for line in lines:
        bounds = line["bounds"]
        assert isinstance(bounds, dict)
        for bound, met in bounds.items():
            yield f"| {line['benchmark']} | {bound} | {'yes' if met else '**no**'} |"


def _figures(lines: list[dict[str, object]]) -> Iterator[str]:
    for line in lines:
        yield ""
        yield f"## {line['benchmark']}"
        yield ""
        for name, value in line.items():
            if name not in ("benchmark", "bounds"):
                yield f"- {name}: {value}"


main()
