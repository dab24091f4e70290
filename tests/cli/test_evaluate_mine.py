"""`evaluate --mine` against a real service: the user's own choices, read with the owner's token."""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_reranker.cli import options
from edge_reranker.cli.app import cli
from edge_reranker.cli.packs import pack_folder
from edge_reranker.models import load_pack
from edge_reranker.server import lines
from edge_reranker.types import Event, EventType, Item, LoggedChoice, Record
from edge_reranker_client import EdgeReranker
from tests.evaluation.test_mine import as_the_towers_say, choices
from tests.service import serving, surroundings


@pytest.fixture(scope="module")
def place(cache_dir: Path) -> Iterator[Path]:
    """The data directory of a service without a model."""
    with tempfile.TemporaryDirectory(prefix="er-") as name, serving(Path(name), cache_dir, "--model", "none"):
        yield Path(name)


def evaluate(place: Path, cache_dir: Path, *more: str) -> Result:
    env = surroundings(place, cache_dir)
    return CliRunner().invoke(cli, ["evaluate", "--mine", *more], env=env)


def test_who_has_chosen_nothing_is_told_what_it_needs(place: Path, cache_dir: Path) -> None:
    found = evaluate(place, cache_dir)
    assert found.exit_code == 0, found.output
    assert found.output.startswith("Nothing can be told yet: no choice was recorded from a ranking.")


def test_choices_of_the_service_are_replayed_and_stay_on_the_device(
    place: Path, cache_dir: Path, tmp_path: Path, shipped: str
) -> None:
    made = choices(as_the_towers_say, 60, pack=shipped)
    records: list[Record] = []
    for at, choice in enumerate(made):
        records.append(Event(f"c{at}", EventType.CLICK, 1e9 + at, Item(f"i{at}", title="A film")))
        records.append(LoggedChoice(f"c{at}", choice.encode()))
    records.append(LoggedChoice("c0x", b"from another version"))
    records.insert(-1, Event("c0x", EventType.CLICK, 1e9, Item("x")))
    with EdgeReranker(data_dir=place, owner=True) as owner:
        owner.import_(b"".join(lines.chunks([records])).splitlines(keepends=True))
    page = tmp_path / "mine.html"
    found = evaluate(place, cache_dir, "--json", "--html", str(page))
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["n_choices"] == len(made)
    assert report["gain"]["low"] <= report["gain"]["mean"] <= report["gain"]["high"]
    assert report["points"][-1]["n_choices"] == len(made)
    assert found.stderr == "1 choices of another version of the service are left out\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "<svg" in page.read_text()
    assert report["in_words"] in evaluate(place, cache_dir).output


def test_it_goes_with_no_other_protocol(place: Path, cache_dir: Path) -> None:
    found = evaluate(place, cache_dir, "--full")
    assert found.exit_code != 0
    assert str(found.exception).startswith("--mine: is of your own choices")


@pytest.fixture(scope="module")
def shipped() -> str:
    """The id of the pack that the service serves."""
    config = options.load_config({})
    return load_pack(pack_folder(config)).id
