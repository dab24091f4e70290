"""A published model, or any GGUF, to a GGUF of plain numbers that llama.cpp runs and quantises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge_reranker.engine.check import loads
from edge_reranker.errors import InvalidArgument, ModelInvalid
from edge_reranker.models.gguf_tensors import require_gguf
from edge_reranker_quantize.convert_bert import Bert
from edge_reranker_quantize.convert_decoder import FAMILIES, Decoder
from edge_reranker_quantize.convert_gguf import Gguf
from edge_reranker_quantize.convert_source import Checkpoint
from edge_reranker_quantize.convert_write import TYPES, Tensor, checked_target, write

__all__ = ["TYPES", "Converted", "convert"]


class Model(Protocol):
    """What is converted: tensors, and settings with the vocabulary."""

    architecture: str

    @property
    def tensors(self) -> Sequence[Tensor]:
        """In the order of the file."""

    def describe(self, writer: Any) -> None:
        """Settings and vocabulary in a GGUFWriter."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written."""

    path: Path
    architecture: str
    type: str
    n_tensors: int
    size_bytes: int


def convert(
    source: Path, target: Path, *, kind: str = "F16", pre: str | None = None, force: bool = False
) -> Converted:
    """Writes ``target``, whole or not at all: matrices in ``kind``, one of TYPES, all else in F32.

    ``source`` is a folder of safetensors (Llama, Qwen2, Qwen3, BERT) or a GGUF file, and is only read;
    ``pre`` is llama.cpp's name for a pre-tokenizer that is not recognised. Raises InvalidArgument,
    ModelInvalid and FailedPrecondition, each in one line that names the file.
    """
    if kind not in TYPES:
        raise InvalidArgument("--type", f"unknown type {kind!r}; {', '.join(TYPES)} are written")
    with checked_target(source, target, force=force):
        model = _model(source, pre)
        size = write(
            lambda path: _writer(source, model, path),
            model.tensors,
            target,
            kind,
            lambda path: _check_loads(path, source, model, pre),
        )
    return Converted(target, model.architecture, kind, len(model.tensors), size)


def _model(source: Path, pre: str | None) -> Model:
    if source.is_file():
        model: Model = Gguf(source)
    else:
        checkpoint = Checkpoint(source)
        family = checkpoint.config.get("model_type")
        if family in FAMILIES:
            return Decoder(checkpoint, pre)
        if family != "bert":
            raise ModelInvalid(
                f"{source}: model_type is {family!r}; bert, {', '.join(FAMILIES)} are converted, "
                "and of any other its published GGUF"
            )
        model = Bert(checkpoint)
    if pre is not None:
        raise InvalidArgument("--pre", "only the BPE tokenizer of a folder takes one; leave the option out")
    return model


def _check_loads(path: Path, source: Path, model: Model, pre: str | None) -> None:
    if not loads(path):
        tokenizer = f" with the pre-tokenizer {pre!r}" if pre else ""
        raise ModelInvalid(
            f"{source}: llama.cpp does not load what comes of it ({model.architecture}{tokenizer}); "
            f"{'give another --pre' if pre else 'a newer llama-cpp-python may'}. Nothing was kept"
        )


def _writer(source: Path, model: Model, path: Path) -> Any:
    """A GGUFWriter with all metadata."""
    gguf = require_gguf()
    writer = gguf.GGUFWriter(path, model.architecture)
    if source.is_dir():
        _general(writer, source, model)
    model.describe(writer)
    return writer


def _general(writer: Any, folder: Path, model: Model) -> None:
    """Name, authors, licence and origin, by the model's card and config."""
    gguf = require_gguf()
    n_parameters = sum(math.prod(each.shape) for each in model.tensors)
    writer.add_type(gguf.GGUFType.MODEL)
    try:
        # Resolved, because a folder called "." has no name.
        told = gguf.Metadata.load(None, folder.resolve(), None, n_parameters)
    except Exception as error:  # the card is YAML by whoever published the model
        raise ModelInvalid(
            f"{folder}/README.md: its head cannot be read: {error!r}; mend or remove it"
        ) from error
    told.name = told.name or folder.resolve().name
    told.size_label = told.size_label or gguf.size_label(n_parameters, 0, 0, 0)
    told.set_gguf_meta_model(writer)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
