"""A pack brings texts and their vectors, by which an encoder on another device is tried."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Stop
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.errors import PackInvalid
from edge_reranker.models import load_pack
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Pack, Probes
from edge_reranker.prompt import item_pieces
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring.probes import MIN_COSINE, likeness
from edge_reranker.types import Item
from tests.parts import N_DIMS, small_pack
from tests.service import Run

TEXTS = ("one text", "another")
LONG = Deadline()


def vectors(towers: Towers, engine: FakeEngine, prefix: str = "") -> np.ndarray:
    ids = engine.tokenize([item_pieces(Item("", text), prefix) for text in TEXTS], LONG)
    return towers.item_vectors(engine.encode(ids, LONG).vectors)


def with_probes(**changes: object) -> Pack:
    small = small_pack(n_learned=4)
    made = vectors(Towers.of(small.head), FakeEngine())
    probes = dataclasses.replace(Probes(TEXTS, made), **changes)  # type: ignore[arg-type]
    return packs.make(small.manifest, small.head, probes=probes)


@pytest.mark.parametrize("n_learned", [0, 4, N_DIMS])
def test_the_encoder_of_the_training_passes_and_another_does_not(n_learned: int) -> None:
    towers = Towers.of(small_pack(n_learned=n_learned).head)
    wanted = vectors(towers, FakeEngine())
    assert likeness(FakeEngine(), towers, TEXTS, wanted, LONG) == pytest.approx(1.0, abs=1e-3)
    assert likeness(FakeEngine(), towers, TEXTS, wanted, LONG, prefix="film: ") < MIN_COSINE
    assert likeness(FakeEngine(fail_with=Stop.DEADLINE), towers, TEXTS, wanted, LONG) == 0.0


def test_one_wrong_part_of_one_text_is_enough() -> None:
    towers = Towers.of(small_pack(n_learned=4).head)
    wanted = vectors(towers, FakeEngine())
    wanted[1, 4:] = -wanted[1, 4:]
    assert likeness(FakeEngine(), towers, TEXTS, wanted, LONG) == pytest.approx(-1.0, abs=1e-3)


def test_a_pack_keeps_its_probes(tmp_path: Path) -> None:
    pack = with_probes()
    packs.save(pack, tmp_path)
    found = packs.load(tmp_path)
    assert found.id == pack.id
    assert found.probes is not None
    assert found.probes.texts == TEXTS
    np.testing.assert_array_equal(found.probes.vectors, with_probes().probe_vectors)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": ("only one",)}, r"probe_vectors is float16 \(2, 8\), not float16 \(1, 8\)"),
        ({"vectors": np.zeros((2, 3), np.float16)}, r"is float16 \(2, 3\), not float16 \(2, 8\)"),
        ({"vectors": np.zeros((2, N_DIMS), np.float32)}, "is float32"),
        ({"vectors": np.full((2, N_DIMS), np.nan, np.float16)}, "not finite"),
    ],
)
def test_probes_that_do_not_fit_the_pack_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PackInvalid, match=said):
        with_probes(**changes)


@pytest.mark.model
def test_doctor_tries_the_encoder_by_the_packs_own_vectors(run: Run, data_dir: Path) -> None:
    shipped = load_pack(Path(__file__).parents[1] / "packs" / "generic-minilm")
    assert shipped.probes is not None
    turned = Probes(shipped.probes.texts, shipped.probes.vectors[:, ::-1].copy())
    packs.save(packs.make(shipped.manifest, shipped.head, probes=turned), data_dir / "pack")
    for pack, ok in (("generic-minilm", True), (str(data_dir / "pack"), False)):
        told = run("doctor", "--json", "--pack", pack).stdout
        finding = {each["what"]: each for each in json.loads(told)}["pack"]
        assert finding["ok"] is ok, finding
    assert "makes other vectors than those that pack generic-minilm-" in finding["detail"]
