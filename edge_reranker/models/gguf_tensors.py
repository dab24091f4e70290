"""The tensors of a GGUF as numbers, and GGUFs of new ones: a model like another, or a LoRA adapter for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import Missing, ModelInvalid

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tensors:
    """A model: its architecture, its plain settings by name, its tensors; a matrix is [out, in]."""

    architecture: str
    settings: Mapping[str, Any]
    arrays: Mapping[str, Float32]

    def setting(self, name: str, default: Any = None) -> Any:
        """The architecture's own setting ``name``, such as "block_count"."""
        return self.settings.get(f"{self.architecture}.{name}", default)


def read(path: Path) -> Tensors:
    """Every tensor of ``path`` in single precision, whatever type it is stored in.

    Raises Missing without the library for it, ModelInvalid for a file that is no GGUF.
    """
    gguf = require_gguf()
    try:
        reader = gguf.GGUFReader(path)
        settings = {
            name: field.contents()
            for name, field in reader.fields.items()
            if field.types and field.types[0] != gguf.GGUFValueType.ARRAY
        }
        arrays = {
            tensor.name: np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
            for tensor in reader.tensors
        }
    except (OSError, ValueError, KeyError, IndexError, NotImplementedError) as error:
        raise ModelInvalid(f"{path}: no GGUF that can be read: {error}; pull or add it again") from error
    return Tensors(str(settings.get("general.architecture", "")), settings, arrays)


def write_like(path: Path, like: Path, arrays: Mapping[str, NDArray[np.floating]]) -> None:
    """Writes ``path``: the settings and vocabulary of ``like`` with ``arrays`` for its tensors.

    What is in single precision in ``like`` stays so; all else is in half precision.
    """
    gguf = require_gguf()
    reader = gguf.GGUFReader(like)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    copy_metadata(reader, writer)
    for tensor in reader.tensors:
        single = tensor.tensor_type == gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, arrays[tensor.name].astype(np.float32 if single else np.float16))
    _finish(writer)


def copy_metadata(reader: Any, writer: Any) -> None:
    """All metadata of a GGUFReader's file in a GGUFWriter, but for the type of file, its own say."""
    gguf = require_gguf()
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        if name == "general.alignment":
            writer.data_alignment = field.contents()
        part = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=part)


def write_lora(path: Path, architecture: str, pairs: Mapping[str, tuple[Float32, Float32]]) -> None:
    """Writes an adapter that adds B @ A to each matrix named; A is [rank, in], B [out, rank]."""
    gguf = require_gguf()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp multiplies by alpha / rank.
    writer.add_float32("adapter.lora.alpha", float(len(next(iter(pairs.values()))[0])))
    for name, (a, b) in pairs.items():
        writer.add_tensor(f"{name}.lora_a", a.astype(np.float16))
        writer.add_tensor(f"{name}.lora_b", b.astype(np.float16))
    _finish(writer)


def require_gguf() -> ModuleType:
    """The gguf package. Raises ``Missing`` when it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise Missing("reading a GGUF's weights needs gguf: pip install 'edge-reranker[device]'") from error
    module: ModuleType = gguf
    return module


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
