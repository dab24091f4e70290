"""Both modes of a scorer over suffix lengths, candidates and types: the table of decision 0007. Minutes."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.common import AFTER_MODEL_S, cache_dir, films, interleaved, ratio, report, scored
from benchmarks.cross import prompt
from benchmarks.peers import OneDecode
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.engine.quantiser import derive
from edge_reranker.types import Piece

_LENGTHS = (4, 8, 16, 32)
_CANDIDATES = (5, 20, 50)
_ROUNDS = 5
_TYPES = ("F16", "Q8_0", "Q4_0")


def main() -> bool:
    """One line a type, length and number: milliseconds, and speed against one decode of as many tokens."""
    source = next(path for path in (cache_dir() / "models" / "smollm2-135m").glob("*Instruct*.gguf"))
    met = True
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        for quantisation in _TYPES:
            path = Path(name) / f"{quantisation}.gguf"
            derive(source, path, quantisation=quantisation)
            met &= _table(path, quantisation)
    return met


def _table(path: Path, quantisation: str) -> bool:
    isolated = WorkerEngine(EngineSpec(path, "scorer"))
    unified = WorkerEngine(EngineSpec(path, "scorer", mode="unified", n_sequences=64))
    limit = OneDecode(path, n_ctx=4_096)
    worst: dict[str, float] = {"isolated": 9.0, "unified": 9.0}
    try:
        for engine in (isolated, unified):
            assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        prefix, titles = prompt(isolated)
        limit.set_prefix(prefix)
        text = " ".join(item.title for item in films())
        (stream,) = isolated.tokenize([[Piece(text)]], Deadline())
        cases = [
            (f"{length}", n, [stream[at * length : (at + 1) * length] for at in range(n)])
            for length in _LENGTHS
            for n in _CANDIDATES
        ]
        cases.append(("8", 100, [stream[at * 8 : (at + 1) * 8] for at in range(100)]))
        cases.append(("8-12", 50, titles))
        for length, n, suffixes in cases:
            flat = [token for suffix in suffixes for token in suffix]
            calls = {
                "limit": lambda flat=flat: limit.decode(flat),
                "isolated": lambda given=suffixes: scored(isolated, prefix, given),
                "unified": lambda given=suffixes: scored(unified, prefix, given),
            }
            interleaved(calls, 1)
            spent = interleaved(calls, _ROUNDS, pause_s=AFTER_MODEL_S)
            speeds = {mode: ratio(spent["limit"], spent[mode]) for mode in worst}
            worst = {mode: min(worst[mode], speed) for mode, speed in speeds.items()}
            report(
                "modes",
                {
                    "type": quantisation,
                    "suffix_tokens": length,
                    "n_candidates": n,
                    **{f"{mode}_ms": statistics.median(values) for mode, values in spent.items()},
                    **{f"{mode}_to_limit": speed for mode, speed in speeds.items()},
                },
                {},
            )
    finally:
        isolated.close()
        unified.close()
        limit.close()
    return report("modes", {"type": quantisation, **{f"{k}_worst": v for k, v in worst.items()}}, {})
