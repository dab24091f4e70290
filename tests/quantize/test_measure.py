"""``measure`` and ``pick`` through the real worker, on tiny models and a made-up log."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from edge_reranker.evaluation import synthetic
from edge_reranker_quantize.measure import Report
from edge_reranker_quantize.pick import Choice
from tests.engine.tiny_models import write_qwen3
from tests.service import Run

TYPES = ("published", "F16", "Q8_0", "Q4_0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize")
    synthetic.write(synthetic.make("shop", n_users=800, n_items=60, n_each=16), folder)
    write_qwen3(folder / "tiny.gguf")
    return folder


@pytest.fixture
def asked(folder: Path) -> tuple[str, ...]:
    files = ("--items", folder / "items.jsonl", "--interactions", folder / "interactions.jsonl")
    return (str(folder / "tiny.gguf"), *map(str, files), "--threads", "1")


def test_a_report_has_every_variant_and_a_plot(run: Run, folder: Path, asked: tuple[str, ...]) -> None:
    out = folder / "report"
    more = ("--types", "F16,Q8_0,Q4_0", "--requests", "8", "--rounds", "1", "--out", str(out))
    before = (folder / "tiny.gguf").read_bytes()
    found = run("quantize", "measure", *asked, *more)
    assert found.returncode == 0, found.stderr
    assert (folder / "tiny.gguf").read_bytes() == before
    report = msgspec.json.decode((out / "report.json").read_bytes(), type=Report)
    assert tuple(each.type for each in report.variants) == TYPES
    assert (report.reference, report.baseline, report.n_requests) == ("F16", "published", 8)
    assert "CPU" in report.machine.system
    of = {each.type: each for each in report.variants}
    assert of["F16"].rankings.tau.mean == pytest.approx(1)
    assert of["F16"].divergence is not None
    assert of["F16"].divergence.mean == 0
    coarse, fine = of["Q4_0"], of["Q8_0"]
    assert coarse.size_bytes < fine.size_bytes < of["F16"].size_bytes < of["published"].size_bytes
    assert coarse.rankings.tau.mean < fine.rankings.tau.mean < 1
    assert coarse.divergence is not None
    assert fine.divergence is not None
    assert coarse.divergence.mean > 10 * fine.divergence.mean > 0
    for each in report.variants:
        assert each.noise is not None
        # Single and half precision round by what is beside: 11 of 480 scores moved, none of Q8_0 or Q4_0.
        exact = each.type in ("Q8_0", "Q4_0")
        assert each.noise.isolated <= (0 if exact else 1e-4), "the same bits alone and beside others"
        assert each.speed.load_s > 0
        assert each.speed.resident_bytes > 10_000_000
        assert all(speed > 0 for speed in each.speed.prefill.values())
    assert of["published"].speed.to_baseline == 1
    words = [node.text for node in ElementTree.parse(out / "plot.svg").iter() if node.tag.endswith("text")]
    assert set(TYPES) <= set(words)
    assert all(name in found.stdout for name in TYPES)


def test_a_report_in_a_hurry_asks_less_but_enough_for_intervals(run: Run, asked: tuple[str, ...]) -> None:
    more = ("--types", "F16", "--requests", "60", "--rounds", "1", "--max-minutes", "0.001", "--json")
    found = run("quantize", "measure", *asked, *more)
    assert found.returncode == 0, found.stderr
    assert msgspec.json.decode(found.stdout, type=Report).n_requests == 30


def test_an_unknown_type_is_told_with_those_there_are(run: Run, asked: tuple[str, ...]) -> None:
    found = run("quantize", "measure", *asked, "--types", "Q9_9")
    assert found.returncode == 2
    assert found.stderr.startswith("Error: --types: 'Q9_9'; there are ")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 100])
def test_what_is_no_model_is_refused(
    run: Run, asked: tuple[str, ...], tmp_path: Path, content: bytes
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content)
    found = run("quantize", "measure", str(bad), *asked[1:])
    assert found.returncode == 4
    assert found.stderr.count("\n") == 1
    assert str(bad) in found.stderr


def picked(run: Run, asked: tuple[str, ...], *more: str) -> tuple[int, Choice]:
    found = run("quantize", "pick", *asked, "--dry-run", "--json", *more)
    return found.returncode, msgspec.json.decode(found.stdout, type=Choice)


def test_what_ranks_otherwise_is_not_picked_however_fast(run: Run, asked: tuple[str, ...]) -> None:
    code, choice = picked(run, asked, "--types", "F16,BF16,Q8_0,Q4_0")
    assert code == 0
    assert choice.n_requests == 200
    of = {each.type: each for each in choice.tried}
    assert choice.picked in ("F16", "BF16", "published"), "no other has a tau of .98 on random weights"
    assert of[choice.picked].verdict == "picked"
    speeds = [each.speed.to_baseline for each in choice.tried]
    assert speeds == sorted(speeds, reverse=True)
    after = False
    for each in choice.tried:
        if each.type == choice.picked:
            after = True
        elif after:
            assert each.verdict == "slower than what was picked"
        else:
            assert each.verdict.startswith(("tau ", "NDCG@10 may fall"))
            assert each.rankings is not None
            assert each.rankings.tau.mean < 1


def test_nothing_is_picked_that_takes_too_much_memory(run: Run, asked: tuple[str, ...]) -> None:
    code, choice = picked(run, asked, "--types", "F16,Q8_0", "--memory-mb", "1")
    assert (code, choice.picked) == (4, "")
    assert {each.verdict for each in choice.tried} == {"its worker takes more than 1 MB"}


def test_nothing_is_picked_when_no_time_is_left(run: Run, asked: tuple[str, ...]) -> None:
    code, choice = picked(run, asked, "--types", "F16,Q8_0", "--max-minutes", "0.001")
    assert (code, choice.picked) == (4, "")
    assert {each.verdict for each in choice.tried} == {"no time was left for it"}


def test_a_model_that_nobody_would_look_up_can_only_be_tried(run: Run, asked: tuple[str, ...]) -> None:
    found = run("quantize", "pick", *asked)
    assert found.returncode == 2
    assert "use --dry-run" in found.stderr


def test_an_unknown_type_is_no_choice(run: Run, asked: tuple[str, ...]) -> None:
    found = run("quantize", "pick", *asked, "--dry-run", "--types", "Q8_0,q9")
    assert found.returncode == 2
    assert found.stderr.startswith("Error: --types: 'q9'; there are ")


def test_a_log_that_asks_too_little_is_told(run: Run, folder: Path, tmp_path: Path) -> None:
    synthetic.write(synthetic.make("shop", n_users=30, n_items=40, n_each=16), tmp_path)
    files = ("--items", tmp_path / "items.jsonl", "--interactions", tmp_path / "interactions.jsonl")
    found = run("quantize", "pick", str(folder / "tiny.gguf"), *map(str, files), "--dry-run", "--json")
    assert found.returncode == 4
    assert "200 requests are needed" in found.stderr
    assert found.stdout == ""
