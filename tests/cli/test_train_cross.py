"""``train --cross``: from a log to a trained tier 2 behind a pack, through the real models and worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

from click.testing import CliRunner

from edge_reranker.cli import cross as cli
from edge_reranker.cli.hidden import hidden_states
from edge_reranker.cli.quality import train
from edge_reranker.config import Config
from edge_reranker.errors import EngineError
from edge_reranker.evaluation import synthetic
from edge_reranker.evaluation.log import Log
from edge_reranker.models import Pack, gguf_tensors
from edge_reranker.models import pack as packs
from edge_reranker.models.pull import sha256_of
from edge_reranker.training import recipe
from edge_reranker.training.cross import Settings
from edge_reranker.training.head import Recipe
from edge_reranker.training.loop import Until
from tests.service import Run

SETTINGS = Settings(n_lists=2)
TOWERS = Recipe(n_steps=20)

Below = tuple[np.ndarray, Pack]


@pytest.fixture(scope="module")
def log() -> Log:
    return synthetic.make("shop", n_users=28, n_items=40, n_each=14)


def with_models(cache: Path, *models: Path) -> Config:
    (cache / "models").mkdir(parents=True)
    for model in models:
        (cache / "models" / model.name).symlink_to(model)
    return Config(cache, cache / "socket", cache, "minilm")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> tuple[Path, ...]:
    """Everybody's models, and the one that the first training cuts for itself."""
    shared = [cache_dir / "models" / name for name in ("minilm", cli.MODEL)]
    config = with_models(tmp_path_factory.mktemp("models"), *shared)
    name, _ = cli.scorer_file(config, cli.N_BLOCKS["cut"])
    return (*shared, config.cache_dir / "models" / name)


@pytest.fixture
def config(tmp_path: Path, models: tuple[Path, ...]) -> Config:
    """A cache of this test's own that has the models."""
    return with_models(tmp_path / "cache", *models)


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory, log: Log, models: tuple[Path, ...]) -> Below:
    """What a training of tier 2 begins with."""
    config = with_models(tmp_path_factory.mktemp("below"), *models)
    hidden = hidden_states(config, recipe.MINILM, log.items)
    return hidden, recipe.make_pack(log, hidden, seed=0, recipe=TOWERS)


def crossed(config: Config, log: Log, below: Below, out: Path) -> tuple[Pack, str]:
    hidden, pack = below
    packs.save(pack, out, f"# A pack, {pack.id}\n")
    until = Until(n_steps=2)
    return cli.crossed(
        *(config, log, pack, hidden, out, until),
        cross="cut",
        seed=0,
        settings=SETTINGS,
        towers=TOWERS,
        always=True,
    )


@pytest.mark.model
def test_a_pack_with_a_trained_tier_2_names_model_adapter_and_weight(
    config: Config, log: Log, below: Below, tmp_path: Path
) -> None:
    out = tmp_path / "pack"
    pack, text = crossed(config, log, below, out)
    assert packs.load(out).id == pack.id
    scorer = pack.manifest.scorer
    assert scorer.model == "smollm2-135m-first-10"
    assert scorer.adapter is not None
    assert scorer.adapter.sha256 == sha256_of(out / scorer.adapter.file)
    assert scorer.weight == pytest.approx(
        pack.manifest.fusion.mean[pack.manifest.fusion.names.index("scorer")], rel=1e-5
    )
    assert scorer.weight != 0
    card = (out / packs.CARD_FILE).read_text()
    assert text in card
    assert pack.id in card
    assert not list((config.cache_dir / "cross").glob("*")), "nothing half-done is left behind"


@pytest.mark.model
def test_a_scorer_that_serves_other_scores_than_training_had_is_not_written(
    config: Config, log: Log, below: Below, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gguf_tensors.write_lora
    monkeypatch.setattr(  # stands for a mistake in the export
        gguf_tensors,
        "write_lora",
        lambda path, architecture, pairs: write(
            path, architecture, {name: (-20 * a, b) for name, (a, b) in pairs.items()}
        ),
    )
    out = tmp_path / "pack"
    with pytest.raises(EngineError, match=r"other scores in llama.cpp than in training \(by [0-9.]+"):
        crossed(config, log, below, out)
    assert not (out / cli.ADAPTER_FILE).exists()
    assert packs.load(out).manifest.scorer.weight == 0


@pytest.mark.model
def test_tier_2_is_trained_from_the_command_line_and_stays_off_unless_it_pays(
    config: Config, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.write(log, tmp_path)
    files = ("--items", str(tmp_path / "items.jsonl"), "--interactions", str(tmp_path / "interactions.jsonl"))
    out = tmp_path / "pack"
    options = ("--cross", "cut", "--minutes", "0.02", "--cache-dir", str(config.cache_dir))
    for module in (recipe, cli):  # thirteen pairs of towers at their full number of steps take a minute
        monkeypatch.setattr(module, "Recipe", lambda: TOWERS)
    trained = CliRunner().invoke(train, [*files, "--out", str(out), *options], catch_exceptions=False)
    assert trained.exit_code == 0, trained.output
    assert "tier 2, smollm2-135m-first-10, " in trained.stdout
    assert "later users: NDCG@10 " in trained.stdout
    on = "\nit is on\n" in trained.stdout
    assert on != ("\nit stays off: " in trained.stdout)
    pack = packs.load(out)
    assert (pack.manifest.scorer.weight != 0) == (out / cli.ADAPTER_FILE).exists() == on
    card = (out / packs.CARD_FILE).read_text()
    assert "--cross cut --minutes 0.02\n" in card
    assert "## Tier 2\n" in card


def test_a_depth_that_there_is_not_is_refused(run: Run, tmp_path: Path) -> None:
    found = run("train", "--out", str(tmp_path / "pack"), "--cross", "half")
    assert found.returncode == 2
    assert "'half' is not one of 'cut', 'whole'" in found.stderr
