"""Reading and splitting made-up logs of 10,000, 100,000 and 1,000,000 interactions: time and memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import report

_SIZES = (10_000, 100_000, 1_000_000)
_EACH = 50
_ITEMS = 2_000
_CHILD = """
import json, sys, time
from pathlib import Path
from edge_reranker.evaluation import protocol, read_log
# Not getrusage: its peak begins with the parent's.
def mb(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024
before, start = mb(), time.perf_counter()
log = read_log.read(Path(sys.argv[1]), Path(sys.argv[2]))
read, after_read = time.perf_counter(), mb()
protocol.split(log)
print(json.dumps({"read_s": read - start, "split_s": time.perf_counter() - read,
                  "read_mb": after_read - before, "all_mb": mb() - before}))
"""


def main() -> bool:
    """Each size in a process of its own; JSON lines and Parquet of the same rows."""
    figures: dict[str, object] = {}
    read_s: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = folder / "items.jsonl"
        items.write_text("".join(f'{{"id": "i{at}", "title": "Thing {at}"}}\n' for at in range(_ITEMS)))
        for size in _SIZES:
            lines = _write(folder, size)
            for kind, path in (("json", lines), ("parquet", _as_parquet(lines))):
                command = [sys.executable, "-c", _CHILD, str(items), str(path)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                if kind == "json":
                    read_s[size] = found["read_s"]
                figures |= {f"{kind}_{size}_{figure}": value for figure, value in found.items()}
    growth = read_s[_SIZES[2]] / read_s[_SIZES[1]]
    return report("logs", figures, {"ten times the rows take <= 15 x the time": growth <= 15})


def _write(folder: Path, size: int) -> Path:
    path, rng = folder / "log.jsonl", random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for at in range(size):
            row = {"user_id": f"u{at // _EACH}", "item_id": f"i{rng.randrange(_ITEMS)}", "occurred_at": at}
            file.write(json.dumps(row) + "\n")
    return path


def _as_parquet(path: Path) -> Path:
    from pyarrow import json as arrow_json
    from pyarrow import parquet

    parquet.write_table(arrow_json.read_json(path), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")
