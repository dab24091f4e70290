"""A real service over a real socket, with a worker that is killed, starved or given nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import survival
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.models.pack import save
from edge_reranker.training.recipe import SMOLLM2
from edge_reranker_client import Candidate, EdgeReranker, Event, Item
from tests.parts import for_encoder
from tests.service import serving

pytestmark = pytest.mark.model


def test_a_service_outlives_its_workers_and_answers_meanwhile() -> None:
    """Nine kills of three kinds under load; `python -m benchmarks survival` has the hundred."""
    found = survival.kill(9)
    assert dict(found.by_signal) == {"SIGKILL": 3, "SIGSEGV": 3, "SIGABRT": 3}
    assert found.survived, found
    assert found.without_model, "the test's own premise: requests came while there was no worker"


def test_a_service_whose_worker_gets_too_little_memory_says_so_and_serves(
    data_dir: Path, cache_dir: Path
) -> None:
    config = data_dir / "starved.toml"
    config.write_text("memory_limit_mb = 300")
    save(for_encoder(SMOLLM2), data_dir / "pack")
    options = ("--pack", str(data_dir / "pack"), "--model", SMOLLM2.model)
    with serving(data_dir, cache_dir, "--config", str(config), *options) as process:
        with EdgeReranker(data_dir=data_dir) as client:
            client.record([Event("LIKE", Item("1", "Heat (1995)", tags=["Crime"]))])
            films = [Candidate("a", "Babe (1995)", tags=["Comedy"]), Candidate("b", "Casino", tags=["Crime"])]
            answer = client.rerank(films)
        assert answer.degraded_reason == "MODEL_UNAVAILABLE"
        assert answer.ids[0] == "b", "the lower tiers rank"
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert "no memory for a context of 512 tokens" in said
    assert "raise memory_limit_mb, which is 300" in said


@pytest.mark.parametrize("limit_mb", [40, 80, 120, 150, 200])
def test_no_memory_limit_leaves_a_worker_without_a_reason(encoder_path: Path, limit_mb: int) -> None:
    """Whatever it is that finds no memory: Python, the library or the model."""
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder", memory_limit_bytes=limit_mb << 20))
    try:
        assert not engine.wait_settled(Deadline.after_ms(20_000))
        assert encoder_path.name in engine.problem
        assert "ended while loading" not in engine.problem, "the worker itself says it"
        assert f"memory_limit_mb, which is {limit_mb}" in engine.problem
    finally:
        engine.close()
