"""Requests with 50 to 500 ms beside programs that keep processors busy: in time, with a lower plan."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.common import films, liked, percentile, report, service
from benchmarks.deadlines import Times, usual_lists

_REQUESTS = 160
_HOGS = (0, 1, 2, 4)


def main() -> bool:
    """The same lists with none to four busy loops beside the service, at its own niceness."""
    figures: dict[str, object] = {"n_requests": _REQUESTS}
    bounds: dict[str, bool] = {}
    for n_hogs in _HOGS:
        times = Times()
        with service() as client:
            client.record(liked(films()[:30]))
            client.warmup()
            with busy(n_hogs):
                for sent in itertools.islice(usual_lists(), _REQUESTS):
                    times.add(client, sent)
        late = [ms for each in times.late.values() for ms in each]
        figures[f"{n_hogs}_hogs_complete"] = times.complete
        figures[f"{n_hogs}_hogs_in_time"] = sum(ms <= 0 for ms in late) / _REQUESTS
        figures[f"{n_hogs}_hogs_p99_over_deadline_ms"] = percentile(late, 0.99)
        figures[f"{n_hogs}_hogs_worst_over_deadline_ms"] = max(late)
        if n_hogs <= (os.cpu_count() or 1):  # more cannot be planned for: docs/decisions/0007
            bounds[f"{n_hogs} hogs: 90 % in time"] = sum(ms <= 0 for ms in late) >= 0.9 * _REQUESTS
        coverage = [share for each in times.coverage.values() for share in each]
        figures[f"{n_hogs}_hogs_mean_coverage"] = sum(coverage) / len(coverage)
    figures["load_1_min"] = os.getloadavg()[0]
    return report("busy", figures, bounds)


@contextlib.contextmanager
def busy(n_hogs: int) -> Iterator[None]:
    """Keeps ``n_hogs`` processors busy."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_hogs)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
