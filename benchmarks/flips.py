"""200 single-bit flips at random places of the store: when each is noticed, and how soon a backup stands in.

A small store (45 pages), so that pages of all kinds are hit, and its backup. Each flip is in a fresh copy of
the closed store. Of three moments, the first that notices counts: the opening; a read of the newest 100
events while the store is open; the daily check, which is the daily backup. The time is from the beginning
of that moment to a store that answers with the backup's events.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import report
from edge_reranker.errors import StoreCorrupt, StoreError
from edge_reranker.store import Store, inspect_store, quarantined
from edge_reranker.types import Event, EventType, Item

N_FLIPS = 200
N_EVENTS = 60
_GIVE_UP_S = 10.0


def main() -> bool:
    """Whether all were noticed and made good."""
    rng = random.Random(17)
    moments: Counter[str] = Counter()
    took_s: list[float] = []
    by_doctor = restored = 0
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        sound = Path(name) / "sound"
        with Store.open(sound, key_source="file") as store:
            store.record(
                "app",
                [
                    Event(f"e{n}", EventType.LIKE, 1.0 + n, Item(f"i{n}", text="x" * 1500))
                    for n in range(N_EVENTS)
                ],
            )
            store.back_up()
            store.record("app", [Event("late", EventType.LIKE, 1e6, Item("late"))])
        size_bytes = (sound / "store.db").stat().st_size
        for _ in range(N_FLIPS):
            place = Path(shutil.copytree(sound, Path(name) / "copy"))
            path = place / "store.db"
            data = bytearray(path.read_bytes())
            data[rng.randrange(size_bytes)] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            by_doctor += _doctor_sees(place)
            moment, seconds = _noticed(place)
            moments[moment] += 1
            took_s.append(seconds)
            found = quarantined(place)
            kept = len(found) == 1 and (Path(found[0].folder) / "store.db").read_bytes() == bytes(data)
            with Store.open(place, key_source="file") as store:
                restored += kept and store.counts("app")["events"] == N_EVENTS and not store.check()
            shutil.rmtree(place)
    figures: dict[str, object] = {
        "flips": N_FLIPS,
        "pages": size_bytes // 4096,
        "noticed_at": dict(moments),
        "seen_by_doctor": by_doctor,
        "put_aside_and_restored": restored,
        "p50_ms": statistics.median(took_s) * 1000,
        "max_ms": max(took_s) * 1000,
    }
    bounds = {
        "doctor sees all": by_doctor == N_FLIPS,
        "all are put aside and a backup restored": restored == N_FLIPS,
        "within 10 s": max(took_s) < _GIVE_UP_S,
    }
    return report("flips", figures, bounds)


def _doctor_sees(data_dir: Path) -> bool:
    try:
        return bool(inspect_store(data_dir, key_source="file"))
    except StoreError:
        return True


def _noticed(data_dir: Path) -> tuple[str, float]:
    """The moment, and the seconds from its beginning to a store that answers again."""
    began = time.monotonic()
    with Store.open(data_dir, key_source="file") as store:
        if quarantined(data_dir):
            return "opening", time.monotonic() - began
        for moment, call in (("read", lambda: store.context("app", 100)), ("daily check", store.back_up)):
            began = time.monotonic()
            try:
                call()
            except StoreCorrupt:
                while time.monotonic() < began + _GIVE_UP_S:
                    with contextlib.suppress(StoreError):
                        if store.counts("app")["events"] == N_EVENTS:
                            return moment, time.monotonic() - began
                    time.sleep(0.005)
    return "never", time.monotonic() - began


if __name__ == "__main__":
    main()
