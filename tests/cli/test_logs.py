"""``train`` and ``evaluate`` on a log of the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_reranker.evaluation import synthetic
from edge_reranker.models import pack as packs
from tests.service import Run


@pytest.fixture
def log(tmp_path: Path) -> tuple[str, ...]:
    synthetic.write(synthetic.make("shop", n_users=40, n_items=60, n_each=25), tmp_path)
    items, interactions = tmp_path / "items.jsonl", tmp_path / "interactions.jsonl"
    return "--items", str(items), "--interactions", str(interactions)


@pytest.mark.model
@pytest.mark.usefixtures("short_training")
def test_a_made_up_shop_is_trained_on_and_evaluated(run: Run, log: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    trained = run("train", *log, "--out", str(folder), "--name", "shop", "--encoder", "auto")
    assert trained.returncode == 0, trained.stderr
    assert "training and measuring 1 of 5: the pack\n" in trained.stderr
    assert "training and measuring 5 of 5: another" in trained.stderr
    pack = packs.load(folder)
    assert pack.id.startswith("shop-")
    card = (folder / packs.CARD_FILE).read_text()
    assert "40 users" in card
    assert "MovieLens" not in card
    assert "--items items.jsonl --interactions interactions.jsonl" in card
    words = " ".join(card.split())
    assert "The encoder was chosen by NDCG@10 for the" in words
    assert f"{pack.manifest.encoder.model} 0." in words
    assert "Fewer than 50 of a kind are little" in words
    measured = run("evaluate", *log, "--pack", str(folder), "--json")
    report = json.loads(measured.stdout)
    assert report["pack"] == pack.id
    assert report["against_server"]["ours"]["ndcg10"]["low"] > 0
    assert report["orders"]["ours"]["ndcg10"]["mean"] == pytest.approx(
        float(card.split("seed 0 ")[1].split()[0]), abs=5e-5
    )


@pytest.mark.model
@pytest.mark.usefixtures("short_training")
def test_the_whole_protocol_runs_on_a_log_of_ones_own(run: Run, tmp_path: Path) -> None:
    synthetic.write(synthetic.make("shop", n_users=25, n_items=40, n_each=20), tmp_path)
    files = ("--items", tmp_path / "items.jsonl", "--interactions", tmp_path / "interactions.jsonl")
    page = tmp_path / "report.html"
    found = run("evaluate", "--full", "--json", *map(str, files), "--html", str(page))
    assert found.returncode == 0, found.stderr
    sections = {each["title"]: each["rows"] for each in json.loads(found.stdout)["sections"]}
    for title in (
        "Behind popularity",
        "Behind EASE of few users",
        "Newcomers",
        "Placebos",
        "Cold items",
        "Learning curve",
    ):
        assert sections[title], title
    assert "EASE server" in found.stderr  # progress, apart from the report
    (ours,) = [row for row in sections["Placebos"] if row["order"] == "ours"]
    assert f"{ours['ndcg10']['mean']:.4f}" in page.read_text()


def test_a_bad_row_ends_with_one_line_and_the_code_of_bad_input(run: Run, log: tuple[str, ...]) -> None:
    with Path(log[-1]).open("a") as file:
        file.write('{"user_id": "u", "item_id": "nowhere", "occurred_at": 1}\n')
    found = run("evaluate", *log)
    assert found.returncode == 2
    assert found.stderr == (
        "Error: interactions.jsonl, row 1001, item_id: 'nowhere'; must be the id of an item in items.jsonl\n"
    )


def test_too_few_users_are_told_before_anything_is_encoded(run: Run, tmp_path: Path) -> None:
    synthetic.write(synthetic.make("shop", n_users=6, n_items=60, n_each=20), tmp_path)
    files = ("--items", tmp_path / "items.jsonl", "--interactions", tmp_path / "interactions.jsonl")
    found = run("evaluate", *map(str, files), "--cache-dir", str(tmp_path / "without-a-model"))
    assert found.returncode == 4
    assert found.stderr.startswith("Error: too few users for the head step: 5 are needed")


def test_items_without_interactions_are_refused(run: Run, log: tuple[str, ...]) -> None:
    found = run("evaluate", *log[:2])
    assert found.returncode == 2
    assert "belong together" in found.stderr


def test_a_log_can_be_made_up(run: Run, tmp_path: Path) -> None:
    found = run("data", "make", "feed", "--out", str(tmp_path / "feed"))
    assert "300 items, 9000 interactions of 200 users, all made up" in found.stdout
    assert sorted(path.name for path in (tmp_path / "feed").iterdir()) == [
        "interactions.jsonl",
        "items.jsonl",
    ]


def test_a_place_where_no_pack_can_be_written_is_named_before_any_training(
    run: Run, log: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for out in ("file", "file/pack"):
        found = run("train", *log, "--out", str(tmp_path / out))
        assert found.returncode == 2
        assert found.stderr == f"Error: --out: {tmp_path / 'file'} is a file; name a folder\n"
