"""``retention`` against a real service: what it sets, shows and refuses."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_reranker.cli.app import cli
from edge_reranker_client import errors as client_errors
from tests.cli.test_commands import LIKES
from tests.service import Run

BAD = [
    (("set",), "give --max-age-days, --max-events or --type, or --keep-all alone"),
    (("set", "--keep-all", "--max-events", "5"), "or --keep-all alone"),
    (("set", "--max-age-days", "0"), "--max-age-days"),
    (("set", "--type", "LIKE"), "--type: LIKE is not TYPE:days=N,events=N"),
    (("set", "--type", "LIKE:"), "is not TYPE:days=N,events=N"),
    (("set", "--type", "LIKE:days=1,days=2"), "is not TYPE:days=N,events=N"),
    (("set", "--type", "LIKE:hours=1"), "is not TYPE:days=N,events=N"),
    (("set", "--type", "LIKE:events=99999999999"), "is not TYPE:days=N,events=N"),
    (("set", "--type", "ADORE:days=1"), "--type: ADORE is not one of IMPRESSION, VIEW"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_can_be_no_rule_is_refused_before_a_service_is_asked(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    found = CliRunner().invoke(cli, ["retention", *arguments], env={"EDGE_RERANKER_DATA_DIR": str(tmp_path)})
    assert found.exit_code != 0
    assert message in found.output + str(found.exception)
    assert not isinstance(found.exception, client_errors.EdgeRerankerError)


def test_a_rule_is_set_shown_and_kept_to(run: Run, service: subprocess.Popen[str]) -> None:
    assert run("retention", "show").stdout == "every event is kept\n"
    run("record", "-", stdin=LIKES)
    refused = run("retention", "set", "--max-age-days", "36501")
    assert refused.returncode == 2
    assert "retention.max_age_days: 36,501 is too many" in refused.stderr
    assert len(run("events", "--json").stdout.splitlines()) == 3

    said = "events are kept for 90 days, the newest 1,000\n  LIKE: the newest 1\n"
    rule = ("--max-age-days", "90", "--max-events", "1000", "--type", "LIKE:events=1")
    assert run("retention", "set", *rule).stdout == said
    until = time.monotonic() + 30
    while json.loads(run("retention", "show", "--json").stdout).get("sweeping"):
        assert time.monotonic() < until
    assert run("retention", "show").stdout == said
    assert len(run("events", "--json").stdout.splitlines()) == 1

    shown = json.loads(run("retention", "set", "--type", "view:days=1", "--json").stdout)
    assert shown == {"retention": {"byType": [{"type": "EVENT_TYPE_VIEW", "maxAgeDays": 1}]}}
    assert run("retention", "set", "--keep-all").stdout == "every event is kept\n"
    assert run("namespace", "create", "other").returncode == 0
    assert run("retention", "show", "--namespace", "other").stdout == "every event of other is kept\n"
