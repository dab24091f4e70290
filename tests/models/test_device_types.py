"""``device.toml``: what `quantize pick` chose here, and what `model pull` makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_reranker.cli.wiring import encoder_file
from edge_reranker.config import Config
from edge_reranker.errors import FailedPrecondition, ModelInvalid
from edge_reranker.models import ModelCache, device_types
from edge_reranker.models.device_types import Picked
from edge_reranker.training.recipe import MINILM

PICKED = Picked("F16", "Q8_0", 1.25, 0.9991, 'A "quick" chip\\')


def test_choices_stay_beside_each_other_and_a_new_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    device_types.write(tmp_path, "minilm", "encoder", PICKED)
    device_types.write(tmp_path, "smollm2-135m", "scorer", replace_type("BF16"))
    device_types.write(tmp_path, "minilm", "encoder", replace_type("Q8_0"))
    assert device_types.read(tmp_path) == {
        ("minilm", "encoder"): replace_type("Q8_0"),
        ("smollm2-135m", "scorer"): replace_type("BF16"),
    }


def replace_type(name: str) -> Picked:
    return Picked(name, PICKED.instead_of, PICKED.speed, PICKED.tau, PICKED.processor)


@pytest.mark.parametrize("content", ["[minilm", "minilm = 3", "[minilm.encoder]\ntype = 4\n", "\xff"])
def test_a_damaged_file_is_told_with_the_way_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / device_types.FILE).write_text(content, encoding="latin-1")
    with pytest.raises(
        FailedPrecondition, match=r"device\.toml: .*; delete it, or run `quantize pick` again"
    ):
        ModelCache(tmp_path).variants("minilm")


def test_without_a_choice_the_catalogue_decides(tmp_path: Path) -> None:
    (found,) = ModelCache(tmp_path).variants("minilm")
    assert found.quantisation == "Q8_0"
    ModelCache(tmp_path).pick("minilm", "encoder", PICKED)
    assert ModelCache(tmp_path).variants("minilm") == [replace(found, quantisation="F16")]


@pytest.mark.model
def test_what_was_picked_is_made_and_taken_by_a_pack_of_another_type(tmp_path: Path, cache_dir: Path) -> None:
    from edge_reranker.engine.quantiser import derive

    cache, config = ModelCache(tmp_path), Config(tmp_path, tmp_path / "s", tmp_path, "minilm")
    folder = tmp_path / "models" / "minilm"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "vocab.txt"):
        (folder / name).symlink_to(cache_dir / "models" / "minilm" / name)
    cache.pick("minilm", "encoder", PICKED)
    (made,) = cache.pull("minilm", derive, lambda _: None)
    assert made.made == "whole, F16"
    assert encoder_file(config, MINILM).name == made.file
    (tmp_path / "models" / device_types.FILE).unlink()
    with pytest.raises(ModelInvalid, match=r"not \(whole, F16\); run `edge-reranker model pull minilm`"):
        encoder_file(config, MINILM)
    (made,) = cache.pull("minilm", derive, lambda _: None)
    assert made.made == "whole, Q8_0"


@pytest.mark.model
def test_the_file_as_it_came_can_be_picked(tmp_path: Path, cache_dir: Path) -> None:
    from edge_reranker.engine.quantiser import derive

    folder = tmp_path / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (source,) = (cache_dir / "models" / "smollm2-135m").glob("*Q4_1.gguf")
    (folder / source.name).symlink_to(source)
    cache = ModelCache(tmp_path)
    cache.pick("smollm2-135m", "scorer", replace_type(device_types.PUBLISHED))
    cache.pull("smollm2-135m", derive, lambda _: None)
    file, path = cache.open("smollm2-135m", "scorer")
    assert file.made == "whole, published"
    assert path.read_bytes() == source.read_bytes()
