"""What this process remembers is in no crash report, and other programs cannot look into it. Linux mostly."""

from __future__ import annotations

import resource
import sys

_PR_SET_DUMPABLE = 4


def leave_nothing() -> None:
    """No core file, and none for a crash handler; only root may read this process's memory from now on.

    It has to be called in each new program: a process that starts another program is as before.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes  # milliseconds, in which nothing of the user's is here yet

        # Where the kernel hands cores to a program (Apport, systemd-coredump) it does not heed the limit, and
        # a core without memory still has what the registers held: docs/decisions/0025.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
