"""Encoding 300 new items, one sequence per decode, against batches of 20 items."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, ratio, report
from benchmarks.peers import quiet
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.models import ModelCache
from edge_reranker.prompt import item_pieces

_ITEMS = 300
_BATCH = 20


def main() -> bool:
    """Through the worker, its messages counted in; the batches in this process, without messages."""
    _, path = ModelCache(cache_dir()).open("smollm2-135m", "encoder")
    engine = WorkerEngine(EngineSpec(path, "encoder"))
    batches = _Batches(path)
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        ids = engine.tokenize([item_pieces(item) for item in films()[:_ITEMS]], Deadline())
        calls = {
            "ours": lambda: engine.encode(ids, Deadline()),
            "batches": lambda: batches.encode(ids),
        }
        interleaved(calls, 1)
        spent = interleaved(calls, 5, pause_s=AFTER_MODEL_S)
    finally:
        engine.close()
        batches.close()
    speed = ratio(spent["batches"], spent["ours"])
    return report(
        "encode",
        {
            "n_items": _ITEMS,
            "ours_items_per_s": _ITEMS / statistics.median(spent["ours"]) * 1000.0,
            "batches_items_per_s": _ITEMS / statistics.median(spent["batches"]) * 1000.0,
            "ours_to_batches": speed,
        },
        {">= 0.9 x batches of 20": speed >= 0.9},
    )


class _Batches:
    """20 items in one decode; llama.cpp takes the mean over each sequence."""

    def __init__(self, path: Path) -> None:
        quiet()
        self._model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        parameters = llama.llama_context_default_params()
        parameters.n_seq_max = _BATCH
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 1_000
        parameters.kv_unified = True
        parameters.embeddings = True
        parameters.pooling_type = llama.LLAMA_POOLING_TYPE_MEAN
        parameters.n_threads = parameters.n_threads_batch = 2
        self._context: Any = llama.llama_init_from_model(self._model, parameters)
        self._batch = llama.llama_batch_init(1_000, 0, 1)

    def encode(self, items: Sequence[Sequence[int]]) -> None:
        """Vectors of all items, left where llama.cpp put them."""
        for start in range(0, len(items), _BATCH):
            llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
            at = 0
            for sequence, ids in enumerate(items[start : start + _BATCH]):
                for position, token in enumerate(ids):
                    self._batch.token[at] = token
                    self._batch.pos[at] = position
                    self._batch.n_seq_id[at] = 1
                    self._batch.seq_id[at][0] = sequence
                    self._batch.logits[at] = 1
                    at += 1
            self._batch.n_tokens = at
            assert llama.llama_decode(self._context, self._batch) == 0

    def close(self) -> None:
        """Frees the model."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)
