"""LoRA adapters: loaded beside a model, told apart per request, and an engine that always uses one.

Only a worker imports llama.cpp, so ``Adapters`` does it when it is made.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_reranker.deadline import Deadline
from edge_reranker.engine.types import (
    Adapter,
    Encoded,
    Engine,
    EngineInfo,
    Prefilled,
    Ranked,
    SavedPrefix,
    Scored,
)
from edge_reranker.errors import ModelInvalid
from edge_reranker.types import ModelState, Piece

# A rank-16 adapter of the default model has about 10 MB; packs that take turns should not load it each time.
MAX_LOADED = 4


class _File(NamedTuple):
    """One content: a file that was replaced is another adapter."""

    path: str
    inode: int
    size_bytes: int
    changed_ns: int


class Adapters:
    """The adapters loaded for one model, the least recently used going first. Not thread-safe."""

    def __init__(self, model: Any, context: Any) -> None:
        """``model`` and ``context`` are llama.cpp's pointers."""
        import llama_cpp.llama_cpp as llama

        self._llama = llama
        self._model = model
        self._context = context
        self._loaded: OrderedDict[_File, Any] = OrderedDict()
        self._used: tuple[_File, float] | None = None

    @property
    def loaded(self) -> list[Path]:
        """The files in memory, the least recently used first."""
        return [Path(file.path) for file in self._loaded]

    def use(self, adapter: Adapter | None) -> bool:
        """Makes ``adapter`` (None: the bare model) the one in effect; whether that is a change.

        Raises ModelInvalid for a file that is no adapter for this model; then nothing has changed.
        """
        wanted = None if adapter is None else (_file(adapter.path), adapter.scale)
        if wanted == self._used:
            return False
        if wanted is None:
            self._set(None, 1.0)
        else:
            self._set(self._pointer(wanted[0]), wanted[1])
        self._used = wanted
        self._trim()
        return True

    def load(self, path: Path) -> None:
        """Loads an adapter and leaves the one in effect as it is. Raises ModelInvalid."""
        self._pointer(_file(path))
        self._trim()

    def _pointer(self, file: _File) -> Any:
        if file not in self._loaded:
            self._loaded[file] = self._read(file.path)
        self._loaded.move_to_end(file)
        return self._loaded[file]

    def _read(self, path: str) -> Any:
        pointer = self._llama.llama_adapter_lora_init(self._model, path.encode())
        if not pointer:
            raise ModelInvalid(
                f"{path}: not a LoRA adapter for this model; give one in GGUF that was trained on this very "
                "model, with its blocks and sizes"
            )
        if self._llama.llama_adapter_get_alora_n_invocation_tokens(pointer):
            self._llama.llama_adapter_lora_free(pointer)
            raise ModelInvalid(
                f"{path}: an activated LoRA, in effect after certain tokens only; give a plain one"
            )
        return pointer

    def _set(self, pointer: Any, scale: float) -> None:
        n = 0 if pointer is None else 1
        pointers = (self._llama.llama_adapter_lora_p_ctypes * 1)(pointer) if n else None
        result = self._llama.llama_set_adapters_lora(self._context, pointers, n, (ctypes.c_float * 1)(scale))
        if result != 0:
            raise RuntimeError(f"llama_set_adapters_lora returned {result}")

    def _trim(self) -> None:
        in_use = self._used[0] if self._used else None
        for file in list(self._loaded):
            if len(self._loaded) <= MAX_LOADED:
                return
            if file != in_use:
                self._llama.llama_adapter_lora_free(self._loaded.pop(file))


def _file(path: Path) -> _File:
    try:
        found = path.stat()
    except OSError as error:
        raise ModelInvalid(
            f"{path}: the adapter cannot be read: {error.strerror}; put it back, or reinstall its pack"
        ) from error
    return _File(str(path), found.st_ino, found.st_size, found.st_mtime_ns)


class Adapted:
    """An Engine on another's worker whose every call uses one adapter: how packs share a model.

    Each call carries its adapter, so calls of several packs may take turns, and a worker that was started
    again loads what it needs.
    """

    def __init__(self, engine: Engine, adapter: Adapter) -> None:
        self._engine = engine
        self._adapter = adapter

    @property
    def state(self) -> ModelState:
        """See Engine."""
        return self._engine.state

    @property
    def info(self) -> EngineInfo | None:
        """See Engine; of the model without its adapter."""
        return self._engine.info

    def wait_ready(self, deadline: Deadline) -> bool:
        """See Engine."""
        return self._engine.wait_ready(deadline)

    def tokenize(self, texts: Sequence[Sequence[Piece]], deadline: Deadline) -> list[list[int]]:
        """See Engine."""
        return self._engine.tokenize(texts, deadline)

    def load_adapter(self, path: Path, deadline: Deadline) -> None:
        """See Engine."""
        self._engine.load_adapter(path, deadline)

    def encode(
        self,
        sequences: Sequence[Sequence[int]],
        deadline: Deadline,
        *,
        background: bool = False,
        adapter: Adapter | None = None,
    ) -> Encoded:
        """See Engine; an ``adapter`` given here goes before its own."""
        return self._engine.encode(
            sequences, deadline, background=background, adapter=adapter or self._adapter
        )

    def score(
        self,
        prefix: Sequence[int],
        suffixes: Sequence[Sequence[int]],
        targets: Sequence[int],
        deadline: Deadline,
        *,
        adapter: Adapter | None = None,
    ) -> Scored:
        """See Engine; an ``adapter`` given here goes before its own."""
        return self._engine.score(prefix, suffixes, targets, deadline, adapter=adapter or self._adapter)

    def prefill(
        self, prefix: Sequence[int], deadline: Deadline, *, adapter: Adapter | None = None
    ) -> Prefilled:
        """See Engine; an ``adapter`` given here goes before its own."""
        return self._engine.prefill(prefix, deadline, adapter=adapter or self._adapter)

    def save_prefix(self, deadline: Deadline) -> SavedPrefix | None:
        """See Engine."""
        return self._engine.save_prefix(deadline)

    def restore_prefix(
        self, saved: SavedPrefix, deadline: Deadline, *, adapter: Adapter | None = None
    ) -> bool:
        """See Engine; an ``adapter`` given here goes before its own."""
        return self._engine.restore_prefix(saved, deadline, adapter=adapter or self._adapter)

    def rank(self, query: Sequence[int], documents: Sequence[Sequence[int]], deadline: Deadline) -> Ranked:
        """See Engine; a rank model takes no adapter."""
        return self._engine.rank(query, documents, deadline)

    def close(self) -> None:
        """Stops the shared worker. Idempotent."""
        self._engine.close()
