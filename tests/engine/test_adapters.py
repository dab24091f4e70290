"""LoRA adapters in a real worker: exact mathematics on tiny files, and the default model's own sizes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapted, Adapter, Engine, EngineSpec, Role, Stop, WorkerEngine
from edge_reranker.engine.adapters import MAX_LOADED
from edge_reranker.errors import InvalidArgument, ModelInvalid
from tests import gguf_files

WEIGHTS = gguf_files.llama_weights()
PAIRS = gguf_files.lora(
    {name: w.shape for name, w in WEIGHTS.items() if name.startswith("blk") and w.ndim == 2}
)
ALPHA = 8.0  # alpha / rank = 2: a forgotten factor would show
TEXTS = [[72, 101, 97, 116], [67, 97, 115, 105, 110, 111], [5, 6, 7]]
PREFIX = list(range(40, 90))


@dataclass
class Tiny:
    """A worker of either role with a tiny model, and how to ask it for numbers."""

    engine: WorkerEngine
    role: Role
    folder: Path

    def numbers(self, adapter: Adapter | None = None, engine: Engine | None = None) -> np.ndarray:
        return numbers(engine or self.engine, self.role, adapter)

    def adapter(self, seed: int = 1, scale: float = 1.0) -> Adapter:
        path = self.folder / f"adapter-{seed}.gguf"
        if not path.exists():
            shapes = {name: (b.shape[0], a.shape[1]) for name, (a, b) in PAIRS.items()}
            gguf_files.write_lora(path, gguf_files.lora(shapes, seed=seed), alpha=ALPHA)
        return Adapter(path, scale)


def numbers(engine: Engine, role: Role, adapter: Adapter | None = None) -> np.ndarray:
    if role == "encoder":
        encoded = engine.encode(TEXTS, Deadline(), adapter=adapter)
        assert encoded.stop == Stop.DONE
        return encoded.vectors
    scored = engine.score(PREFIX, TEXTS, list(range(256)), Deadline(), adapter=adapter)
    assert scored.stop == Stop.DONE
    return scored.logits


@pytest.fixture(scope="module", params=["encoder", "scorer"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    folder = tmp_path_factory.mktemp("tiny")
    base = gguf_files.write_llama(folder / "base.gguf", WEIGHTS)
    engine = WorkerEngine(EngineSpec(base, request.param, n_sequences=4))
    assert engine.wait_ready(Deadline.after_ms(30_000)), engine.problem
    yield Tiny(engine, request.param, folder)
    engine.close()


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_an_adapter_computes_what_merged_weights_compute(tiny: Tiny, scale: float) -> None:
    """To 1e-3 of a vector, to 0.01 of a logit (of up to 15): cache and flash attention round to halves."""
    path = gguf_files.write_lora(tiny.folder / "all.gguf", PAIRS, alpha=ALPHA)
    factor = np.float32(scale * ALPHA / gguf_files.RANK)
    merged = {
        name: weight + factor * PAIRS[name][1] @ PAIRS[name][0] if name in PAIRS else weight
        for name, weight in WEIGHTS.items()
    }
    file = gguf_files.write_llama(tiny.folder / f"merged{scale}.gguf", merged)
    engine = WorkerEngine(EngineSpec(file, tiny.role, n_sequences=4))
    try:
        assert engine.wait_ready(Deadline.after_ms(30_000)), engine.problem
        wanted = numbers(engine, tiny.role)
    finally:
        engine.close()
    found = tiny.numbers(Adapter(path, scale))
    assert np.abs(found - wanted).max() < (1e-3 if tiny.role == "encoder" else 0.01)
    assert np.abs(found - tiny.numbers()).max() > 1.0, "the test's own premise: the adapter changes much"


def test_scale_0_and_going_back_give_the_bare_models_bits(tiny: Tiny) -> None:
    bare = tiny.numbers()
    adapted = tiny.numbers(tiny.adapter())
    assert not np.array_equal(adapted, bare)
    assert np.array_equal(tiny.numbers(tiny.adapter(scale=0.0)), bare)
    assert np.array_equal(tiny.numbers(tiny.adapter()), adapted)
    assert np.array_equal(tiny.numbers(), bare)


def test_packs_that_take_turns_on_one_worker_never_get_each_others_adapter(tiny: Tiny) -> None:
    engines = [tiny.engine, *(Adapted(tiny.engine, tiny.adapter(seed)) for seed in (1, 2))]
    wanted = [tiny.numbers(engine=engine) for engine in engines]
    assert not np.array_equal(wanted[1], wanted[2])
    pid, found = tiny.engine.pid, [[], [], []]

    def ask(which: int) -> None:
        for _ in range(10):
            found[which].append(tiny.numbers(engine=engines[which]))

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for which in range(3):
        assert len(found[which]) == 10
        assert all(np.array_equal(each, wanted[which]) for each in found[which])
    assert tiny.engine.pid == pid, "the model was not loaded again"


def test_more_adapters_than_are_kept_all_work_again(tiny: Tiny) -> None:
    seeds = range(10, 10 + MAX_LOADED + 2)
    first = [tiny.numbers(tiny.adapter(seed)) for seed in seeds]
    pid = tiny.engine.pid
    assert all(
        np.array_equal(tiny.numbers(tiny.adapter(seed)), each)
        for seed, each in zip(seeds, first, strict=True)
    )
    assert tiny.engine.pid == pid


def test_scale_0_is_the_bare_model_even_if_the_file_holds_infinity(tiny: Tiny) -> None:
    pairs = {name: (a, b * np.float32("inf")) for name, (a, b) in PAIRS.items()}
    path = gguf_files.write_lora(tiny.folder / "infinite.gguf", pairs)
    assert np.array_equal(tiny.numbers(Adapter(path, 0.0)), tiny.numbers())
    assert not np.isfinite(tiny.numbers(Adapter(path))).all()


def test_the_adapters_in_memory_are_bounded_and_the_one_in_effect_stays(tmp_path: Path) -> None:
    from edge_reranker.engine.llama import LlamaModel

    model = LlamaModel(EngineSpec(gguf_files.write_llama(tmp_path / "base.gguf", WEIGHTS), "encoder"))
    shapes = {"blk.0.attn_q.weight": (gguf_files.N_EMBD, gguf_files.N_EMBD)}
    paths = [
        gguf_files.write_lora(tmp_path / f"{seed}.gguf", gguf_files.lora(shapes, seed=seed))
        for seed in range(MAX_LOADED + 2)
    ]
    model.use_adapter(Adapter(paths[0]))
    for path in paths[1:]:
        model.load_adapter(path)
    assert model._adapters.loaded == [paths[0], *paths[3:]]
    for path in paths:
        model.use_adapter(Adapter(path))
    assert model._adapters.loaded == paths[2:]


def test_a_file_that_was_replaced_is_another_adapter(tiny: Tiny) -> None:
    path = tiny.folder / "replaced.gguf"
    path.write_bytes(tiny.adapter(1).path.read_bytes())
    before = tiny.numbers(Adapter(path))
    other = tiny.folder / "other.gguf"
    other.write_bytes(tiny.adapter(2).path.read_bytes())
    other.replace(path)
    assert np.array_equal(tiny.numbers(Adapter(path)), tiny.numbers(tiny.adapter(2)))
    assert not np.array_equal(tiny.numbers(Adapter(path)), before)


def test_a_worker_that_was_started_again_uses_the_adapter_again(tiny: Tiny) -> None:
    engine = Adapted(tiny.engine, tiny.adapter())
    before, pid = tiny.numbers(engine=engine), tiny.engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while tiny.engine.pid == pid or not engine.wait_ready(Deadline.after_ms(10_000)):
        pass
    assert np.array_equal(tiny.numbers(engine=engine), before)


def no_file(folder: Path) -> Path:
    return folder / "nowhere.gguf"


def not_gguf(folder: Path) -> Path:
    (folder / "text.gguf").write_text("an adapter, honestly")
    return folder / "text.gguf"


def cut_off(folder: Path) -> Path:
    whole = gguf_files.write_lora(folder / "whole.gguf", PAIRS).read_bytes()
    (folder / "half.gguf").write_bytes(whole[: len(whole) // 2])
    return folder / "half.gguf"


def a_whole_model(folder: Path) -> Path:
    return folder / "base.gguf"


def another_architecture(folder: Path) -> Path:
    return gguf_files.write_lora(folder / "bert.gguf", PAIRS, architecture="bert")


def other_sizes(folder: Path) -> Path:
    shapes = {name: (b.shape[0] * 2, a.shape[1] * 2) for name, (a, b) in PAIRS.items()}
    return gguf_files.write_lora(folder / "wide.gguf", gguf_files.lora(shapes))


def more_blocks(folder: Path) -> Path:
    pairs = gguf_files.lora({"blk.7.attn_q.weight": (gguf_files.N_EMBD, gguf_files.N_EMBD)})
    return gguf_files.write_lora(folder / "deep.gguf", pairs)


@pytest.mark.parametrize(
    "bad", [no_file, not_gguf, cut_off, a_whole_model, another_architecture, other_sizes, more_blocks]
)
def test_what_is_no_adapter_for_the_model_is_named_and_changes_nothing(
    tiny: Tiny, bad: Callable[[Path], Path]
) -> None:
    path = bad(tiny.folder)
    adapted, pid = tiny.numbers(tiny.adapter()), tiny.engine.pid
    with pytest.raises(ModelInvalid, match=rf"{path.name}: .*; (give|put it back)"):
        tiny.engine.load_adapter(path, Deadline.after_ms(5_000))
    if tiny.role == "encoder":
        assert tiny.engine.encode(TEXTS, Deadline(), adapter=Adapter(path)).stop == Stop.DIED
    else:
        scored = tiny.engine.score(PREFIX, TEXTS, [1], Deadline(), adapter=Adapter(path))
        assert scored.stop == Stop.DIED
        assert not scored.reached.any()
    assert np.array_equal(tiny.numbers(tiny.adapter()), adapted)
    assert tiny.engine.pid == pid


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    with pytest.raises(InvalidArgument, match=r"adapter\.scale"):
        Adapter(Path("a.gguf"), scale)


@pytest.mark.model
@pytest.mark.parametrize("role", ["encoder", "scorer"])
def test_the_default_model_takes_an_adapter_on_all_of_its_matrices_and_gives_it_back(
    role: Role, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(f"{role}_path")
    path = gguf_files.write_lora(tmp_path / "a.gguf", gguf_files.lora(gguf_files.matrices(model)))
    engine = WorkerEngine(EngineSpec(model, role))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        engine.load_adapter(path, Deadline())
        bare = numbers(engine, role)
        adapted = numbers(engine, role, Adapter(path))
        assert np.isfinite(adapted).all()
        assert not np.array_equal(adapted, bare)
        assert np.array_equal(numbers(engine, role, Adapter(path, 0.0)), bare)
        assert np.array_equal(numbers(engine, role), bare)
    finally:
        engine.close()
