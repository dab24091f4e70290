"""A pack and the encoder that it reads: told apart, told how, and served."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_reranker.cli.wiring import encoder_file, open_device
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapter, Encoded
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.errors import Missing, ModelInvalid
from edge_reranker.models import ModelCache
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder
from edge_reranker.models.pull import sha256_of
from edge_reranker.prompt import item_text
from edge_reranker.training.recipe import MINILM, SMOLLM2
from edge_reranker.types import RerankQuery
from edge_reranker_client import Candidate, EdgeReranker, Event, Item
from tests import gguf_files
from tests.parts import film, films, for_encoder, liked, pipeline, small_pack
from tests.service import Run, serving


def config(tmp_path: Path, cache: Path, *, model: str = "minilm", pack: str = "") -> Config:
    return Config(tmp_path, tmp_path / "s", cache, model, pack=pack, key_source="file")


@pytest.mark.parametrize("encoder", [SMOLLM2, MINILM])
def test_a_missing_encoder_says_which_pull_makes_it(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(Missing, match=f"`edge-reranker model pull {encoder.model}`"):
        encoder_file(config(tmp_path, tmp_path), encoder)


def test_a_missing_encoder_of_ones_own_says_how_it_is_added(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="`edge-reranker model add PATH --name mine --role encoder"):
        encoder_file(config(tmp_path, tmp_path), Encoder("mine", None, 64, sha256="ab"))


def test_an_encoder_of_ones_own_is_known_by_its_hash(tmp_path: Path) -> None:
    path = gguf_files.write_llama(tmp_path / "mine.gguf", gguf_files.llama_weights())
    sha256 = sha256_of(path)
    ModelCache(tmp_path).add(
        path, sha256=sha256, name="mine", role="encoder", license_="MIT", say=lambda _: None
    )
    encoder = Encoder("mine", None, gguf_files.N_EMBD, sha256=sha256)
    assert encoder_file(config(tmp_path, tmp_path), encoder).name == "encoder.gguf"
    with pytest.raises(ModelInvalid, match=f"SHA-256 {'0' * 64}, not {sha256}; add that file"):
        encoder_file(config(tmp_path, tmp_path), dataclasses.replace(encoder, sha256="0" * 64))


class Watched(FakeEngine):
    """Keeps what it was given to encode; the fake engine's tokens are bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[bytes] = []

    def encode(
        self,
        sequences: Sequence[Sequence[int]],
        deadline: Deadline,
        *,
        background: bool = False,
        adapter: Adapter | None = None,
    ) -> Encoded:
        self.texts += [bytes(ids) for ids in sequences]
        return super().encode(sequences, deadline, background=background, adapter=adapter)


def test_each_text_is_encoded_behind_the_packs_prefix(data_dir: Path) -> None:
    manifest, engine = small_pack().manifest, Watched()
    encoder = dataclasses.replace(manifest.encoder, prefix="film: ")
    pack = packs.make(dataclasses.replace(manifest, encoder=encoder), small_pack().head)
    with pipeline(data_dir, encoder=engine, pack=pack) as whole:
        whole.record("app", liked(1))
        whole.rerank("app", RerankQuery(films(3)), Deadline.after_ms(10_000))
    assert set(engine.texts) == {f"film: {item_text(film(number))}".encode() for number in range(3)}


@pytest.mark.model
def test_a_service_ranks_with_a_pack_for_the_other_encoder(
    data_dir: Path, cache_dir: Path, encoder_path: Path
) -> None:
    packs.save(for_encoder(SMOLLM2), data_dir / "pack")
    options = ("--pack", str(data_dir / "pack"), "--model", "smollm2-135m")
    with (
        serving(data_dir, cache_dir, *options),
        EdgeReranker(data_dir=data_dir, owner=True) as client,
    ):
        client.record([Event("LIKE", Item("liked", "Heat (1995)", tags=["Crime"]))])
        client.warmup()
        found = client.rerank([Candidate(str(n), f"Film number {n}") for n in range(5)], budget_ms=20_000)
        (model,) = [
            each for each in client.models() if each.name == "smollm2-135m" and each.role == "encoder"
        ]
    assert (found.coverage, found.degraded_reason) == (1.0, "")
    assert {result.tier for result in found.results} == {1}
    assert (model.role, model.state) == ("encoder", "READY")


@pytest.mark.model
def test_a_pack_for_another_encoder_says_which_model_to_give(
    data_dir: Path, cache_dir: Path, run: Run
) -> None:
    packs.save(for_encoder(SMOLLM2), data_dir / "pack")
    device = open_device(config(data_dir, cache_dir, model="minilm", pack=str(data_dir / "pack")))
    device.close()
    assert device.problems[0].endswith(
        "reads smollm2-135m, not minilm: no vectors; give --model smollm2-135m"
    )
    told = {"EDGE_RERANKER_PACK": str(data_dir / "pack")}
    finding = {each["what"]: each for each in json.loads(run("doctor", "--json", **told).stdout)}["pack"]
    assert (finding["ok"], finding["next"][:26]) == (False, "give --model smollm2-135m,")
    fits = run("doctor", "--json", "--model", "smollm2-135m", **told).stdout
    assert {each["what"]: each["ok"] for each in json.loads(fits)}["pack"] is True


def test_train_knows_its_encoders(run: Run, data_dir: Path) -> None:
    refused = run("train", "--encoder", "nobody", "--out", str(data_dir / "pack"))
    assert refused.returncode != 0
    assert "'nobody'; there are auto, minilm, smollm2-135m" in refused.stderr
    assert not (data_dir / "pack").exists()
