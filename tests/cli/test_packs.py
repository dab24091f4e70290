"""Packs by name, by folder, listed, and none that can be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.service import Run, serving


@pytest.mark.model
def test_the_pack_for_any_domain_serves_by_its_name(data_dir: Path, cache_dir: Path, run: Run) -> None:
    """Somebody who bought garden tools sees others sooner, though no word of the titles is the same."""
    bought = ["Stainless steel hand trowel", "Terracotta flower pots, set of 4", "Organic tomato seeds"]
    titles = ["Acoustic guitar strings", "Paperback crime novel", "USB-C charging cable", "Running socks",
              "Desk lamp", "Pruning shears for roses", "Espresso cups", "Watering can, 5 litres"]  # fmt: skip
    events = [{"type": "PURCHASE", "item": {"id": f"b{n}", "title": title}} for n, title in enumerate(bought)]
    candidates = [{"id": title, "title": title} for title in titles]
    with serving(data_dir, cache_dir, "--pack", "generic-minilm"):
        run("record", "-", stdin="\n".join(map(json.dumps, events)))
        request = json.dumps({"candidates": candidates, "budgetMs": 20_000})
        answer = json.loads(run("rank", "--json", "-", stdin=request).stdout)
    assert answer["pack"].startswith("generic-minilm-")
    assert answer["coverage"] == 1.0
    order = [result["id"] for result in answer["results"]]
    for title in ("Pruning shears for roses", "Watering can, 5 litres"):
        assert order.index(title) < titles.index(title), order


def test_packs_are_listed_with_the_encoder_that_each_needs(run: Run, cache_dir: Path, tmp_path: Path) -> None:
    found = json.loads(run("pack", "list", "--json").stdout)
    assert [each["name"] for each in found] == ["generic-minilm", "movielens-minilm"]
    assert [each["name"] for each in found if each["default"]] == ["movielens-minilm"]
    assert {each["encoder"] for each in found} == {"minilm"}
    assert all(each["size_bytes"] <= 200 * 1024 for each in found)
    elsewhere = run("pack", "list", "--cache-dir", str(tmp_path)).stdout.splitlines()
    assert [line.rpartition("; ")[2] for line in elsewhere] == ["run `edge-reranker model pull minilm`"] * 2


@pytest.mark.parametrize("command", ["evaluate", "serve"])
def test_a_pack_that_is_nowhere_is_refused_by_its_name(data_dir: Path, run: Run, command: str) -> None:
    found = run(command, "--pack", "generic-nobody")
    assert found.returncode == 2
    assert "pack: 'generic-nobody' is neither a folder nor the name of one that ships" in found.stderr


def test_doctor_says_what_packs_there_are_when_told_of_none(data_dir: Path, run: Run) -> None:
    found = run("doctor", "--pack", "generic-nobody")
    assert found.returncode == 4
    assert "!!  pack         pack: 'generic-nobody' is neither a folder" in found.stdout
