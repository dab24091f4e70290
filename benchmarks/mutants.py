"""1,000 mutated GGUF files: refused by the header check, or contained by the worker that loads them."""

from __future__ import annotations

import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.common import report
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.errors import ModelInvalid
from edge_reranker.models.gguf_header import check_header
from edge_reranker.types import ModelState

_MUTANTS = 1_000
_LOAD_MS = 20_000.0
_MEMORY_LIMIT_BYTES = 1 << 30
_N_EMBD, _N_FF, _N_VOCAB = 32, 64, 64


@dataclass(slots=True)
class _Writer:
    """Writes a GGUF file and remembers where what is."""

    data: bytearray = field(default_factory=bytearray)
    counts: list[int] = field(default_factory=list)  # where lengths and counts stand, 8 bytes each
    kinds: list[int] = field(default_factory=list)  # where types of values stand, 4 bytes each
    tensors: list[tuple[int, int]] = field(default_factory=list)  # from and to, without the name

    def count(self, value: int) -> None:
        self.counts.append(len(self.data))
        self.data += struct.pack("<Q", value)

    def text(self, value: str) -> None:
        self.count(len(value))
        self.data += value.encode()

    def pair(self, key: str, value: str | int | float | list[str] | list[int]) -> None:
        self.text(key)
        self.kinds.append(len(self.data))
        if isinstance(value, list):
            self.data += struct.pack("<II", 9, 8 if isinstance(value[0], str) else 5)
            self.count(len(value))
        for each in value if isinstance(value, list) else [value]:
            kind = {str: 8, int: 4, float: 6}[type(each)]
            self.data += b"" if isinstance(value, list) else struct.pack("<I", kind)
            if isinstance(each, str):
                self.text(each)
            else:
                self.data += struct.pack("<I" if isinstance(each, int) else "<f", each)

    def tensor(self, name: str, shape: tuple[int, ...], offset: int) -> None:
        self.text(name)
        start = len(self.data)
        self.data += struct.pack("<I", len(shape))
        for n in shape:
            self.count(n)
        self.data += struct.pack("<I", 0)
        self.count(offset)
        self.tensors.append((start, len(self.data)))


@dataclass(frozen=True, slots=True)
class Tiny:
    """A llama of one block with random weights, as a GGUF file."""

    data: bytes
    n_header: int
    counts: tuple[int, ...]
    kinds: tuple[int, ...]
    tensors: tuple[tuple[int, int], ...]


def tiny() -> Tiny:
    """A model of 90 KB that llama.cpp loads."""
    square, wide = (_N_EMBD, _N_EMBD), (_N_EMBD, _N_FF)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (_N_EMBD, _N_VOCAB), "output_norm": (_N_EMBD,)}
    shapes |= {f"blk.0.attn_{name}": square for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.attn_norm": (_N_EMBD,), "blk.0.ffn_norm": (_N_EMBD,)}
    shapes |= {"blk.0.ffn_gate": wide, "blk.0.ffn_up": wide, "blk.0.ffn_down": wide[::-1]}
    pairs: dict[str, str | int | float | list[str] | list[int]] = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "llama.context_length": 512,
        "llama.embedding_length": _N_EMBD,
        "llama.block_count": 1,
        "llama.feed_forward_length": _N_FF,
        "llama.attention.head_count": 4,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 8,
        "llama.vocab_size": _N_VOCAB,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [chr(ord("0") + n) for n in range(_N_VOCAB)],
        "tokenizer.ggml.token_type": [1] * _N_VOCAB,
        "tokenizer.ggml.merges": ["A B", "C D"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    writer = _Writer()
    writer.data += struct.pack("<4sI", b"GGUF", 3)
    writer.count(len(shapes))
    writer.count(len(pairs))
    for key, value in pairs.items():
        writer.pair(key, value)
    offset = 0
    for name, shape in shapes.items():
        writer.tensor(f"{name}.weight", shape, offset)
        offset += int(np.prod(shape)) * 4
    n_header = len(writer.data)
    weights = np.random.default_rng(0).normal(0, 0.1, offset // 4).astype("<f4").tobytes()
    data = bytes(writer.data) + bytes(-n_header % 32) + weights
    return Tiny(data, n_header, tuple(writer.counts), tuple(writer.kinds), tuple(writer.tensors))


def mutants(n: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """``n`` mutants of the tiny model, each with the name of its kind."""
    draw = random.Random(seed)
    model = tiny()
    kinds: tuple[Callable[[Tiny, random.Random], bytes], ...] = (
        _flipped,
        _cut,
        _blown_up,
        _retyped,
        _swapped,
    )
    while n:
        mutate = draw.choice(kinds)
        data = mutate(model, draw)
        if data != model.data:
            yield mutate.__name__.strip("_"), data
            n -= 1


def _flipped(model: Tiny, draw: random.Random) -> bytes:
    """One to eight bits of the header."""
    data = bytearray(model.data)
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(model.n_header)] ^= 1 << draw.randrange(8)
    return bytes(data)


def _cut(model: Tiny, draw: random.Random) -> bytes:
    """The end is missing; half of the time, of the header already."""
    return model.data[: draw.randrange(draw.choice((model.n_header, len(model.data))))]


def _blown_up(model: Tiny, draw: random.Random) -> bytes:
    """A length or count far too large, or by one."""
    data = bytearray(model.data)
    place = draw.choice(model.counts)
    (value,) = struct.unpack_from("<Q", data, place)
    value = draw.choice((1 << 60, 1 << 40, 1 << 63, (1 << 64) - 1, value + 1, value * 1_000, 0))
    struct.pack_into("<Q", data, place, value)
    return bytes(data)


def _retyped(model: Tiny, draw: random.Random) -> bytes:
    """A value of another type, arrays of arrays among them."""
    data = bytearray(model.data)
    place = draw.choice(model.kinds)
    struct.pack_into("<I", data, place, draw.randrange(14))
    if draw.random() < 0.5:
        struct.pack_into("<IIQ", data, place, 9, 9, 1)
    return bytes(data)


def _swapped(model: Tiny, draw: random.Random) -> bytes:
    """Two tensors with each other's shape, type and place, or a part of it."""
    data = bytearray(model.data)
    (a, end_a), (b, end_b) = draw.sample(model.tensors, 2)
    if draw.random() < 0.5:
        a, b = end_a - 8, end_b - 8  # the places only
    size = min(end_a - a, end_b - b)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return bytes(data)


@dataclass(slots=True)
class Fates:
    """How many of each kind the header check refused and let pass, and what workers made of the latter."""

    refused: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    workers: Counter[str] = field(default_factory=Counter)
    worst_check_ms: float = 0.0
    worst_load_s: float = 0.0


def expose(n: int, *, most_workers: int, folder: Path, seed: int = 0) -> Fates:
    """Checks ``n`` mutants, and lets real workers load the first ``most_workers`` that pass."""
    fates = Fates()
    for number, (kind, data) in enumerate(mutants(n, seed)):
        path = folder / f"{number}.gguf"
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            check_header(path)
            fates.passed[kind] += 1
        except ModelInvalid:
            fates.refused[kind] += 1
        finally:
            fates.worst_check_ms = max(fates.worst_check_ms, (time.perf_counter() - start) * 1000.0)
        if fates.passed.total() > fates.workers.total() < most_workers:
            start = time.perf_counter()
            fates.workers[_load(path)] += 1
            fates.worst_load_s = max(fates.worst_load_s, time.perf_counter() - start)
        path.unlink()
    return fates


def _load(path: Path) -> str:
    """What a worker does with a file: refuses it, dies of it, hangs, or reads with it."""
    worker = WorkerEngine(EngineSpec(path, "encoder", memory_limit_bytes=_MEMORY_LIMIT_BYTES))
    try:
        if worker.wait_settled(Deadline.after_ms(_LOAD_MS)):
            return f"loaded, then {worker.encode([[1, 2, 3]], Deadline.after_ms(5_000)).stop}"
        if worker.state != ModelState.FAILED:
            return "hung"
        if not worker.problem:
            return "failed without a reason"
        return "died" if "ended while loading" in worker.problem else "refused"
    finally:
        worker.close()


def main() -> bool:
    """All 1,000; every one that passes the check is given to a worker."""
    with tempfile.TemporaryDirectory(prefix="er-mutants-") as folder:
        fates = expose(_MUTANTS, most_workers=_MUTANTS, folder=Path(folder))
    return report(
        "mutants",
        {
            "n_mutants": _MUTANTS,
            "refused_by_header": fates.refused.total(),
            "refused_by_kind": dict(fates.refused),
            "passed_by_kind": dict(fates.passed),
            "workers": dict(fates.workers),
            "memory_limit_mb": _MEMORY_LIMIT_BYTES >> 20,
            "worst_check_ms": fates.worst_check_ms,
            "worst_load_s": fates.worst_load_s,
        },
        {
            "all refused or contained": fates.refused.total() + fates.workers.total() == _MUTANTS,
            "none hung, and each failure has a reason": not {"hung", "failed without a reason"}
            & set(fates.workers),
        },
    )
