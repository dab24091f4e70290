"""Writes a GGUF one tensor at a time, under its final name only when it is whole."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import FailedPrecondition, InvalidArgument, ModelInvalid
from edge_reranker.models.gguf_tensors import require_gguf
from edge_reranker.models.pull import atomic

TYPES = ("F16", "BF16", "F32")
_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
_MARGIN_BYTES = 16 << 20  # vocabulary, metadata and padding


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor to be written: a matrix is [out, in]; ``single`` is in F32 whatever the file's type.

    ``read`` gives its values in float32 and is called once, when its turn comes; ``origin`` is its name in
    the source, for errors.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
    origin: str
    single: bool


def size_bytes(tensors: Sequence[Tensor], kind: str) -> int:
    """What the file will take at most, in bytes."""
    total = sum(math.prod(each.shape) * _BYTES["F32" if each.single else kind] for each in tensors)
    return total + _MARGIN_BYTES


@contextmanager
def checked_target(source: Path, target: Path, *, force: bool) -> Iterator[None]:
    """What is wrong with where the result goes, as one line: before it is written, and while.

    Raises InvalidArgument for a target that exists (without ``force``) or is the source, FailedPrecondition
    for one that cannot be written or has no room.
    """
    if target.exists() and (target.samefile(source) or source.resolve() in target.resolve().parents):
        raise InvalidArgument("--out", f"{target} is the source, or in it; name another file")
    if target.is_dir():
        raise InvalidArgument("--out", f"{target} is a folder; name a file in it, such as model.gguf")
    if target.exists() and not force:
        raise InvalidArgument("--out", f"{target} exists; name another file, or replace it with --force")
    if not target.parent.is_dir():
        raise InvalidArgument("--out", f"there is no folder {target.parent}; make it first")
    try:
        yield
    except OSError as error:
        # NumPy gives no number for what it could only write a part of.
        if error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FailedPrecondition(
                f"{target}: no space left ({_free(target) / 1e6:.0f} MB free); nothing was kept. "
                "Make room, or write to another disk"
            ) from error
        raise FailedPrecondition(
            f"{target}: cannot be written ({error.strerror or error}); choose a folder that can"
        ) from error


def write(
    writer_of: Callable[[Path], Any],
    tensors: Sequence[Tensor],
    target: Path,
    kind: str,
    check: Callable[[Path], None],
) -> int:
    """Writes ``target`` atomically; its size in bytes.

    ``writer_of`` gives a GGUFWriter with all metadata; ``check`` raises for a file that must not be kept.
    Raises FailedPrecondition without room for it, ModelInvalid for values that ``kind`` cannot hold.
    """
    wanted = size_bytes(tensors, kind)
    if wanted > (free := _free(target)):
        raise FailedPrecondition(
            f"{target}: {wanted / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free; "
            "make room, or write to another disk"
        )
    with atomic(target) as part:
        writer = writer_of(part)
        try:
            _write(writer, tensors, kind)
        finally:
            writer.close()
        check(part)
        return part.stat().st_size


def _write(writer: Any, tensors: Sequence[Tensor], kind: str) -> None:
    gguf = require_gguf()
    file_type = {"F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "F32": "ALL_F32"}[kind]
    writer.add_file_type(gguf.LlamaFileType[file_type])
    for each in tensors:
        of = "F32" if each.single else kind
        # The dtype is float16 also for BF16, which numpy lacks: both have two bytes.
        dtype = np.dtype(np.float32 if of == "F32" else np.float16)
        n_bytes = math.prod(each.shape) * _BYTES[of]
        raw = gguf.GGMLQuantizationType[of]
        writer.add_tensor_info(each.name, each.shape, dtype, n_bytes, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for each in tensors:
        writer.write_tensor_data(_stored(each, "F32" if each.single else kind))


def _stored(tensor: Tensor, kind: str) -> NDArray[Any]:
    values = np.ascontiguousarray(tensor.read(), np.float32).reshape(tensor.shape)
    if not np.isfinite(values).all():
        raise ModelInvalid(
            f"tensor {tensor.origin}: it has values that are no numbers; fetch the model again"
        )
    if kind == "F32":
        return values
    if kind == "BF16":
        gguf = require_gguf()
        stored: NDArray[Any] = gguf.quantize(values, gguf.GGMLQuantizationType.BF16)
        return stored
    largest = float(np.abs(values).max(initial=0.0))
    with np.errstate(over="ignore"):  # told below, with the tensor's name
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ModelInvalid(
            f"tensor {tensor.origin}: {largest:g} is beyond F16, which ends at 65504; use --type BF16 or F32"
        )
    return half


def _free(target: Path) -> int:
    folder = target.parent
    return shutil.disk_usage(folder).free if os.path.isdir(folder) else 0
