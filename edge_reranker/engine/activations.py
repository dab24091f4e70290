"""What a model's weights are multiplied with, and what each of its blocks changes, over texts."""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from edge_reranker import interrupts
from edge_reranker.engine.llama import LlamaModel
from edge_reranker.engine.types import EngineSpec, FloatArray
from edge_reranker.errors import EngineError, InvalidArgument, ModelInvalid
from edge_reranker.types import Piece

# What llama.cpp calls states in its graph: behind a block of a model that normalises before it, ahead of the
# first block of BERT and its kin (which normalise behind, so that the next block's queries read the very
# states), and the last ones.
_BEHIND = b"l_out-"
_FIRST_NORM = b"norm-0"
_FIRST_OF_BERT = b"inp_norm-0"
_LAST = b"result_embd_pooled"
_QUERIES = re.compile(r"blk\.(\d+)\.attn_(?:q|qkv)\.weight")


@dataclass(frozen=True, slots=True)
class Columns:
    """Of one tensor: the sum of squares of what each column was multiplied with, over ``n_tokens``."""

    sums: FloatArray
    n_tokens: int

    @property
    def mean(self) -> FloatArray:
        """The mean square, float32 [n_columns]: what ``derive`` takes as importance."""
        return np.asarray(self.sums / np.float32(self.n_tokens), np.float32)


@dataclass(frozen=True, slots=True)
class Observed:
    """Over ``n_tokens`` tokens: the importance of columns by tensor, and the influence of blocks.

    ``influence`` is float64 [n_blocks], 1 less the mean cosine between a token's states before a block and
    behind it (Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect",
    arXiv 2403.03853, 2024); None for an architecture whose blocks llama.cpp names otherwise.
    """

    columns: Mapping[str, Columns]
    influence: NDArray[np.float64] | None
    n_tokens: int

    @property
    def importance(self) -> dict[str, FloatArray]:
        """As ``derive`` takes it."""
        return {name: columns.mean for name, columns in self.columns.items()}


def observe(
    path: Path,
    texts: Sequence[Sequence[Piece]],
    *,
    max_tokens: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Observed:
    """Has a model read ``texts`` one by one, each cut to what it takes at once, until ``max_tokens``.

    ``progress`` is told the tokens read. Raises ModelInvalid, InvalidArgument when there is nothing to read,
    EngineError on a version of llama.cpp that keeps its tensors otherwise.
    """
    watch = _Watch()
    # llama.cpp computes node by node for the callback, and with every node all threads wait for each other:
    # beside one other busy program, two took 63 s for what one did in 1.1 s (1,000 tokens of MiniLM).
    with interrupts.held():
        model = LlamaModel(EngineSpec(path, "encoder", n_threads=1), watch)
    n_tokens = 0
    for text in texts:
        ids = model.tokenize(text)[: min(model.info.n_ctx_sequence, max_tokens - n_tokens)]
        if ids:
            with interrupts.held():  # raised inside a callback, Ctrl-C would be lost
                model.encode(ids)
            n_tokens += len(ids)
            progress(n_tokens)
        if n_tokens >= max_tokens:
            break
    if not n_tokens:
        raise InvalidArgument("texts", "nothing in them is text that the model reads; give others")
    columns = {
        name: Columns(np.asarray(sums, np.float32), count) for name, (sums, count) in watch.squares.items()
    }
    return Observed(columns, watch.influence(model.info.n_layer), n_tokens)


class _Tensor(ctypes.Structure):
    """``struct ggml_tensor`` as far as its name, as ggml.h has it."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.c_void_p * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class _Watch:
    """Looks at every product with a weight, and at the states between blocks."""

    def __init__(self) -> None:
        self.squares: dict[str, tuple[NDArray[np.float64], int]] = {}
        self._n_tokens = self._n_seen = 0
        self._states: dict[int, FloatArray] = {}  # of a text: 0 ahead of the first block, n behind the n-th
        self._bert = False
        self._cosines: dict[int, float] = {}
        self._error: Exception | None = None
        self._known = False
        library: Any = llama._lib  # linked with ggml
        self._name, self._op = library.ggml_get_name, library.ggml_op_desc
        self._n_bytes, self._read = library.ggml_nbytes, library.ggml_backend_tensor_get
        for function in (self._name, self._op):
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
        self._n_bytes.argtypes, self._n_bytes.restype = [ctypes.c_void_p], ctypes.c_size_t
        self._read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self._callback = llama.ggml_backend_sched_eval_callback(self._look)

    def install(self, parameters: Any) -> None:
        """Has a context that is made with these parameters call back; this object must outlive it."""
        parameters.cb_eval = self._callback

    def expect(self, n_tokens: int) -> None:
        """The next decode has ``n_tokens`` tokens."""
        self._n_tokens = n_tokens
        self._states.clear()

    def take(self, context: Any) -> FloatArray:
        """The states of the last decode, once what its blocks changed is counted. Raises what went wrong."""
        if self._error is not None:
            raise self._error
        states = [self._states[at] for at in sorted(self._states)]
        for block, (ahead, behind) in enumerate(itertools.pairwise(states)):
            lengths = np.linalg.norm(ahead, axis=1) * np.linalg.norm(behind, axis=1)
            cosines = np.einsum("ij,ij->i", ahead, behind, dtype=np.float64) / np.maximum(lengths, 1e-30)
            self._cosines[block] = self._cosines.get(block, 0.0) + float(cosines.sum())
        self._n_seen += self._n_tokens
        n_embd = llama.llama_model_n_embd(llama.llama_get_model(context))
        last = llama.llama_get_embeddings(context)
        return np.ctypeslib.as_array(last, shape=(self._n_tokens, n_embd))

    def influence(self, n_layer: int) -> NDArray[np.float64] | None:
        """Of every block; None when the states between them were not recognised."""
        if len(self._cosines) != n_layer:
            return None
        return 1.0 - np.array([self._cosines[block] for block in range(n_layer)]) / self._n_seen

    def _look(self, address: int, ask: bool, _user_data: object) -> bool:
        try:
            name = self._name(address)
            tensor = _Tensor.from_address(address)
            if not self._known:
                self._check(tensor, name)
            if ask:
                return self._wanted(tensor, name, self._op(address))
            self._keep(address, tensor, name, self._op(address))
        except Exception as error:  # raised from here, it would be lost
            self._error = self._error or error
        return True

    def _check(self, tensor: _Tensor, name: bytes) -> None:
        if tensor.name != name:
            raise EngineError(
                "this version of llama.cpp keeps tensors otherwise; install llama-cpp-python 0.3.36"
            )
        self._known = True

    def _wanted(self, tensor: _Tensor, name: bytes, op: bytes) -> bool:
        if op == b"MUL_MAT_ID":
            raise ModelInvalid(
                "a mixture of experts: its importance cannot be measured here; choose another model"
            )
        if name == _FIRST_OF_BERT:
            self._bert = True
        if op == b"MUL_MAT":
            return self._weight(tensor) is not None
        return name.startswith(_BEHIND) or name in (_FIRST_NORM, _LAST)

    def _keep(self, address: int, tensor: _Tensor, name: bytes, op: bytes) -> None:
        if op == b"MUL_MAT":
            weight = self._weight(tensor) or ""
            inputs = self._array(tensor.src[1])
            self._count(weight, inputs)
            if self._bert and (found := _QUERIES.fullmatch(weight)):
                self._states[int(found[1])] = inputs
        elif name.startswith(_BEHIND):
            self._states[int(name[len(_BEHIND) :]) + 1] = self._array(address)
        elif name == _FIRST_NORM and not self._states:
            if not self._bert:
                self._states[0] = self._array(tensor.src[0])
        elif name == _LAST and self._bert:
            self._states[max(self._states, default=-1) + 1] = self._array(address)

    def _weight(self, tensor: _Tensor) -> str | None:
        """The name of the weight that is multiplied with; None for a product of two activations."""
        name = str(self._name(tensor.src[0]).decode(errors="replace"))
        return name if name.endswith(".weight") else None

    def _count(self, weight: str, inputs: FloatArray) -> None:
        sums, count = self.squares.get(weight, (np.zeros(inputs.shape[1]), 0))
        sums += np.einsum("ij,ij->j", inputs, inputs, dtype=np.float64)
        self.squares[weight] = sums, count + len(inputs)

    def _array(self, address: int) -> FloatArray:
        """A tensor's numbers, float32 [n_rows, n_columns]."""
        tensor = _Tensor.from_address(address)
        if tensor.type != llama.GGML_TYPE_F32:
            raise ModelInvalid(f"{tensor.name.decode()}: llama.cpp multiplies it with what is not float32")
        raw = np.empty(self._n_bytes(address), np.uint8)
        self._read(address, raw.ctypes.data, 0, raw.nbytes)
        shape, strides = tensor.ne[::-1], tensor.nb[::-1]
        return np.ndarray(shape, np.float32, raw, strides=strides).reshape(-1, shape[-1])
