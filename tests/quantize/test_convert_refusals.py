"""What cannot be converted or written is said in one line; nothing is left, and the source is as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_reranker.errors import FailedPrecondition, InvalidArgument, ModelInvalid
from edge_reranker_quantize.convert import convert
from tests.gguf_files import llama_weights, write_llama
from tests.quantize import published
from tests.service import Run

# Root may write anywhere, unless it gives that up before it starts anew: prctl's PR_CAPBSET_DROP of
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH. Others may not, and prctl refuses them.
NO_ROOT = "import ctypes; [ctypes.CDLL(None).prctl(24, cap, 0, 0, 0) for cap in (1, 2)]"
SMALL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    of = published.config("llama")
    return published.write(tmp_path / "model", of, published.weights(of), n_files=2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "source.gguf", llama_weights())


def state(path: Path) -> dict[str, tuple[bytes, int]]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def configure(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(told | changes))

    return change


def tokenizer(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        told = json.loads((folder / "tokenizer.json").read_text())
        told["model"] |= changes
        (folder / "tokenizer.json").write_text(json.dumps(told))

    return change


def tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes what the first file holds."""

    def apply(folder: Path) -> None:
        arrays = load_file(folder / "model-00001.safetensors")
        change(arrays)
        save_file(arrays, folder / "model-00001.safetensors")

    return apply


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 9)


def outside(folder: Path) -> None:
    told = json.loads((folder / "model.safetensors.index.json").read_text())
    told["weight_map"]["model.norm.weight"] = "../model-00001.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(told))


EMBED = "model.embed_tokens.weight"
BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: No such file"),
    "torn config": (cut("config.json"), r"config\.json: not JSON"),
    "architecture": (configure(model_type="mamba"), r"model_type is 'mamba'; bert, llama, qwen2, qwen3 are"),
    "no size": (configure(hidden_size=None), r"config\.json: .*missing or no number"),
    "activation": (configure(hidden_act="gelu"), "hidden_act is 'gelu'; only 'silu'"),
    "window": (configure(use_sliding_window=True), "use_sliding_window is True"),
    "rope": (configure(rope_scaling={"type": "dynamic", "factor": 2.0}), "rope_type is 'dynamic'"),
    "rope, no factor": (configure(rope_scaling={"type": "linear"}), "have no number factor"),
    "rope, more": (
        configure(rope_scaling={"type": "yarn", "factor": 2.0, "beta_fast": 9}), "have beta_fast, which",
    ),
    "torn weights": (cut("model-00002.safetensors"), r"model-00002\.safetensors: .*is not whole"),
    "torn header": (
        lambda f: os.truncate(f / "model-00002.safetensors", 40), r"model-00002\.safetensors: no safetensors",
    ),
    "no file": (lambda f: (f / "model-00002.safetensors").unlink(), r"model-00002\.safetensors: No such"),
    "outside": (outside, r"it is not in the model's folder"),
    "gone from its file": (tensors(lambda a: a.pop(EMBED)), f"no file has {EMBED}"),
    "shape": (configure(intermediate_size=95), r"mlp\.\w+\.weight has the shape .*config\.json wants"),
    "missing": (configure(num_hidden_layers=3), r"no tensor for blk\.2\.attn_norm\.weight"),
    "no place": (
        tensors(lambda a: a.update({"score.weight": np.ones((1, 64), np.float32)})),
        r"tensor score\.weight has no place",
    ),
    "integers": (
        tensors(lambda a: a.update({EMBED: np.ones((published.N_ROWS, 64), np.int8)})), f"{EMBED} is I8",
    ),
    "beyond F16": (
        tensors(lambda a: a[EMBED].__setitem__((3, 3), -70000.0)),
        rf"tensor {EMBED}: 70000 is beyond F16, which ends at 65504; use --type BF16 or F32",
    ),
    "no number": (
        tensors(lambda a: a[EMBED].__setitem__((3, 3), np.nan)), f"tensor {EMBED}: it has values that are no",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json: No such file"),
    "kind of tokenizer": (tokenizer(type="Unigram"), "a tokenizer of type Unigram, not byte-level BPE"),
    "sentencepiece": (tokenizer(byte_fallback=True), "a tokenizer of type SentencePiece"),
    "merges": (tokenizer(merges=[]), "it has no merges"),
    "rows": (tokenizer(vocab={"a": 9_999}), "token 9999 of 272 rows"),
    "card": (lambda f: (f / "README.md").write_text("---\nlicense: [\n---\n"), r"README\.md: its head"),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
def test_what_cannot_be_converted_is_said_in_one_line(what: str, folder: Path, tmp_path: Path) -> None:
    break_, said = BREAKS[what]
    break_(folder)
    before = state(folder)
    with pytest.raises(ModelInvalid, match=said) as caught:
        convert(folder, tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [folder], "nothing is left"
    assert state(folder) == before


@pytest.mark.parametrize("kind", ["BF16", "F32"])
def test_what_is_beyond_f16_is_held_by_the_other_types(kind: str, folder: Path, tmp_path: Path) -> None:
    tensors(lambda a: a[EMBED].__setitem__((3, 3), -70000.0))(folder)
    convert(folder, tmp_path / "out.gguf", kind=kind)
    found = next(t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors if t.name == "token_embd.weight")
    assert gguf.dequantize(found.data, found.tensor_type)[3, 3] == pytest.approx(-70000.0, rel=1 / 256)


def unknown(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"llama", b"lxama"))


def of_parts(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 2)
    writer.add_tensor("a.weight", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("break_", "said"),
    [
        (lambda path: path.write_bytes(b"MZ" * 999), "does not begin with GGUF"),
        (lambda path: path.write_bytes(b""), "does not begin with GGUF"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "not a sound GGUF file: its tensors end"),
        (lambda path: os.truncate(path, 200), "not a sound GGUF file"),
        (unknown, r"llama\.cpp does not load what comes of it \(lxama\)"),
        (of_parts, "one of several parts"),
    ],
    ids=["another file", "empty", "torn weights", "torn header", "architecture", "one of several"],
)
def test_a_gguf_that_cannot_be_converted_is_said_in_one_line(
    break_: Callable[[Path], object], said: str, source: Path, tmp_path: Path
) -> None:
    break_(source)
    before = state(source)
    with pytest.raises(ModelInvalid, match=said) as caught:
        convert(source, tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [source]
    assert state(source) == before


def test_a_gguf_of_wider_alignment_is_converted(tmp_path: Path) -> None:
    weights = llama_weights()
    write_llama(tmp_path / "narrow.gguf", weights)
    reader = gguf.GGUFReader(tmp_path / "narrow.gguf")
    writer = gguf.GGUFWriter(tmp_path / "wide.gguf", "llama")
    writer.add_custom_alignment(256)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            part = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=part)
    for name, array in weights.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert(tmp_path / "wide.gguf", tmp_path / "out.gguf")
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    for name, array in weights.items():
        assert np.array_equal(found[name].data, array.astype(np.float16 if array.ndim > 1 else np.float32))


def test_the_target_must_not_be_there_nor_be_the_source(source: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there.gguf").write_bytes(b"mine")
    (tmp_path / "link.gguf").symlink_to(source)
    refused = {
        source: "is the source",
        tmp_path / "link.gguf": "is the source",
        tmp_path / "there.gguf": r"exists; .*--force",
        tmp_path: "is a folder",
        tmp_path / "nowhere" / "out.gguf": "there is no folder",
    }
    before = state(source)
    for target, said in refused.items():
        with pytest.raises(InvalidArgument, match=rf"^--out: .*{said}"):
            convert(source, target, force=target.suffix != ".gguf" or "there" not in target.name)
    with pytest.raises(InvalidArgument, match="in it"):
        convert(folder, folder / "config.json", force=True)
    with pytest.raises(InvalidArgument, match="--pre: only the BPE tokenizer of a folder"):
        convert(source, tmp_path / "out.gguf", pre="gpt-2")
    assert (tmp_path / "there.gguf").read_bytes() == b"mine"
    assert state(source) == before
    convert(source, tmp_path / "there.gguf", force=True)
    assert len(gguf.GGUFReader(tmp_path / "there.gguf").tensors) == len(llama_weights())


def large(folder: Path, rows: int) -> Path:
    """A model of so many rows of 256 zeros, which take no room on the disk."""
    of = published.config("llama", hidden_size=256, vocab_size=rows, tie_word_embeddings=True)
    small = published.weights(of | {"vocab_size": 1})
    del small[EMBED]
    published.write(folder, of, small)
    path = folder / "model.safetensors"
    path.rename(folder / "blocks.safetensors")
    n_bytes = rows * 256 * 2
    header = json.dumps(
        {EMBED: {"dtype": "F16", "shape": [rows, 256], "data_offsets": [0, n_bytes]}}
    ).encode()
    (folder / "rows.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(folder / "rows.safetensors", 8 + len(header) + n_bytes)
    where = dict.fromkeys(small, "blocks.safetensors") | {EMBED: "rows.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def test_without_room_nothing_is_begun(tmp_path: Path) -> None:
    folder = large(tmp_path / "model", 1 << 32)
    with pytest.raises(FailedPrecondition, match=r"out\.gguf: 21990\d\d MB are needed, \d+ MB are free"):
        convert(folder, tmp_path / "out.gguf")
    assert sorted(tmp_path.iterdir()) == [folder]


def command(*arguments: object, first: str = "") -> list[str]:
    start = [sys.executable, "-m", "edge_reranker.cli", "quantize", "convert", *map(str, arguments)]
    return [sys.executable, "-c", f"{first}\nimport os, sys; os.execv(sys.argv[1], sys.argv[1:])", *start]


@pytest.mark.parametrize(
    ("first", "mode", "said"),
    [(SMALL_DISK, 0o700, "no space left"), (NO_ROOT, 0o500, "cannot be written (Permission denied)")],
    ids=["full", "read-only"],
)
def test_a_disk_that_refuses_is_said_in_one_line(
    first: str, mode: int, said: str, source: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(mode)
    ended = subprocess.run(
        command(source, "--out", there / "out.gguf", first=first), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (4, "")
    assert ended.stderr.startswith(f"Error: {there}/out.gguf: {said}")
    assert ended.stderr.count("\n") == 1
    assert not list(there.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_half_way_it_leaves_no_file_of_that_name(number: int, tmp_path: Path) -> None:
    folder = large(tmp_path / "model", 50_000)
    target = tmp_path / "out.gguf"
    with subprocess.Popen(command(folder, "--out", target), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.gguf.*.part")) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert not target.exists()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said.count("\n") <= 1
        assert sorted(tmp_path.iterdir()) == [folder]
    # What a killed one had no chance to take away, the next one does.
    convert(folder, target)
    assert set(tmp_path.iterdir()) == {folder, target}


def test_the_command_says_what_it_made(run: Run, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    made = run("quantize", "convert", str(source), "--out", str(target), "--json")
    assert json.loads(made.stdout) == {
        "path": str(target),
        "architecture": "llama",
        "type": "F16",
        "n_tensors": len(llama_weights()),
        "size_bytes": target.stat().st_size,
    }
    again = run("quantize", "convert", str(source), "--out", str(target))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert run("quantize", "convert", str(source), "--out", str(target), "--type", "Q9").returncode == 2
    assert run("quantize", "convert", str(source), "--out", str(target), "--force").returncode == 0
