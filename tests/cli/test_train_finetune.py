"""``train --finetune``: from a log to an encoder that serves, through the real model and worker."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

from edge_reranker.cli import finetune as cli
from edge_reranker.cli.hidden import hidden_states
from edge_reranker.cli.tiers import encoder_adapter
from edge_reranker.config import Config
from edge_reranker.errors import EngineError
from edge_reranker.evaluation import synthetic
from edge_reranker.evaluation.log import Log
from edge_reranker.models import ModelCache, gguf_tensors
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder
from edge_reranker.models.pull import sha256_of
from edge_reranker.training import recipe
from edge_reranker.training.finetune import SETTINGS
from edge_reranker.training.loop import Until
from tests.service import Run

STEPS = Until(n_steps=3)


def finetuned(config: Config, log: Log, frozen: np.ndarray, out: Path, how: str) -> Encoder:
    return cli.finetuned(config, recipe.MINILM, log, frozen, out, SETTINGS[how], STEPS, seed=0)


@pytest.fixture(scope="module")
def log() -> Log:
    return synthetic.make("shop", n_users=40, n_items=60, n_each=25)


@pytest.fixture(scope="module")
def frozen(log: Log, cache_dir: Path) -> np.ndarray:
    """What the encoder makes of the items as it is."""
    return hidden_states(
        Config(cache_dir, cache_dir / "socket", cache_dir, "minilm"), recipe.MINILM, log.items
    )


@pytest.fixture
def config(tmp_path: Path, cache_dir: Path) -> Config:
    """A cache of this test's own that has everybody's MiniLM."""
    cache = tmp_path / "cache"
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "minilm").symlink_to(cache_dir / "models" / "minilm")
    return Config(cache, cache / "socket", cache, "minilm")


@pytest.mark.model
def test_an_adapter_lies_in_the_packs_folder_and_moves_the_vectors(
    config: Config, log: Log, frozen: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "pack"
    made = finetuned(config, log, frozen, out, "lora")
    assert made.adapter is not None
    file = out / made.adapter.file
    assert made.adapter.sha256 == sha256_of(file)
    assert file.stat().st_size < 200_000
    assert [path.name for path in out.iterdir()] == [file.name], "nothing else is left behind"
    assert not list((config.cache_dir / "finetune").glob("*"))
    after = hidden_states(config, made, log.items[:4], encoder_adapter(made, out))
    cosines = (frozen[:4] * after).sum(axis=1)
    assert (cosines < 0.9999).all()
    assert (cosines > 0.8).all()


@pytest.mark.model
def test_a_whole_model_is_taken_into_the_cache_under_its_hash(
    config: Config, log: Log, frozen: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "pack"
    made = finetuned(config, log, frozen, out, "full")
    file, path = ModelCache(config.cache_dir).open(made.model, "encoder")
    assert made.sha256 == file.sha256 == sha256_of(out / cli.MODEL_FILE)
    assert made.model == f"minilm-{made.sha256[:8]}"
    assert path.stat().st_size < 26e6
    assert file.license == "Apache-2.0"
    after = hidden_states(config, made, log.items[:4])
    assert not np.allclose(after, frozen[:4], atol=1e-3)


@pytest.mark.model
def test_a_file_that_serves_other_vectors_than_training_had_is_not_written(
    config: Config, log: Log, frozen: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gguf_tensors.write_like

    def before_the_norm(path: Path, like: Path, arrays: dict[str, np.ndarray]) -> None:
        name = "blk.5.layer_output_norm.weight"
        write(path, like, {**arrays, name: np.ones_like(arrays[name])})

    monkeypatch.setattr(gguf_tensors, "write_like", before_the_norm)  # stands for a mistake in the export
    out = tmp_path / "pack"
    with pytest.raises(EngineError, match=r"other vectors in llama.cpp than in training \(cosine 0\.[0-9]+"):
        finetuned(config, log, frozen, out, "lora")
    assert not list(out.iterdir())


@pytest.mark.model
@pytest.mark.usefixtures("short_training")
def test_a_fine_tuned_pack_is_trained_and_evaluated(
    run: Run, config: Config, log: Log, tmp_path: Path
) -> None:
    synthetic.write(log, tmp_path)
    files = ("--items", str(tmp_path / "items.jsonl"), "--interactions", str(tmp_path / "interactions.jsonl"))
    out, cache = tmp_path / "pack", ("--cache-dir", str(config.cache_dir))
    options = ("--encoder", "minilm", "--finetune", "lora", "--minutes", "0.05")
    trained = run("train", *files, "--out", str(out), *options, *cache)
    assert trained.returncode == 0, trained.stderr
    pack = packs.load(out)
    assert pack.manifest.encoder.adapter is not None
    card = (out / packs.CARD_FILE).read_text()
    assert "--finetune lora --minutes 0.05\n" in card
    assert "by the pack's LoRA adapter" in card
    measured = run("evaluate", *files, "--pack", str(out), "--json", *cache)
    assert json.loads(measured.stdout)["pack"] == pack.id


def test_minutes_without_fine_tuning_are_refused(run: Run, tmp_path: Path) -> None:
    found = run("train", "--out", str(tmp_path / "pack"), "--minutes", "3")
    assert found.returncode == 2
    assert found.stderr.startswith("Error: --minutes: goes with --finetune or --cross")
