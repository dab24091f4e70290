"""What importing the client costs beyond importing grpc."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.common import interleaved, report


def main() -> bool:
    """Whole processes, interleaved."""

    def run(module: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    calls = {"client": lambda: run("edge_reranker_client"), "grpc": lambda: run("grpc")}
    interleaved(calls, 1)
    spent = interleaved(calls, 9)
    more_s = statistics.median(a - b for a, b in zip(spent["client"], spent["grpc"], strict=True)) / 1000.0
    return report(
        "client_import",
        {
            "client_ms": statistics.median(spent["client"]),
            "grpc_ms": statistics.median(spent["grpc"]),
            "more_s": more_s,
        },
        {"<= 0.35 s more than grpc": more_s <= 0.35},
    )
