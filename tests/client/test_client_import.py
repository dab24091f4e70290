"""Importing the client costs little and pulls in nothing of the service."""

from __future__ import annotations

import json
import subprocess
import sys

PROBE = """
import json, sys, time
import grpc
start = time.perf_counter()
import edge_reranker_client
took = time.perf_counter() - start
print(json.dumps({"took_s": took, "modules": sorted(sys.modules)}))
"""


def probe() -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_import_loads_neither_numpy_nor_llama_cpp_nor_the_service() -> None:
    modules = probe()["modules"]
    assert isinstance(modules, list)
    roots = {each.partition(".")[0] for each in modules}
    assert "edge_reranker_client" in roots
    assert not roots & {"numpy", "llama_cpp", "sqlcipher3", "sqlite3", "click", "torch"}
    ours = {each for each in modules if each.startswith("edge_reranker.")}
    assert ours
    assert {each for each in ours if not (each + ".").startswith("edge_reranker.v1.")} == set()


def test_import_takes_at_most_350_ms_more_than_grpc() -> None:
    # The best of three: the machine may be busy, the import cannot be faster than it is.
    assert min(float(str(probe()["took_s"])) for _ in range(3)) <= 0.35
