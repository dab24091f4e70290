"""Any GGUF with its tensors in another plain type; all metadata stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import ModelInvalid
from edge_reranker.models.gguf_header import check_header
from edge_reranker.models.gguf_tensors import copy_metadata, require_gguf
from edge_reranker_quantize.convert_write import Tensor

# llama.cpp takes these in single precision only: what it never quantises either.
_SINGLE = (
    *("position_embd.", "token_types.", "ffn_gate_inp", "ssm_conv1d", "shortconv", "altup", "laurel"),
    *("time_mix_first", "time_mix_w1", "time_mix_w2", "time_mix_decay", "time_mix_lerp", "rel_b", "rope_"),
)


class Gguf:
    """A GGUF file, mapped for reading."""

    def __init__(self, path: Path) -> None:
        """Raises ModelInvalid for a file that is none, is torn, or has types that cannot be read."""
        check_header(path)
        gguf = require_gguf()
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise ModelInvalid(f"{path}: no GGUF that can be read: {error}; fetch it again") from error
        self._path = path
        if "split.count" in self._reader.fields and self._reader.fields["split.count"].contents() > 1:
            raise ModelInvalid(f"{path}: one of several parts; merge them with llama.cpp's gguf-split first")
        self.architecture = str(self._reader.fields["general.architecture"].contents())
        matrices = [each for each in self._reader.tensors if len(each.shape) > 1]
        single = gguf.GGMLQuantizationType.F32
        # Where some are quantised, the rest was left in single precision for a reason.
        self._mixed = any(each.tensor_type != single for each in matrices)
        self.tensors = [self._tensor(each) for each in self._reader.tensors]

    def describe(self, writer: Any) -> None:
        """All metadata of the file in a GGUFWriter."""
        try:
            copy_metadata(self._reader, writer)
        except ValueError as error:  # text that is no UTF-8
            raise ModelInvalid(f"{self._path}: its metadata cannot be read: {error}") from error

    def _tensor(self, tensor: Any) -> Tensor:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        single = len(shape) < 2 or any(part in tensor.name for part in _SINGLE)
        single = single or (self._mixed and tensor.tensor_type.name == "F32")
        return Tensor(tensor.name, shape, self._reading(tensor), tensor.name, single)

    def _reading(self, tensor: Any) -> Callable[[], NDArray[Any]]:
        gguf = require_gguf()

        def read() -> NDArray[Any]:
            try:
                values: NDArray[Any] = gguf.dequantize(tensor.data, tensor.tensor_type)
            except (NotImplementedError, ValueError) as error:
                raise ModelInvalid(
                    f"{self._path}: tensor {tensor.name} cannot be read: {tensor.tensor_type.name}: {error}"
                ) from error
            return values.astype(np.float32)

        return read
