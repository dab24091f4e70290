"""How a worker process is started, and what it is given: two pipes and almost no environment."""

from __future__ import annotations

import subprocess
import sys

# The worker gets no variable of the service's. Without GGML_NO_BACKTRACE an abort starts a debugger, which
# takes seconds and prints memory. Threads that wait by spinning for long are 50 times slower as soon as
# another program wants a processor; those that never spin are half as fast on a quiet machine:
# docs/decisions/0002.
WORKER_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "GGML_NO_BACKTRACE": "1",
    "GOMP_SPINCOUNT": "2000",
}


def spawn() -> subprocess.Popen[bytes]:
    """A new worker, waiting for its first message. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-I", "-m", "edge_reranker.engine.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # native code may print what it was given
        env=WORKER_ENVIRONMENT,
        start_new_session=True,  # Ctrl-C is for the service, which then closes the pipe
        bufsize=0,
    )
