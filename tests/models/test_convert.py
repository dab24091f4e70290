"""A BERT of safetensors becomes a GGUF that gives its hidden states, through a real worker."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, WorkerEngine
from edge_reranker.engine.types import Encoded
from edge_reranker.errors import InvalidArgument, Missing, ModelInvalid
from edge_reranker.models.convert import convert_bert
from edge_reranker.types import Piece
from tests import bert

N_LAYERS, N_EMBD, N_FF, N_HEADS, N_POSITIONS = 2, 64, 128, 4, 64
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##"),
    *string.ascii_lowercase, *string.punctuation, *string.digits,
    *(f"##{letter}" for letter in string.ascii_lowercase), "heat", "##ing", "ü", "한", "ᄒ", "##ᅡ", "##ᆫ", "東",
]  # fmt: skip
IDS = {word: at for at, word in enumerate(VOCABULARY)}
CLS, SEP = IDS["[CLS]"], IDS["[SEP]"]
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": N_LAYERS,
    "max_position_embeddings": N_POSITIONS,
    "hidden_size": N_EMBD,
    "intermediate_size": N_FF,
    "num_attention_heads": N_HEADS,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
}
TEXTS = ["heat", "Heating, up!", "a much longer title; it goes on", "东東 x"]


def weights() -> dict[str, npt.NDArray[np.float32]]:
    """Seeded random tensors, by the names of a safetensors file; matrices are [out, in]."""
    random = np.random.default_rng(3)

    def normal(mean: float, deviation: float, *shape: int) -> npt.NDArray[np.float32]:
        return random.normal(mean, deviation, shape).astype(np.float32)

    tables = (("word", len(VOCABULARY)), ("position", N_POSITIONS), ("token_type", 2))
    found = {f"embeddings.{name}_embeddings.weight": normal(0, 1, rows, N_EMBD) for name, rows in tables}
    norms = ["embeddings.LayerNorm"]
    for layer in range(N_LAYERS):
        at = f"encoder.layer.{layer}."
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
        for name, out, in_ in (
            *((f"attention.self.{part}", N_EMBD, N_EMBD) for part in ("query", "key", "value")),
            ("attention.output.dense", N_EMBD, N_EMBD),
            ("intermediate.dense", N_FF, N_EMBD),
            ("output.dense", N_EMBD, N_FF),
        ):
            found[f"{at}{name}.weight"] = normal(0, 1.5 / np.sqrt(in_), out, in_)
            found[f"{at}{name}.bias"] = normal(0, 0.3, out)
    for name in norms:
        found |= {f"{name}.weight": normal(1, 0.3, N_EMBD), f"{name}.bias": normal(0, 0.3, N_EMBD)}
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(weights(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return tmp_path


@contextmanager
def encoder(folder: Path, **spec: Any) -> Iterator[WorkerEngine]:
    target = folder / "F16.gguf"
    convert_bert(folder, target)
    engine = WorkerEngine(EngineSpec(target, "encoder", **spec))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
        yield engine
    finally:
        engine.close()


def tokens(engine: WorkerEngine, *texts: str) -> list[list[int]]:
    return engine.tokenize([[Piece(text)] for text in texts], Deadline())


def cosines(encoded: Encoded, wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(encoded.vectors, axis=1) * np.linalg.norm(wanted, axis=1)
    return (encoded.vectors * wanted).sum(axis=1) / lengths


def reference(ids: list[list[int]]) -> list[npt.NDArray[np.float64]]:
    return [bert.states(weights(), [CLS, *each, SEP], N_HEADS) for each in ids]


def test_a_converted_model_gives_the_states_of_its_weights_between_separators(folder: Path) -> None:
    with encoder(folder) as engine:
        ids = tokens(engine, *TEXTS)
        encoded = engine.encode(ids, Deadline())
    wanted = np.array([states.mean(axis=0) for states in reference(ids)])
    assert cosines(encoded, wanted).min() > 0.9999
    assert np.abs(np.linalg.norm(encoded.vectors, axis=1) / np.linalg.norm(wanted, axis=1) - 1).max() < 0.01
    bare = np.array([bert.states(weights(), each, N_HEADS).mean(axis=0) for each in ids])
    assert cosines(encoded, bare).max() < 0.999, "the test's own premise: the separators show"


@pytest.mark.parametrize(("pooling", "place"), [("cls", 0), ("last", -1)])
def test_pooling_takes_the_state_that_it_names(folder: Path, pooling: str, place: int) -> None:
    with encoder(folder, pooling=pooling) as engine:
        ids = tokens(engine, *TEXTS)
        encoded = engine.encode(ids, Deadline())
    assert cosines(encoded, np.array([states[place] for states in reference(ids)])).min() > 0.9999


def test_normalised_vectors_have_length_1_and_the_same_direction(folder: Path) -> None:
    with encoder(folder) as plain, encoder(folder, normalise=True) as normalised:
        ids = tokens(plain, *TEXTS)
        raw, unit = plain.encode(ids, Deadline()).vectors, normalised.encode(ids, Deadline()).vectors
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-5, atol=1e-7)
    assert np.linalg.norm(raw, axis=1).min() > 2, "the test's own premise: raw vectors are longer"


def test_a_vector_has_the_same_bits_alone_and_after_others(folder: Path) -> None:
    with encoder(folder) as engine:
        ids = tokens(engine, *TEXTS)
        together = engine.encode(ids, Deadline()).vectors
        alone = [engine.encode([each], Deadline()).vectors[0] for each in reversed(ids)]
        behind = engine.encode(ids, Deadline(), background=True).vectors
    assert np.array_equal(together, alone[::-1])
    assert np.array_equal(together, behind)


def test_a_text_beyond_the_table_of_positions_is_refused_and_the_longest_is_not(folder: Path) -> None:
    room = N_POSITIONS - 2
    with encoder(folder) as engine:
        with pytest.raises(InvalidArgument, match=rf"sequences\[1\]: {room + 1} tokens; 1 to {room} are"):
            engine.encode([[7], [7] * (room + 1)], Deadline())
        encoded = engine.encode([[7] * room], Deadline())
    (states,) = reference([[7] * room])
    assert cosines(encoded, states.mean(axis=0, keepdims=True)).min() > 0.9999


@pytest.mark.parametrize(
    "text",
    [
        "heating x-y", "ÜBER über u\u0308ber x\u0301y", "한 하", "東x東", "$9 + ~a|b`^", "✂ héa✂ting a##b ##",
        "[MASK] [UNK]", "—“quoted”…", "ẞß",
    ],
)  # fmt: skip
def test_words_fall_into_the_pieces_of_the_paper(folder: Path, text: str) -> None:
    with encoder(folder) as engine:
        assert tokens(engine, text) == [bert.wordpieces(IDS, text)]


def test_data_never_becomes_a_separator(folder: Path) -> None:
    with encoder(folder) as engine:
        (structure,) = engine.tokenize([[Piece("[SEP]", structure=True)]], Deadline())
        (data,) = tokens(engine, "a [SEP] b")
    assert structure == [SEP], "the test's own premise: this string is one token as structure"
    assert SEP not in data


def leave_out(folder: Path) -> None:
    kept = load_file(folder / "model.safetensors")
    del kept["encoder.layer.1.output.dense.bias"]
    save_file(kept, folder / "model.safetensors")


def configure(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(CONFIG | changes))

    return change


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "tensor": (leave_out, "encoder.layer.1.output.dense.bias"),
    "vocabulary": (lambda folder: (folder / "vocab.txt").write_text("a\nb\n"), "2 words in vocab.txt"),
    "activation": (configure(hidden_act="relu"), "hidden_act is 'relu', not 'gelu'"),
    "kind": (configure(model_type="roberta"), "model_type is 'roberta', not 'bert'"),
    "positions": (configure(position_embedding_type="relative_key"), "positions are not absolute"),
    "config": (lambda folder: (folder / "config.json").write_text("{"), "no BERT that can be converted"),
    "weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "no BERT that can be"),
    "gone": (lambda folder: (folder / "vocab.txt").unlink(), "vocab.txt"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_cannot_be_converted_is_said_in_one_line(folder: Path, what: str) -> None:
    break_, said = BREAKS[what]
    break_(folder)
    with pytest.raises(ModelInvalid, match=said) as caught:
        convert_bert(folder, folder / "F16.gguf")
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_what_converting_needs_besides_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)  # how Python marks a module that cannot be imported
    with pytest.raises(Missing, match=r"needs gguf: pip install 'edge-reranker\[device\]'"):
        convert_bert(folder, folder / "F16.gguf")
