"""``namespace``: apps are made and ended while the service runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.service import Run

LIKE = '{"eventId": "e", "type": "LIKE", "item": {"id": "1", "title": "Heat", "tags": ["Crime"]}}'
REQUEST = json.dumps(
    {
        "candidates": [
            {"id": "a", "title": "Love Story", "tags": ["Romance"]},
            {"id": "b", "title": "Casino", "tags": ["Crime"]},
        ]
    }
)


def test_an_app_has_its_own_until_it_is_deleted(
    run: Run, data_dir: Path, service: subprocess.Popen[str]
) -> None:
    token = data_dir / "tokens" / "news.token"
    assert run("namespace", "create", "news").stdout == f"news: its app's token is {token}\n"
    assert run("record", "-", stdin=LIKE, EDGE_RERANKER_NAMESPACE="news").stdout.startswith("1 recorded")
    assert run("events").stdout == ""
    found = json.loads(run("namespace", "list", "--json").stdout)
    assert [(each["name"], each.get("events", "0")) for each in found["namespaces"]] == [
        ("default", "0"),
        ("news", "1"),
    ]
    assert run("namespace", "delete", "nwes", "--yes").returncode == 2
    assert run("namespace", "delete", "news", stdin="n\n").returncode == 130
    assert run("namespace", "delete", "news", "--yes").stdout == "news: deleted, 1 events forgotten\n"
    assert not token.exists()
    assert run("events", EDGE_RERANKER_NAMESPACE="news").returncode == 5


def test_a_grant_is_made_listed_and_ended(run: Run, service: subprocess.Popen[str]) -> None:
    run("namespace", "create", "news")
    run("record", "-", stdin=LIKE)

    def first() -> str:
        answer = run("rank", "--json", "-", stdin=REQUEST, EDGE_RERANKER_NAMESPACE="news")
        return str(json.loads(answer.stdout)["results"][0]["id"])

    assert first() == "a"
    both = ("--source", "default", "--reader", "news")
    assert run("namespace", "grant", *both).stdout.startswith("news goes by the events of default since 20")
    assert first() == "b"
    assert "      goes by default since 20" in run("namespace", "list").stdout
    assert run("events", EDGE_RERANKER_NAMESPACE="news").stdout == ""
    assert run("namespace", "revoke", *both).stdout == "news does not go by the events of default\n"
    assert first() == "a"


def test_bad_names_are_told_in_one_line(run: Run, service: subprocess.Popen[str]) -> None:
    for arguments, says in (
        (("create", "../up"), 'name: "../up" is not a name'),
        (("create", "app"), 'name: "app" is reserved'),
        (("delete", "default", "--yes"), 'name: "default" stays'),
        (("grant", "--source", "default", "--reader", "nobody"), '"nobody" is not a namespace here'),
        (("grant", "--source", "default", "--reader", "default"), "reader: is the source itself"),
    ):
        found = run("namespace", *arguments)
        assert (found.returncode, found.stdout) == (2, "")
        assert says in found.stderr
        assert len(found.stderr.splitlines()) == 1
