"""A GGUF file in memory, through the low-level API of llama-cpp-python; kv.py has what lies in its cache."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from edge_reranker.engine.adapters import Adapters
from edge_reranker.engine.kv import MAX_BATCH_TOKENS, Decoder, Isolated, Kv, Unified
from edge_reranker.engine.ranker import Ranker, configure, frame
from edge_reranker.engine.states import LastStates, States
from edge_reranker.engine.types import MAX_ENCODE_TOKENS, Adapter, EngineInfo, EngineSpec, FloatArray
from edge_reranker.errors import ModelInvalid
from edge_reranker.types import Piece

_FORBIDDEN_IN_DATA = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_USER_DEFINED

# llama.cpp asks before each node of its graph whether to stop: the length of a C string, 0 or 1, answers
# without a line of Python.
_STRLEN = ctypes.cast(ctypes.CDLL(None).strlen, llama.ggml_abort_callback)


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _discard_log(_level: int, _text: bytes, _user_data: object) -> None:
    """llama.cpp's log lines may quote prompts; nothing of it is kept."""


def _start_backend() -> None:
    llama.llama_log_set(_discard_log, ctypes.c_void_p(0))
    llama.llama_backend_init()


class LlamaModel:
    """One GGUF file in memory with one context; not thread-safe, meant for a worker process."""

    def __init__(self, spec: EngineSpec, states: States | None = None) -> None:
        """Loads the file. Raises ModelInvalid if llama.cpp refuses it.

        ``states`` looks on while an encoder computes, in place of what stops it behind the hidden states.
        """
        _start_backend()
        self._spec = spec
        of_model = llama.llama_model_default_params()
        # Weights are rearranged for the processor; mapped, the file would be in memory beside them.
        of_model.load_mode = llama.LLAMA_LOAD_MODE_NONE
        self._model: Any = llama.llama_model_load_from_file(str(spec.path).encode(), of_model)
        if not self._model:
            raise ModelInvalid(
                f"{spec.path}: llama.cpp cannot load it; check it with `edge-reranker model verify`"
            )
        self._n_embd = int(llama.llama_model_n_embd(self._model))
        self._states = states or LastStates(self._n_embd)
        parameters = llama.llama_context_default_params()
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if spec.role == "encoder":
            parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = MAX_ENCODE_TOKENS
            parameters.n_seq_max = 1
            parameters.embeddings = True
            parameters.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
            # 12 to 20 % faster for one sequence, which stands alone anyway.
            parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
            self._states.install(parameters)
        elif spec.role == "ranker":
            configure(parameters, self._model)
        else:
            parameters.n_seq_max = spec.n_sequences + 1
            parameters.n_batch = parameters.n_ubatch = MAX_BATCH_TOKENS
            parameters.kv_unified = spec.mode == "unified"
            if spec.mode == "unified":
                parameters.n_ctx = spec.n_ctx_sequence + MAX_BATCH_TOKENS
                parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
            else:
                # Flash attention would make separate streams more than twice as slow.
                parameters.n_ctx = spec.n_ctx_sequence * parameters.n_seq_max
        parameters.n_threads = parameters.n_threads_batch = spec.n_threads
        self._abort = (ctypes.c_uint8 * 2)()
        parameters.abort_callback = _STRLEN
        parameters.abort_callback_data = ctypes.cast(self._abort, ctypes.c_void_p)
        self._context: Any = llama.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ModelInvalid(
                f"{spec.path}: no memory for a context of {parameters.n_ctx} tokens; close other programs"
            )
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._n_vocab = int(llama.llama_vocab_n_tokens(self._vocab))
        self._wordpiece = llama.llama_vocab_type(self._vocab) == llama.LLAMA_VOCAB_TYPE_WPM
        unified = spec.role == "scorer" and spec.mode == "unified"
        self._decoder = Decoder(self._context, max_sequences=spec.n_sequences if unified else 1)
        self._adapters = Adapters(self._model, self._context)
        self._kv: Kv | None = None
        if spec.role == "scorer":
            if not self._decoder.memory:
                raise ModelInvalid(
                    f"{spec.path}: it reads whole texts and predicts no token, so it cannot answer yes or "
                    "no; a rank model is added with `edge-reranker model add --role ranker`"
                )
            self._kv = (Unified if unified else Isolated)(self._decoder, spec.n_sequences)
        # BERT and its kin were trained on texts between separators, and know so many positions.
        self._before: list[int] = []
        self._after: list[int] = []
        self._room = MAX_ENCODE_TOKENS
        if spec.role == "encoder" and not self._decoder.memory:
            self._before, _, self._after = frame(self._vocab)
            n_positions = int(llama.llama_model_n_ctx_train(self._model))
            self._room = min(MAX_ENCODE_TOKENS, n_positions) - len(self._before) - len(self._after)
        self._ranker: Ranker | None = None
        if spec.role == "ranker":
            self._ranker = Ranker(spec.path, self._model, self._decoder)

    @property
    def ranker(self) -> Ranker:
        """What a model in the role of a ranker does."""
        if self._ranker is None:
            raise RuntimeError(f"a {self._spec.role} does not rank")
        return self._ranker

    @property
    def info(self) -> EngineInfo:
        """What the model is."""
        buffer = ctypes.create_string_buffer(256)
        room = self._room if self._spec.role == "encoder" else self._spec.n_ctx_sequence
        llama.llama_model_desc(self._model, buffer, len(buffer))
        return EngineInfo(
            description=buffer.value.decode(errors="replace"),
            n_embd=self._n_embd,
            n_vocab=self._n_vocab,
            n_layer=int(llama.llama_model_n_layer(self._model)),
            n_ctx_sequence=self._ranker.room if self._ranker else room,
            system=llama.llama_print_system_info().decode(errors="replace"),
        )

    def tokenize(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of one text; data gives neither control nor user-defined tokens."""
        ids: list[int] = []
        for text, structure in pieces:
            found = self._tokens(self._plain(text).encode(), structure)
            if not structure:
                found = [token for token in found if not self._forbidden(token)]
            ids += found
        return ids

    def _plain(self, text: str) -> str:
        """What WordPiece reads: without accents. llama.cpp drops only those that are one with their letter,
        and leaves Hangul syllables whole, of which the vocabulary has the parts.
        """
        if not self._wordpiece or text.isascii():
            return text
        return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")

    def _tokens(self, text: bytes, structure: bool) -> list[int]:
        size = len(text) + 8  # never more tokens than bytes, but for what the vocabulary adds in front
        buffer = (llama.llama_token * size)()
        count = llama.llama_tokenize(self._vocab, text, len(text), buffer, size, False, structure)
        if count < 0:
            raise ModelInvalid(
                f"{self._spec.path}: its tokenizer needs {-count} tokens for {len(text)} bytes"
            )
        return list(buffer[:count])

    def _forbidden(self, token: int) -> bool:
        return bool(llama.llama_vocab_get_attr(self._vocab, token) & _FORBIDDEN_IN_DATA)

    def encode(self, ids: Sequence[int], *, n_threads: int = 0) -> FloatArray:
        """Pooled last hidden states, float32 [n_embd], of at most ``info.n_ctx_sequence`` ids.

        ``n_threads`` 0 means those of the spec; the result is the same bits whatever they are. Raises
        ValueError for too many ids, Aborted.
        """
        if len(ids) > self._room:
            raise ValueError(f"{len(ids)} tokens, there is room for {self._room}")
        ids = [*self._before, *ids, *self._after]
        n_threads = n_threads or self._spec.n_threads
        llama.llama_set_n_threads(self._context, n_threads, n_threads)
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        self._states.expect(len(ids))
        self._decoder.begin()
        for position, token in enumerate(ids):
            self._decoder.add(token, position, (0,), read=True)
        self._decoder.decode()
        states = self._states.take(self._context)
        if self._spec.pooling == "mean":
            state = states.mean(axis=0, dtype=np.float32)
        else:
            state = states[0 if self._spec.pooling == "cls" else -1].copy()
        if self._spec.normalise:
            state = state / max(float(np.linalg.norm(state)), 1e-12)
        return np.asarray(state, np.float32)

    @property
    def kv(self) -> Kv:
        """Prefix and candidates of a scorer."""
        if self._kv is None:
            raise RuntimeError("an encoder reads one text at a time and keeps nothing")
        return self._kv

    def use_adapter(self, adapter: Adapter | None) -> None:
        """What is decoded from here on is decoded with ``adapter``; None: by the bare model.

        Raises ModelInvalid, and then all is as it was.
        """
        if self._adapters.use(adapter):
            self.forget()  # the prefix's keys and values were made with the other one

    def load_adapter(self, path: Path) -> None:
        """Loads an adapter for later. Raises ModelInvalid."""
        self._adapters.load(path)

    def abort(self) -> None:
        """Cuts off the decode that runs in another thread; it raises Aborted."""
        self._abort[0] = 1

    def go_on(self) -> None:
        """Takes back what ``abort`` asked for."""
        self._abort[0] = 0

    def forget(self) -> None:
        """Empties the cache, of which nothing is known after Aborted."""
        if self._kv is not None:
            self._kv.clear()
