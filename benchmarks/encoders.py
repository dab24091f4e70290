"""Encoding new items: MiniLM beside SmolLM2's 10 blocks, each as the service runs it."""

from __future__ import annotations

import statistics

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, ratio, report
from edge_reranker.cli.wiring import encoder_engine
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import WorkerEngine
from edge_reranker.prompt import item_pieces
from edge_reranker.training.recipe import MINILM, SMOLLM2

_ITEMS = 200


def main() -> bool:
    """Milliseconds an item, medians of seven interleaved rounds; `make bench` pulls both models."""
    config = Config(cache_dir(), cache_dir() / "socket", cache_dir(), SMOLLM2.model)
    engines = {encoder.model: encoder_engine(config, encoder) for encoder in (SMOLLM2, MINILM)}
    try:
        ids = {name: _tokens(engine) for name, engine in engines.items()}
        calls = {
            name: lambda engine=engine, name=name: engine.encode(ids[name], Deadline())
            for name, engine in engines.items()
        }
        interleaved(calls, 1)
        spent = interleaved(calls, 7, pause_s=AFTER_MODEL_S)
    finally:
        for engine in engines.values():
            engine.close()
    cost = ratio(spent[MINILM.model], spent[SMOLLM2.model])
    return report(
        "encoders",
        {
            "n_items": _ITEMS,
            **{f"{name}_ms_per_item": statistics.median(times) / _ITEMS for name, times in spent.items()},
            **{f"{name}_tokens_per_item": sum(map(len, ids[name])) / _ITEMS for name in engines},
            "minilm_to_smollm2": cost,
        },
        {"MiniLM <= 0.5 x SmolLM2's time": cost <= 0.5},
    )


def _tokens(engine: WorkerEngine) -> list[list[int]]:
    assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
    return engine.tokenize([item_pieces(item) for item in films()[:_ITEMS]], Deadline())
