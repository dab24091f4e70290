"""``evaluate --html``: the page beside the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_reranker.evaluation.log import Log
from tests.planted import world
from tests.service import Run


def write(folder: Path, data: Log) -> None:
    """``data`` as MovieLens-100K's files."""
    folder.mkdir()
    films = [f"{item.id}\t{item.title}\t1990\tDrama" for item in data.items]
    ratings = [f"{r.user_id}\t{r.item_id}\t{5 if r.liked else 2}\t{r.at_s}" for r in data.interactions]
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (folder / "ml-100k.item").write_text("\n".join([header, *films]))
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "ml-100k.inter").write_text("\n".join([header, *ratings]))


def test_a_page_in_a_folder_that_is_not_there_is_refused_before_the_work(run: Run, tmp_path: Path) -> None:
    found = run("evaluate", "--pack", str(tmp_path), "--html", str(tmp_path / "none" / "report.html"))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"Error: --html: {tmp_path / 'none'} is not a folder; make it first\n"


@pytest.mark.model
def test_the_page_has_the_figures_of_the_printed_report(run: Run, tmp_path: Path, cache_dir: Path) -> None:
    write(tmp_path / "data", world()[0])
    own_cache = tmp_path / "cache"
    own_cache.mkdir()
    (own_cache / "models").symlink_to(cache_dir / "models")
    where = ("--data", str(tmp_path / "data"), "--cache-dir", str(own_cache))
    found = run("evaluate", "--json", *where, "--html", str(tmp_path / "report.html"))
    assert found.returncode == 0, found.stderr
    ndcg = json.loads(found.stdout)["orders"]["ours"]["ndcg10"]
    page = (tmp_path / "report.html").read_text()
    assert f'{ndcg["mean"]:.4f} <span class="interval">[{ndcg["low"]:.4f}, {ndcg["high"]:.4f}]</span>' in page
