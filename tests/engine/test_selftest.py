"""The self-test: a sound model passes and shows its speed; a broken one is named with what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Role, Stop, WorkerEngine
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.engine.selftest import self_test
from edge_reranker.errors import EngineBusy, ModelInvalid
from edge_reranker.models.catalogue import known_pair
from edge_reranker.types import KnownPair
from tests import gguf_files

ROLES = pytest.mark.parametrize("role", ["encoder", "scorer"])


@contextmanager
def worker(path: Path, role: Role) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(EngineSpec(path, role, n_sequences=4))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        yield engine
    finally:
        engine.close()


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "role", "file"),
    [
        ("smollm2-135m", "encoder", "encoder_path"),
        ("smollm2-135m", "scorer", "scorer_path"),
        ("minilm", "encoder", "minilm_path"),
    ],
)
def test_a_catalogue_model_finds_its_recorded_margin_again(
    name: str, role: Role, file: str, request: pytest.FixtureRequest
) -> None:
    """The margins in the catalogue come from here: a margin of another model shows in the failure."""
    known = known_pair(name, role)
    assert known is not None
    with worker(request.getfixturevalue(file), role) as engine:
        report = self_test(engine, role, "it", Deadline(), known)
        assert report.margin == pytest.approx(known.margin, rel=0.02)
        assert 10 < report.tokens_per_s < 1e6
        backwards = KnownPair(known.text, known.far, known.near, known.margin)
        with pytest.raises(ModelInvalid, match="failed its self-test: it prefers"):
            self_test(engine, role, "it", Deadline(), backwards)
        wider = KnownPair(known.text, known.near, known.far, known.margin * 2.2)
        with pytest.raises(ModelInvalid, match="failed its self-test: it prefers"):
            self_test(engine, role, "it", Deadline(), wider)


@ROLES
def test_a_model_without_a_record_is_tried_for_finite_numbers_and_speed(role: Role, tmp_path: Path) -> None:
    path = gguf_files.write_llama(tmp_path / "sound.gguf", gguf_files.llama_weights())
    with worker(path, role) as engine:
        report = self_test(engine, role, "it", Deadline())
    assert report.margin is None
    assert report.tokens_per_s > 10


@ROLES
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_not_finite_are_noticed(role: Role, value: str, tmp_path: Path) -> None:
    weights = gguf_files.llama_weights()
    weights["blk.1.ffn_down.weight"][3, 5] = np.float32(value)
    path = gguf_files.write_llama(tmp_path / "bad.gguf", weights)
    wanted = "tiny encoder failed its self-test: its numbers are not finite"
    with worker(path, role) as engine, pytest.raises(ModelInvalid, match=wanted):
        self_test(engine, role, "tiny encoder", Deadline())


@ROLES
def test_a_worker_that_dies_meanwhile_is_the_models_fault_and_lack_of_time_is_not(role: Role) -> None:
    with pytest.raises(ModelInvalid, match="it failed its self-test: its worker died"):
        self_test(FakeEngine(fail_with=Stop.DIED), role, "it", Deadline())
    with pytest.raises(EngineBusy, match="did not end in time; allow more time"):
        self_test(FakeEngine(ms_per_sequence=20.0), role, "it", Deadline.after_ms(50))
