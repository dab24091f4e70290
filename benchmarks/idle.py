"""An idle service and its worker, beside a bare gRPC server: wake-ups a second, and processor time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import candidates, films, liked, report, service
from benchmarks.survival import children

_SECONDS = 20.0
_SETTLE_S = 8.0
# As many methods as the service has, and nothing behind them.
_BARE = """
import asyncio, sys, grpc
async def main():
    server = grpc.aio.server()
    async def answer(request, context): return b""
    for name in ("RerankService", "ContextService", "ModelService", "Health"):
        methods = {f"Call{n}": grpc.unary_unary_rpc_method_handler(answer) for n in range(8)}
        handler = grpc.method_handlers_generic_handler(f"bare.v1.{name}", methods)
        server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port("unix:" + sys.argv[1])
    await server.start()
    print("up", flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""


def main() -> bool:
    """The service after some work, and the bare server, over the same 20 seconds."""
    with service() as client, tempfile.TemporaryDirectory(prefix="er-idle-") as folder:
        client.record(liked(films()[:10]))
        client.warmup()
        client.rerank(candidates(films()[:20]), budget_ms=2_000)
        (ours,) = children(os.getpid())
        (worker,) = children(ours)
        with subprocess.Popen(
            [sys.executable, "-c", _BARE, f"{folder}/s"], stdout=subprocess.PIPE, text=True
        ) as bare:
            try:
                assert bare.stdout is not None
                assert bare.stdout.readline() == "up\n"
                time.sleep(_SETTLE_S)  # items that were left are encoded; threads of the model fall asleep
                pids = {"service": ours, "worker": worker, "bare_grpc": bare.pid}
                before = {name: _look(pid) for name, pid in pids.items()}
                time.sleep(_SECONDS)
                after = {name: _look(pid) for name, pid in pids.items()}
            finally:
                bare.kill()
    figures: dict[str, object] = {"seconds": _SECONDS}
    # gRPC names its threads; those of Python and of the model are called as the program is.
    grpc_names = set(before["bare_grpc"].wakeups) - {before["bare_grpc"].program}
    beyond = 0.0
    for name in pids:
        rates = {
            thread: (after[name].wakeups[thread] - before[name].wakeups.get(thread, 0)) / _SECONDS
            for thread in after[name].wakeups
        }
        figures[f"{name}_wakeups_per_s"] = sum(rates.values())
        figures[f"{name}_cpu_percent"] = (after[name].cpu_s - before[name].cpu_s) / _SECONDS * 100.0
        if name != "bare_grpc":
            beyond += sum(rate for thread, rate in rates.items() if thread not in grpc_names)
    cpu_percent = (after["service"].cpu_s - before["service"].cpu_s) / _SECONDS * 100.0
    cpu_percent += (after["worker"].cpu_s - before["worker"].cpu_s) / _SECONDS * 100.0
    figures["wakeups_beyond_grpc_per_s"] = beyond
    return report(
        "idle",
        figures,
        {
            "no wake-ups but gRPC's own": beyond == 0.0,
            "at most 0.1 % of a processor": cpu_percent <= 0.1,
        },
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """What a process has done since it started; wake-ups are by name of the thread."""

    program: str
    wakeups: dict[str, int]
    cpu_s: float


def _look(pid: int) -> _Look:
    wakeups: dict[str, int] = {}
    cpu_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        name = status["Name"]
        cpu_ns += int((task / "schedstat").read_text().split()[0])  # stat counts in hundredths of a second
        wakeups[name] = wakeups.get(name, 0) + int(status["voluntary_ctxt_switches"])
    program = Path(f"/proc/{pid}/comm").read_text().strip()
    return _Look(program, wakeups, cpu_ns / 1e9)
