"""``insights`` against a real service: what it says, draws and refuses."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

from click.testing import CliRunner, Result

from edge_reranker.cli.app import cli
from edge_reranker.errors import FailedPrecondition
from edge_reranker_client import errors as client_errors
from tests.service import Run

DAY_S = 86_400


def likes(n_days: int) -> str:
    """Two likes a day, a minute apart: news at home, then a film after a search."""
    now_s = int(time.time())
    lines = []
    for day in range(n_days):
        for minute, (surface, tag) in enumerate((("home", "News"), ("search", "<Film>"))):
            at_s = now_s - (n_days - day) * DAY_S + 60 * minute
            lines.append(
                {
                    "type": "LIKE",
                    "item": {"id": f"{tag}{day}", "tags": [tag]},
                    "surface": surface,
                    "context": {"network": "wifi" if day % 2 else "mobile"},
                    "occurredAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s)),
                }
            )
    return "\n".join(map(json.dumps, lines))


def test_insights_are_told_and_drawn(data_dir: Path, service: subprocess.Popen[str], tmp_path: Path) -> None:
    def invoke(*arguments: str) -> Result:
        environment = {"EDGE_RERANKER_DATA_DIR": str(data_dir)}
        return CliRunner().invoke(cli, arguments, env=environment)

    assert invoke("insights").stdout == "0 events, and none of them says what you like\n"
    nothing = invoke("insights", "--plot", str(tmp_path / "none.svg"))
    assert isinstance(nothing.exception, FailedPrecondition)
    assert "record some first" in str(nothing.exception)

    (tmp_path / "likes.jsonl").write_text(likes(30))
    assert invoke("record", str(tmp_path / "likes.jsonl")).exit_code == 0
    told = invoke("insights").stdout
    assert told.startswith(
        "60 events, 60 of them say what you like\ntaste: 1.00 bits, as of about 2.0 topics"
    )
    assert "surface = search (30 events): <film> 100%, usually 50%" in told
    assert "no more than chance" in told

    found = json.loads(invoke("insights", "--json").stdout)
    used = {each["name"]: each["used"] for each in found["contexts"]}
    assert used["surface"]
    assert not used["context.network"]
    assert not found["drift"]["drifting"]

    picture = tmp_path / "taste.svg"
    assert invoke("insights", "--plot", str(picture)).exit_code == 0
    assert picture.stat().st_mode & 0o777 == 0o600
    drawn = ElementTree.parse(picture).getroot()
    texts = {each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"<film>", "news", "last 7 days", "before"} <= texts
    assert "http" not in picture.read_text().replace("http://www.w3.org/2000/svg", "")

    again = invoke("insights", "--plot", str(picture))
    assert isinstance(again.exception, FailedPrecondition)
    assert "--force" in str(again.exception)
    page = tmp_path / "taste.html"
    assert invoke("insights", "--plot", str(page)).exit_code == 0
    assert "&lt;film&gt;" in page.read_text()
    assert isinstance(invoke("insights", "--namespace", "nobody").exception, client_errors.NotFound)


def test_a_picture_of_another_kind_is_refused_before_a_service_is_asked(run: Run) -> None:
    found = run("insights", "--plot", "taste.png")
    assert found.returncode == 2
    assert "--plot: taste.png ends in neither .svg nor .html" in found.stderr
