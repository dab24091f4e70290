"""A model as it is published: a folder of safetensors, settings and a tokenizer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import ModelInvalid
from edge_reranker.models.gguf_tensors import require_gguf

_INDEX = "model.safetensors.index.json"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Checkpoint:
    """What is in the folder; its files are opened for reading only, and mapped rather than loaded."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelInvalid when a file is missing, torn, or not what its name says."""
        self.folder = folder
        self.config = self.json("config.json")
        self._tensors = self._index()

    @cached_property
    def tokenizer(self) -> Mapping[str, Any]:
        """tokenizer.json."""
        return self.json("tokenizer.json")

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / name).is_file()

    def json(self, name: str) -> Mapping[str, Any]:
        """A file's JSON object. Raises ModelInvalid."""
        path = self.folder / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelInvalid(f"{path}: {error.strerror}; the model's folder must have it") from error
        except ValueError as error:
            raise ModelInvalid(f"{path}: not JSON ({error}); fetch it again") from error
        if not isinstance(found, dict):
            raise ModelInvalid(f"{path}: not a JSON object; fetch it again")
        return found

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The tensors' names and shapes; a matrix is [out, in]."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's values in single precision. Raises ModelInvalid for a type such as FP8."""
        tensor = self._tensors[name]
        if tensor.dtype not in _DTYPES:
            raise ModelInvalid(
                f"{self.folder}: tensor {name} is {tensor.dtype}; {', '.join(_DTYPES)} are converted"
            )
        raw = np.asarray(tensor.mmap_bytes()).view(_DTYPES[tensor.dtype])
        if tensor.dtype == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        values: NDArray[np.float32] = raw.astype(np.float32).reshape(tensor.shape)
        return values

    def _index(self) -> dict[str, Any]:
        files = ["model.safetensors"]
        where: dict[str, str] = {}
        if self.has(_INDEX):
            where = self.json(_INDEX).get("weight_map") or {}
            if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
                raise ModelInvalid(f"{self.folder / _INDEX}: its weight_map names no files; fetch it again")
            files = sorted(set(where.values()))
        found: dict[str, Any] = {}
        for file in files:
            found |= self._of(self.folder / file)
        if missing := sorted(set(where) - set(found)):
            raise ModelInvalid(
                f"{self.folder}: no file has {missing[0]}, which {_INDEX} names; fetch it again"
            )
        return found

    def _of(self, path: Path) -> dict[str, Any]:
        gguf = require_gguf()
        try:
            if path.parent != self.folder:
                raise ValueError("it is not in the model's folder")
            size = path.stat().st_size
            tensors: dict[str, Any] = gguf.utility.SafetensorsLocal(path).tensors
            for name, tensor in tensors.items():
                self._check(name, tensor, size)
        except OSError as error:
            raise ModelInvalid(f"{path}: {error.strerror}; the model's folder must have it") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelInvalid(f"{path}: no safetensors that can be read: {error}; fetch it again") from error
        return tensors

    @staticmethod
    def _check(name: str, tensor: Any, size: int) -> None:
        if tensor.dtype not in _DTYPES:  # such as a buffer of positions, which nobody reads
            return
        n_bytes = math.prod(tensor.shape) * np.dtype(_DTYPES[tensor.dtype]).itemsize
        where = tensor.data_range
        if where.size != n_bytes or n_bytes == 0 or where.offset + n_bytes > size:
            raise ValueError(f"{name} is not whole: {n_bytes} bytes of it are announced")
