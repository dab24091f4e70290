"""200 kills while events are recorded, and power losses at 1,000 moments: what was acknowledged is there."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import report
from tests.faults.kills import kill
from tests.faults.power_loss import Found, examine, record

_KILLS = 200
_STATES = 1_000
_CONTROL_STATES = 200
_SEED = 6


def main() -> bool:
    """The store as it is, then with weaker syncs, which the same harness must find."""
    with tempfile.TemporaryDirectory(prefix="er-durability-") as folder:
        start = time.monotonic()
        killed = kill(Path(folder) / "kills", _KILLS, _SEED)
        kills_s = time.monotonic() - start
        start = time.monotonic()
        full = _lose_power(Path(folder) / "full", "", _STATES)
        states_s = time.monotonic() - start
        normal = _lose_power(Path(folder) / "normal", "NORMAL", _CONTROL_STATES)
        off = _lose_power(Path(folder) / "off", "OFF", _CONTROL_STATES)
    return report(
        "durability",
        {
            "kills": killed.kills,
            "kills_before_the_first_promise": killed.early,
            "kills_during_a_forget": killed.forgetting,
            "acknowledged": killed.acknowledged,
            "missing_after_kills": len(killed.missing),
            "unsound_after_kills": len(killed.unsound),
            "kills_s": kills_s,
            "states": full.states,
            "corrupt": len(full.corrupt),
            "broken_promises": len(full.broken),
            "states_s": states_s,
            "normal_states": normal.states,
            "normal_corrupt": len(normal.corrupt),
            "normal_broken_promises": len(normal.broken),
            "off_states": off.states,
            "off_corrupt": len(off.corrupt),
            "off_broken_promises": len(off.broken),
        },
        {
            "nothing missing after a kill": not killed.missing,
            "sound after each kill": not killed.unsound,
            "no state corrupt": not full.corrupt,
            "no promise broken by a power loss": not full.broken,
            "control: NORMAL loses": bool(normal.broken),
            "control: OFF corrupts": bool(off.corrupt),
        },
    )


def _lose_power(folder: Path, control: str, n_states: int) -> Found:
    return examine(record(folder, "run", control=control), n_states, _SEED)
