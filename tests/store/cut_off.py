"""Ends a procedure before each of its steps, as a crash would, to see what the next start makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Each run is a process of its own that ends, without any clean-up, before its n-th change to the directory as
# the kernel sees it: a rename, a removal, a new directory, a file opened for writing. Not within SQLite.
_EVERYWHERE = """
import os, shutil, sys
from pathlib import Path
from edge_reranker.store import Store, recovery, rotation
action, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
actions = {
    "open": lambda place: Store.open(place, key_source="file").close(),
    "rotate": lambda place: rotation.rotate(place, source="file"),
}
def end_before(place, left):
    def hook(event, args):
        nonlocal left
        writes = os.O_CREAT | os.O_WRONLY | os.O_RDWR
        opens = event == "open" and isinstance(args[2], int) and args[2] & writes
        names = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if (opens or names) and str(args[0]).startswith(str(place)):
            left -= 1
            if left < 0:
                os._exit(9)
    sys.addaudithook(hook)
    actions[action](place)
n, code = 0, 9
while code == 9:
    place = Path(shutil.copytree(source, target / str(n), ignore=shutil.ignore_patterns("reserve")))
    pid = os.fork()
    if not pid:
        end_before(place, n)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    n += 1
sys.exit(code)
"""


def cut_off_everywhere(action: str, source: Path, target: Path) -> list[Path]:
    """Copies of a data directory in which ``action`` was cut off before each of its steps; one where not."""
    run = subprocess.run(
        [sys.executable, "-c", _EVERYWHERE, action, str(source), str(target)],
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    return sorted(target.iterdir(), key=lambda place: int(place.name))
