"""What ours is measured against: llama.cpp and llama-cpp-python, used as well as they can be."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as llama
import numpy as np

Suffixes = Sequence[Sequence[int]]


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _discard(_level: int, _text: bytes, _user_data: object) -> None:
    pass


def quiet() -> None:
    """llama.cpp says nothing from here on."""
    llama.llama_log_set(_discard, ctypes.c_void_p(0))


class OneDecode:
    """The practical limit: one llama_decode after a kept prefix, all tokens in one sequence."""

    def __init__(self, path: Path, n_ctx: int = 2_048) -> None:
        quiet()
        self._model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = n_ctx
        parameters.n_ubatch = 512
        parameters.n_seq_max = 1
        # The faster of the two on this path: 744 against 929 ms.
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.n_threads = parameters.n_threads_batch = 2
        self._context: Any = llama.llama_init_from_model(self._model, parameters)
        self._batch = llama.llama_batch_init(n_ctx, 0, 1)
        self._n_prefix = 0

    def set_prefix(self, ids: Sequence[int]) -> None:
        """Decodes a prefix that is kept."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        self._decode(ids, 0)
        self._n_prefix = len(ids)

    def decode(self, ids: Sequence[int]) -> None:
        """Decodes these tokens behind the prefix; the logits of the last one are computed."""
        llama.llama_memory_seq_rm(llama.llama_get_memory(self._context), 0, self._n_prefix, -1)
        self._decode(ids, self._n_prefix)

    def _decode(self, ids: Sequence[int], start: int) -> None:
        for at, token in enumerate(ids):
            self._batch.token[at] = token
            self._batch.pos[at] = start + at
            self._batch.n_seq_id[at] = 1
            self._batch.seq_id[at][0] = 0
            self._batch.logits[at] = int(at == len(ids) - 1)
        self._batch.n_tokens = len(ids)
        assert llama.llama_decode(self._context, self._batch) == 0

    def close(self) -> None:
        """Frees the model."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)


class Sequential:
    """`llama_cpp.Llama`, one candidate after another: with the prefix kept, or each as a whole prompt."""

    def __init__(self, path: Path) -> None:
        self._model = llama_cpp.Llama(
            str(path), n_ctx=512, n_threads=2, n_threads_batch=2, logits_all=False, verbose=False
        )

    def set_prefix(self, prefix: Sequence[int]) -> None:
        """Decodes a prefix that ``after_prefix`` keeps."""
        self._model.reset()
        self._model.eval(list(prefix))

    def after_prefix(self, prefix: Sequence[int], suffixes: Suffixes, targets: Sequence[int]) -> Any:
        """The cache is cut back to the prefix before each candidate."""
        rows = []
        for suffix in suffixes:
            self._model.n_tokens = len(prefix)
            self._model.eval(list(suffix))
            rows.append(self._last(targets))
        return np.array(rows)

    def longest_match(self, prefix: Sequence[int], suffixes: Suffixes, targets: Sequence[int]) -> Any:
        """As `Llama.generate` does: what a candidate shares with the one before is kept too."""
        rows = []
        before: Sequence[int] = ()
        for suffix in suffixes:
            # The last token is always evaluated: its logits are read.
            pairs = zip(before, suffix[:-1], strict=False)
            same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(before), len(suffix) - 1))
            self._model.n_tokens = len(prefix) + same
            self._model.eval(list(suffix[same:]))
            rows.append(self._last(targets))
            before = suffix
        return np.array(rows)

    def full(self, prefix: Sequence[int], suffixes: Suffixes, targets: Sequence[int]) -> Any:
        """Every candidate as a prompt of its own."""
        rows = []
        for suffix in suffixes:
            self._model.reset()
            self._model.eval([*prefix, *suffix])
            rows.append(self._last(targets))
        return np.array(rows)

    def _last(self, targets: Sequence[int]) -> list[float]:
        # Read where llama.cpp put them: the class copies them out only when asked to keep all.
        logits = llama_cpp.llama_get_logits_ith(self._model._ctx.ctx, -1)
        return [logits[target] for target in targets]

    def close(self) -> None:
        """Frees the model."""
        self._model.close()
