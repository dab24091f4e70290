"""A process that records is killed, and nothing that it acknowledged is missing.

All 200 kills are ``python -m benchmarks durability``; these are as many as a test has time for.
"""

from __future__ import annotations

from pathlib import Path

from tests.faults.kills import kill

_N_KILLS = 40


def test_every_acknowledged_event_survives_a_kill(tmp_path: Path) -> None:
    """While it is opened, records in shared commits, folds the log in or forgets."""
    found = kill(tmp_path, _N_KILLS, seed=7)
    assert found.kills == _N_KILLS
    assert found.missing == []
    assert found.unsound == []
    assert found.acknowledged > 3 * _N_KILLS
    assert found.early


def test_a_promise_before_the_commit_is_found_out(tmp_path: Path) -> None:
    assert kill(tmp_path, 10, seed=7, control="early").missing
