"""Hidden states without the output matrix, which takes 40 % of an encode and is not read."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import llama_cpp.llama_cpp as llama
import numpy as np

from edge_reranker.engine.types import FloatArray

# What llama.cpp calls the last hidden states in its graph; the output matrix comes behind them.
_NAME = b"result_embd_pooled"


class States(Protocol):
    """Looks on while a context decodes, and hands out the last hidden states."""

    def install(self, parameters: Any) -> None:
        """Has a context that is made with these parameters call back; this object must outlive it."""

    def expect(self, n_tokens: int) -> None:
        """The next decode has ``n_tokens`` tokens."""

    def take(self, context: Any) -> FloatArray:
        """The states of the last decode, float32 [n_tokens, n_embd]."""


class LastStates:
    """Stops a decode behind the last hidden states, and keeps them.

    llama.cpp asks a callback about each node of its graph: whether it wants to see it, and once it is
    computed, whether to go on. On a version that names them otherwise all is computed, as without it.
    """

    def __init__(self, n_embd: int) -> None:
        self._n_embd = n_embd
        self._n_tokens = 0
        self._found: FloatArray | None = None
        library: Any = llama._lib
        # Of the ggml libraries that llama.cpp's is linked with.
        self._name, self._read = library.ggml_get_name, library.ggml_backend_tensor_get
        self._name.argtypes, self._name.restype = [ctypes.c_void_p], ctypes.c_char_p
        self._read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self._callback = llama.ggml_backend_sched_eval_callback(self._look)

    def install(self, parameters: Any) -> None:
        """Has a context that is made with these parameters call back; this object must outlive it."""
        parameters.cb_eval = self._callback

    def expect(self, n_tokens: int) -> None:
        """The next decode has ``n_tokens`` tokens."""
        self._n_tokens, self._found = n_tokens, None

    def take(self, context: Any) -> FloatArray:
        """The states of the last decode, float32 [n_tokens, n_embd]."""
        if self._found is not None:
            return self._found
        states = llama.llama_get_embeddings(context)
        return np.ctypeslib.as_array(states, shape=(self._n_tokens, self._n_embd))

    def _look(self, tensor: Any, ask: bool, _user_data: object) -> bool:
        if ask:
            return bool(self._name(tensor) == _NAME)
        found = np.empty((self._n_tokens, self._n_embd), np.float32)
        self._read(tensor, found.ctypes.data, 0, found.nbytes)
        self._found = found
        return False
