"""Model files made to harm: refused before native code parses them, or contained by the worker that does."""

from __future__ import annotations

import ctypes
import struct
import tracemalloc
from importlib import util
from pathlib import Path

import pytest

from benchmarks.mutants import Tiny, expose, tiny
from edge_reranker.errors import ModelInvalid
from edge_reranker.models.gguf_header import BLOCKS, check_header


@pytest.fixture
def model() -> Tiny:
    return tiny()


def checked(folder: Path, data: bytes) -> None:
    path = folder / "x.gguf"
    path.write_bytes(data)
    check_header(path)


def test_real_and_tiny_models_pass(tmp_path: Path, cache_dir: Path, model: Tiny) -> None:
    checked(tmp_path, model.data)
    for path in cache_dir.glob("models/*/*.gguf"):
        check_header(path)


def test_sizes_of_tensor_types_are_ggmls_own() -> None:
    spec = util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    library, *_ = (Path(spec.origin).parent / "lib").glob("libggml-base.*")
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_blck_size.restype = ctypes.c_int64
    theirs = {kind: (ggml.ggml_blck_size(kind), ggml.ggml_type_size(kind)) for kind in BLOCKS}
    assert theirs == BLOCKS


@pytest.mark.parametrize(
    ("size", "value", "message"),
    [
        (8, 1 << 60, "1152921504606846976 tensors"),
        (16, 1 << 60, "and 1152921504606846976 metadata pairs"),
        (8, 0, "0 tensors"),
    ],
)
def test_absurd_counts_are_refused(tmp_path: Path, model: Tiny, size: int, value: int, message: str) -> None:
    data = bytearray(model.data)
    struct.pack_into("<Q", data, size, value)
    with pytest.raises(ModelInvalid, match=rf"x\.gguf: .*{message}"):
        checked(tmp_path, data)


ARCHITECTURE = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<I", 8)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (struct.pack("<QI", 1 << 40, 8), "a name of 1099511627776 bytes"),
        (ARCHITECTURE + struct.pack("<Q", 1 << 40), "1099511627776 bytes are announced where"),
        (struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1), "an array of type 9"),
        (struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 1 << 60), "an array of 1152921504606846976 texts"),
        (struct.pack("<Q1sIIQ", 1, b"k", 9, 5, 1 << 60), "bytes are announced"),
        (struct.pack("<Q1sI", 1, b"k", 13), "a value of type 13"),
        (struct.pack("<Q17sII", 17, b"general.alignment", 4, 3), "no power of two"),
        (2 * (ARCHITECTURE + struct.pack("<Q1s", 1, b"x")), "'general.architecture' is there twice"),
        (2 * struct.pack("<Q1sIB", 1, b"k", 0, 1), "'k' is there twice"),
        (b"".join(struct.pack("<Q1sIB", 1, key, 0, 1) for key in (b"k", b"l")), "architecture is missing"),
    ],
)
def test_hostile_metadata_is_refused(tmp_path: Path, pair: bytes, message: str) -> None:
    with pytest.raises(ModelInvalid, match=message):
        checked(tmp_path, struct.pack("<4sIQQ", b"GGUF", 3, 1, 2) + pair + bytes(64))


@pytest.mark.parametrize(
    ("shape", "kind", "offset", "message"),
    [
        ((1 << 60, 1 << 60), 0, 0, "its tensors end at byte"),
        ((8,), 0, 1 << 40, "begins at byte 1099511627776, not 0"),
        ((8, 0), 0, 0, "cannot have the shape"),
        ((33,), 8, 0, "type 8 cannot have the shape"),
        ((8,), 31, 0, "unknown type 31"),
        ((1,) * 5, 0, 0, "has 5 dimensions"),
    ],
)
def test_tensors_that_cannot_be_are_refused(
    tmp_path: Path, shape: tuple[int, ...], kind: int, offset: int, message: str
) -> None:
    tensor = struct.pack(f"<Q1sI{len(shape)}QIQ", 1, b"t", len(shape), *shape, kind, offset)
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + ARCHITECTURE + struct.pack("<Q1s", 1, b"x")
    with pytest.raises(ModelInvalid, match=message):
        checked(tmp_path, head + tensor + bytes(256))


def test_a_file_that_lacks_its_last_byte_is_refused(tmp_path: Path, model: Tiny) -> None:
    with pytest.raises(ModelInvalid, match="its tensors end at byte"):
        checked(tmp_path, model.data[:-1])


def test_a_text_as_long_as_the_disk_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 2) + ARCHITECTURE + struct.pack("<Q", 1 << 33)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(1 << 34)
    tracemalloc.start()
    try:
        with pytest.raises(ModelInvalid, match="a name of 0 bytes"):
            check_header(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_mutants_are_refused_by_their_header_or_contained_by_a_worker(tmp_path: Path) -> None:
    """`python -m benchmarks mutants` gives all that pass to a worker; here it is the first eight."""
    fates = expose(1_000, most_workers=8, folder=tmp_path)
    assert fates.refused.total() + fates.passed.total() == 1_000
    assert not fates.passed.keys() & {"cut", "blown_up", "swapped"}, "these never make sense"
    assert fates.workers.total() == 8
    assert not fates.workers.keys() & {"hung", "failed without a reason"}
