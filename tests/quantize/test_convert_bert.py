"""A BERT as others publish it: its head's name in front, tokenizer.json alone, several files, CLS pooling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from edge_reranker.errors import ModelInvalid
from edge_reranker.models.convert import convert_bert
from edge_reranker_quantize.convert import convert
from tests.models.test_convert import CONFIG, IDS, VOCABULARY, weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files of `model pull` and no more."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder


def contents(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    reader = gguf.GGUFReader(path)
    kept = {
        n: field.contents() for n, field in reader.fields.items() if n.startswith(("bert.", "tokenizer."))
    }
    return {tensor.name: tensor.data.tobytes() for tensor in reader.tensors}, kept


def test_however_it_is_published_it_becomes_what_model_pull_makes(folder: Path, tmp_path: Path) -> None:
    convert_bert(folder, tmp_path / "pulled.gguf")
    convert(folder, tmp_path / "same.gguf")
    (folder / "vocab.txt").unlink()
    model = {"type": "WordPiece", "vocab": IDS}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "normalizer": {"lowercase": True}}))
    (folder / "model.safetensors").unlink()
    arrays: dict[str, Any] = {f"bert.{name}": array for name, array in weights().items()}
    arrays |= {"cls.predictions.bias": np.ones(9, np.float32), "bert.embeddings.position_ids": np.arange(64)}
    where = {name: f"{at % 2}.safetensors" for at, name in enumerate(arrays)}
    for file in set(where.values()):
        save_file({name: arrays[name] for name in arrays if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    convert(folder, tmp_path / "other.gguf")
    assert contents(tmp_path / "same.gguf") == contents(tmp_path / "pulled.gguf")
    assert contents(tmp_path / "other.gguf") == contents(tmp_path / "pulled.gguf")


def test_pooling_is_that_of_sentence_transformers(folder: Path, tmp_path: Path) -> None:
    (folder / "1_Pooling").mkdir()
    told = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(told))
    convert(folder, tmp_path / "out.gguf")
    _, fields = contents(tmp_path / "out.gguf")
    assert fields["bert.pooling_type"] == gguf.PoolingType.CLS


@pytest.mark.parametrize(
    ("file", "told", "said"),
    [
        ("tokenizer_config.json", {"do_lower_case": False}, "tells capitals from small letters"),
        ("tokenizer.json", {"normalizer": {"lowercase": False}}, "tells capitals from small letters"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ("config.json", CONFIG | {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("config.json", CONFIG | {"num_hidden_layers": 3}, r"no tensor encoder\.layer\.2"),
        ("config.json", CONFIG | {"num_hidden_layers": 1}, r"encoder\.layer\.1\.\S+ has no place"),
    ],
)
def test_what_llama_cpp_would_read_otherwise_is_refused(
    file: str, told: object, said: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / file).write_text(json.dumps(told))
    with pytest.raises(ModelInvalid, match=rf"no BERT that can be converted: .*{said}") as caught:
        convert(folder, tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()
