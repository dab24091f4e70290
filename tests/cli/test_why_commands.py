"""``explain``, ``profile``, ``mute`` and ``unmute`` against a real service: from a list to its change."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_reranker.cli.app import cli, exit_code
from edge_reranker_client import Candidate, EdgeReranker, Event, Item, errors

Run = Callable[..., Result]

LIKES = [Event("LIKE", Item(str(n), f"Film {n}", tags=["Crime"]), event_id=f"e{n}") for n in range(3)]
LIST = [Candidate("a", "Love Story", tags=["Romance"]), Candidate("b", "Heat", tags=["Crime"])]


@pytest.fixture
def run(data_dir: Path) -> Run:
    """Runs one command in this process, which takes a twentieth of the time of one of its own."""
    environment = {"EDGE_RERANKER_DATA_DIR": str(data_dir)}
    return lambda *arguments: CliRunner().invoke(cli, arguments, env=environment)


@pytest.fixture
def app(data_dir: Path, service: subprocess.Popen[str]) -> Iterator[EdgeReranker]:
    """What the app knows and does."""
    with EdgeReranker(data_dir=data_dir) as client:
        yield client


def test_a_list_is_explained_and_what_explains_it_is_forgotten(run: Run, app: EdgeReranker) -> None:
    app.record(LIKES)
    ranking = app.rerank(LIST)
    assert ranking.ids == ("b", "a")
    told = run("explain", ranking.ranking_id)
    assert told.exit_code == 0
    assert "   1  (was    2, tier 0)  Heat  [Crime]\n" in told.stdout
    assert "because you liked Film 2 today" in told.stdout
    assert "Next: `forget --event-id ID` or `mute TOPIC`, then rank again" in told.stderr
    shown = json.loads(run("explain", ranking.ranking_id, "--id", "b", "--json").stdout)
    (only,) = shown["explanations"]
    assert only["topics"] == ["Crime"]
    assert sum(part["value"] for part in only["contributions"]) == pytest.approx(only["score"], abs=1e-9)
    for event_id in only["eventIds"]:
        assert run("forget", "--event-id", event_id).exit_code == 0
    gone = run("explain", ranking.ranking_id).exception
    assert isinstance(gone, errors.NotFound)
    assert "rerank again and ask about that one" in str(gone)
    assert app.rerank(LIST).ids == ("a", "b")


def test_beliefs_are_shown_with_their_events_and_topics_muted(run: Run, app: EdgeReranker) -> None:
    assert run("profile").stdout == "nothing is believed yet: no event that counts has a tag\n"
    app.record(LIKES)
    assert run("profile").stdout == "+1.00  crime: Film 2 (e2), Film 1 (e1), Film 0 (e0)\n"
    assert run("mute", "CRIME").stdout == "muted: crime\n"
    assert "crime  (muted): Film 2 (e2)" in run("profile").stdout
    assert json.loads(run("profile", "--json").stdout)["mutedTopics"] == ["crime"]
    assert json.loads(run("unmute", "Crime", "--json").stdout) == {}
    assert run("unmute", "Crime").stdout == "muted: nothing\n"


BAD = [
    (("explain", "nothing"), "there is no ranking 'nothing'"),
    (("explain", ""), "ranking_id: is empty"),
    (("explain", "x", "--namespace", "Me"), 'namespace: "Me" is not a name'),
    (("profile", "--namespace", "nobody"), "nobody"),
    (("mute", " "), "topic: is empty; give a tag"),
]


def test_what_cannot_be_is_named_with_the_code_for_bad_input(run: Run, app: EdgeReranker) -> None:
    app.record(LIKES)
    ranking_id = app.rerank(LIST).ranking_id
    unknown = (("explain", ranking_id, "--id", "z"), "ids[0]: 'z' is not the id of a candidate")
    for arguments, message in (*BAD, unknown):
        found = run(*arguments).exception
        assert isinstance(found, errors.EdgeRerankerError), arguments
        assert message in str(found)
        assert exit_code(found) == 2
