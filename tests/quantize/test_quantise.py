"""The commands that make files: what they hold, what is kept, what is refused, and what a break leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from edge_reranker.cli import app
from edge_reranker.engine.activations import Columns, Observed
from edge_reranker.errors import InvalidArgument, ModelInvalid
from edge_reranker.evaluation import protocol, synthetic
from edge_reranker_quantize import importance, outputs, prune, quantise
from tests import gguf_files
from tests.service import Run, surroundings

ITEMS = [{"id": str(at), "title": f"Heat {at}", "tags": ["crime"]} for at in range(40)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return gguf_files.write_llama(tmp_path / "model.gguf", gguf_files.llama_weights())


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    return path


def silent(_: str) -> None:
    pass


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_importance_prune_and_quantise_from_one_end_to_the_other(
    run: Run, model: Path, items: Path, tmp_path: Path
) -> None:
    before = (model.read_bytes(), model.stat().st_mtime_ns)
    matrix, cut, out = tmp_path / "m.gguf", tmp_path / "cut.gguf", tmp_path / "variants"
    done = run(*("quantize", "importance", str(model), "--texts", str(items), "--out", str(matrix)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{matrix}: 15 tensors, over ")
    pruned = run(
        *("quantize", "prune", str(model), "--influence", "1", "--texts", str(items)),
        *("--out", str(cut), "--json"),
    )
    assert pruned.returncode == 0, pruned.stderr
    told = json.loads(pruned.stdout)
    assert told["dropped"] == [int(np.argmin(told["influence"]))]
    assert len([name for name in types_of(cut) if "attn_q" in name]) == 1
    made = run(
        *("quantize", "quantise", str(cut), "--type", "Q4_0", "--type", "Q8_0", "--out", str(out), "--json"),
        *("--override", "attn_v=Q8_0"),
    )
    assert made.returncode == 0, made.stderr
    assert "1 of 11 tensors fell back" in made.stderr
    assert {Path(each["path"]).name: each["n_fallback"] for each in json.loads(made.stdout)} == {
        "cut-Q4_0.gguf": 1,
        "cut-Q8_0.gguf": 0,
    }
    found = types_of(out / "cut-Q4_0.gguf")
    assert (found["blk.0.attn_v.weight"], found["blk.0.attn_q.weight"]) == ("Q8_0", "Q4_0")
    with_matrix = run(
        *("quantize", "quantise", str(model), "--type", "IQ4_NL", "--importance", str(matrix)),
        *("--out", str(tmp_path / "iq.gguf")),
    )
    assert with_matrix.returncode == 0, with_matrix.stderr
    assert before == (model.read_bytes(), model.stat().st_mtime_ns)


def test_what_is_there_whole_and_made_the_same_way_is_kept(model: Path, tmp_path: Path) -> None:
    targets = quantise.targets_of(model, ("Q8_0", "Q4_0"), tmp_path / "out")
    settings = quantise.Settings()
    quantise.quantise(model, targets, settings, silent)
    kept = targets["Q8_0"].stat().st_mtime_ns
    targets["Q4_0"].write_bytes(targets["Q4_0"].read_bytes()[:-1])
    said: list[str] = []
    with pytest.raises(InvalidArgument, match="is there already; --force"):
        quantise.quantise(model, targets, settings, silent)
    first, second = quantise.quantise(model, targets, settings, said.append, force=True)
    assert (first.n_fallback, second.n_fallback) == (None, 1)
    assert said[0] == f"{targets['Q8_0']}: already there, and whole"
    assert targets["Q8_0"].stat().st_mtime_ns == kept
    other = quantise.Settings(pure=True)
    assert quantise.quantise(model, targets, other, silent, force=True)[0].n_fallback == 0
    model.write_bytes(gguf_files.write_llama(tmp_path / "b", gguf_files.llama_weights(seed=1)).read_bytes())
    assert quantise.quantise(model, targets, other, silent, force=True)[0].n_fallback == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("quantise", "{model}", "--type", "Q9", "--out", "{folder}/x"), "--type: 'Q9'; there are BF16"),
        (("quantise", "{model}", "--type", "Q8_0", "--out", "{model}"), "is the source"),
        (("quantise", "{text}", "--type", "Q8_0", "--out", "{folder}/x"), "not a sound GGUF"),
        (
            ("quantise", "{model}", "--type", "Q8_0", "--out", "{folder}/x", "--override", "attn_x=Q8_0"),
            "'attn_x' is in no tensor's name",
        ),
        (("prune", "{model}", "--drop", "1-0", "--out", "{folder}/x"), "--drop: '1-0'"),
        (("prune", "{model}", "--drop", "7", "--out", "{folder}/x"), "blocks: [7]; the model has 0 to 1"),
        (("prune", "{model}", "--keep", "1"), "--out: goes with one of"),
        (("importance", "{model}", "--texts", "nothing", "--out", "{folder}/x"), "'nothing' is no file"),
        (("importance", "{model}", "--texts", "{text}", "--out", "{folder}/no/x"), "is no folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    model: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    before = left(tmp_path), model.read_bytes(), model.stat().st_mtime_ns
    given = [each.format(model=model, text=text, folder=tmp_path) for each in arguments]
    monkeypatch.setattr(sys, "argv", ["edge-reranker", "quantize", *given])
    assert app._run() in (2, 4)
    told = capsys.readouterr().err
    assert problem in told
    assert told.count("\n") == 1
    assert before == (left(tmp_path), model.read_bytes(), model.stat().st_mtime_ns)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_break_half_way_leaves_no_file_of_that_name(
    data_dir: Path, cache_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    source = gguf_files.write_llama(tmp_path / "wide.gguf", gguf_files.llama_weights(1024))
    target = tmp_path / "out.gguf"
    command = ("quantize", "quantise", str(source), "--type", "IQ3_S", "--out", str(target))
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_reranker.cli", *command],
        env=surroundings(data_dir, cache_dir),
        stderr=subprocess.PIPE,
    )
    while not list(tmp_path.glob(".out.gguf.*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    parts = {f".out.gguf.{process.pid}.part"} if number == signal.SIGKILL else set()
    assert left(tmp_path) == {"wide.gguf"} | parts
    quantise.quantise(source, {"Q8_0": target}, quantise.Settings(), silent)
    assert left(tmp_path) == {"wide.gguf", "out.gguf", "out.gguf.json"}


def test_an_importance_matrix_is_llama_cpps_own_format(tmp_path: Path) -> None:
    """Names, keys and shapes as tools/imatrix/imatrix.cpp writes them."""
    path = tmp_path / "m.gguf"
    sums = np.arange(4, dtype=np.float32)
    importance.write(path, Observed({"blk.0.attn_q.weight": Columns(sums, 8)}, None, 8), "items.jsonl")
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["items.jsonl"]
    assert reader.fields["imatrix.chunk_count"].contents() == 1
    assert reader.fields["imatrix.chunk_size"].contents() == 512
    found = {tensor.name: (tuple(tensor.shape), tensor.tensor_type.name) for tensor in reader.tensors}
    assert found == {
        "blk.0.attn_q.weight.in_sum2": ((4, 1), "F32"),
        "blk.0.attn_q.weight.counts": ((1, 1), "F32"),
    }
    np.testing.assert_array_equal(importance.read(path)["blk.0.attn_q.weight"], sums / 8)


def test_what_is_no_importance_matrix_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("legacy")
    for path, problem in ((model, "but no importance matrix"), (tmp_path / "text", "no importance matrix")):
        with pytest.raises(ModelInvalid, match=problem):
            importance.read(path)
    path = tmp_path / "m.gguf"
    importance.write(path, Observed({"a.weight": Columns(np.array([np.nan], np.float32), 1)}, None, 1), "x")
    with pytest.raises(ModelInvalid, match=r"a\.weight has numbers that are not finite"):
        importance.read(path)


def said(text: importance.Text) -> str:
    return "".join(piece.text for piece in text)


def test_texts_are_items_and_contexts_in_the_words_of_the_tiers(items: Path, tmp_path: Path) -> None:
    found = [said(text) for text in importance.texts_of_file(items, contexts=True)]
    assert len(found) == 45  # 40 items, and contexts of 8 of them each
    assert "Heat 7. crime" in found
    assert sum("- liked Heat" in text and text.endswith(":") for text in found) == 5
    assert len(importance.texts_of_file(items, contexts=False)) == 40
    plain = tmp_path / "plain.txt"
    plain.write_text("one\n\ntwo\n")
    assert [said(text) for text in importance.texts_of_file(plain, contexts=True)] == ["one", "two"]
    plain.write_text("\n")
    with pytest.raises(InvalidArgument, match="has no text in it"):
        importance.texts_of_file(plain, contexts=True)


def test_contexts_of_a_log_are_of_the_past_of_users_who_train() -> None:
    data = synthetic.make("shop", seed=0)
    names = {item.id: item.title for item in data.items}
    pasts = [{names[i.item_id] for i in past} for past in protocol.split(data).head.values()]
    texts = importance.texts_of_log(data, contexts=True)
    lines = [[p.text for p in text if p.text.startswith("- ")] for text in texts]
    told = [each for each in lines if each]
    assert len(told) > 10
    for context in told:
        assert any(all(any(f" {name}\n" in line for name in past) for line in context) for past in pasts)


def test_ranges_of_blocks_are_read_and_the_least_influential_chosen() -> None:
    assert prune.blocks_of("3,10-12") == [3, 10, 11, 12]
    for wrong in ("", "a", "4-2", "1,,2", "-1"):
        with pytest.raises(InvalidArgument, match="--drop"):
            prune.blocks_of(wrong)
    assert prune.least([0.3, 0.1, 0.2], 2) == [1, 2]
    with pytest.raises(InvalidArgument, match="1 to 2 can go"):
        prune.least([0.3, 0.1, 0.2], 3)


def test_a_target_that_is_there_is_replaced_only_when_asked(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.gguf"
    target.write_text("mine")
    with pytest.raises(InvalidArgument, match="--force replaces it"):
        outputs.check(target, model, force=False)
    outputs.check(target, model, force=True)
    with pytest.raises(InvalidArgument, match="is the source"):
        outputs.check(model, model, force=True)


@pytest.mark.model
def test_the_default_scorer_with_few_blocks_equals_what_a_pull_makes(
    scorer_path: Path, tmp_path: Path
) -> None:
    from edge_reranker.engine.quantiser import derive

    prune.prune(scorer_path, tmp_path / "a.gguf", n_blocks=5, type_="Q8_0")
    derive(scorer_path, tmp_path / "b.gguf", quantisation="Q8_0", n_blocks=5)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
