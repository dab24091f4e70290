"""Rank models (BERT with a classifier, and its kin) in llama.cpp: one query and one document, one number."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from edge_reranker.engine.kv import Decoder
from edge_reranker.engine.types import MAX_RANK_TOKENS
from edge_reranker.errors import ModelInvalid

_NO_TOKEN = -1  # llama.h: LLAMA_TOKEN_NULL
# The tensor that gives the score, where it is not cls.output.weight.
_HEADS = {b"jina-bert-v2": b"cls.weight"}
_OR_A_SCORER = "a model that answers yes or no is added with `edge-reranker model add --role scorer`"


class _GgufInitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class Ranker:
    """A loaded model's classifier; not thread-safe. ``configure`` the context it gets.

    Raises ModelInvalid for a model that would give numbers, but no scores.
    """

    def __init__(self, path: Path, model: Any, decoder: Decoder) -> None:
        n_outputs = int(llama.llama_model_n_cls_out(model))
        if n_outputs != 1:
            raise ModelInvalid(
                f"{path}: its classifier has {n_outputs} outputs, a ranker has one; {_OR_A_SCORER}"
            )
        head = _HEADS.get(_architecture(model), b"cls.output.weight")
        if head not in _tensor_names(path):
            # llama.cpp would pass off the first number of a hidden state as the score.
            raise ModelInvalid(
                f"{path}: it has no classifier ({head.decode()}), so it cannot rank; {_OR_A_SCORER}"
            )
        self._decoder = decoder
        self._before, self._between, self._after = frame(llama.llama_model_get_vocab(model))
        if not self._between:
            raise ModelInvalid(f"{path}: its vocabulary names no separator, so it cannot read pairs")
        self.n_ctx = n_ctx(model)
        if not math.isfinite(self.score([0], [0])):
            raise ModelInvalid(f"{path}: its scores are not finite; the file is damaged, add it again")

    @property
    def room(self) -> int:
        """How many tokens query and document may have together."""
        return self.n_ctx - len(self._before) - len(self._between) - len(self._after)

    def score(self, query: Sequence[int], document: Sequence[int]) -> float:
        """The classifier's output for ``[CLS] query [SEP] document [SEP]``, as the vocabulary has these.

        Each pair is a computation of its own, so its score depends on nothing else. Raises ValueError for a
        pair without room, Aborted.
        """
        if len(query) + len(document) > self.room:
            raise ValueError(f"{len(query)} + {len(document)} tokens, there is room for {self.room}")
        ids = [*self._before, *query, *self._between, *document, *self._after]
        self._decoder.begin()
        for position, token in enumerate(ids):
            self._decoder.add(token, position, (0,), read=True)
        self._decoder.decode()
        return float(llama.llama_get_embeddings_seq(self._decoder.context, 0)[0])


def configure(parameters: Any, model: Any) -> None:
    """Sets up a context for ranking: one whole pair at a time, both ways, with the classifier at the end."""
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = n_ctx(model)
    parameters.n_seq_max = 1
    parameters.embeddings = True
    parameters.pooling_type = llama.LLAMA_POOLING_TYPE_RANK
    parameters.attention_type = llama.LLAMA_ATTENTION_TYPE_NON_CAUSAL


def n_ctx(model: Any) -> int:
    """How many tokens a pair may have, separators included: past its table of positions there is nothing."""
    return min(MAX_RANK_TOKENS, int(llama.llama_model_n_ctx_train(model)))


def frame(vocab: Any) -> tuple[list[int], list[int], list[int]]:
    """What stands before, between and behind: BERT's [CLS] and [SEP]s, RoBERTa's <s>, </s></s> and </s>."""
    eos, sep = llama.llama_vocab_eos(vocab), llama.llama_vocab_sep(vocab)
    ends = [sep if eos == _NO_TOKEN else eos] if llama.llama_vocab_get_add_eos(vocab) else []
    seps = [sep] if llama.llama_vocab_get_add_sep(vocab) else []
    begins = [llama.llama_vocab_bos(vocab)] if llama.llama_vocab_get_add_bos(vocab) else []
    before, between, after = (
        [int(token) for token in tokens if token != _NO_TOKEN]
        for tokens in (begins, ends + seps, ends or seps)
    )
    return before, between, after


def _architecture(model: Any) -> bytes:
    buffer = ctypes.create_string_buffer(64)
    llama.llama_model_meta_val_str(model, b"general.architecture", buffer, len(buffer))
    return buffer.value


def _tensor_names(path: Path) -> set[bytes]:
    """The tensors of a file that llama.cpp has already loaded; the model itself does not tell."""
    library = llama._lib  # ggml's reader; the binding declares nothing of it
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = (ctypes.c_char_p, _GgufInitParams)
    library.gguf_get_n_tensors.restype = ctypes.c_int64
    library.gguf_get_n_tensors.argtypes = (ctypes.c_void_p,)
    library.gguf_get_tensor_name.restype = ctypes.c_char_p
    library.gguf_get_tensor_name.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    library.gguf_free.restype = None
    library.gguf_free.argtypes = (ctypes.c_void_p,)
    file = library.gguf_init_from_file(str(path).encode(), _GgufInitParams(True, None))
    if not file:
        raise ModelInvalid(f"{path}: it changed while it was read; add it again")
    try:
        return {library.gguf_get_tensor_name(file, at) for at in range(library.gguf_get_n_tensors(file))}
    finally:
        library.gguf_free(file)
