"""The only module that talks to llama.cpp, through the low-level API of llama-cpp-python."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from edge_reranker.engine.adapters import Adapters
from edge_reranker.engine.planner import MIN_TOKENS, Batch
from edge_reranker.engine.types import MAX_ENCODE_TOKENS, Adapter, EngineInfo, EngineSpec, FloatArray
from edge_reranker.errors import ModelInvalid
from edge_reranker.types import Piece

MAX_BATCH_TOKENS = 512
_FORBIDDEN_IN_DATA = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_USER_DEFINED

QUANTISATIONS = {
    "F16": llama.LLAMA_FTYPE_MOSTLY_F16,
    "Q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0,
}


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _discard_log(_level: int, _text: bytes, _user_data: object) -> None:
    """llama.cpp's log lines may quote prompts; nothing of it is kept."""


def _start_backend() -> None:
    llama.llama_log_set(_discard_log, ctypes.c_void_p(0))
    llama.llama_backend_init()


def derive(source: Path, target: Path, *, quantisation: str, n_blocks: int | None = None) -> None:
    """Writes ``target``: ``source`` requantised, and cut to its first ``n_blocks`` blocks if given.

    The final norm stays, so the cut model loads like any other. Raises ModelInvalid.
    """
    _start_backend()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = QUANTISATIONS[quantisation]
    parameters.allow_requantize = True
    if n_blocks is not None:
        dropped = [*range(n_blocks, _n_layer(source)), -1]  # -1 ends the list
        array = (ctypes.c_int32 * len(dropped))(*dropped)
        parameters.prune_layers = ctypes.cast(array, ctypes.POINTER(ctypes.c_int32))
    with _interrupts_held():
        result = llama.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    if result != 0:
        raise ModelInvalid(f"{source}: llama.cpp could not requantise it to {quantisation}")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until native code is done: raised inside one of its callbacks, it would be lost."""
    held = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


def _n_layer(path: Path) -> int:
    with _interrupts_held():
        model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    if not model:
        raise ModelInvalid(
            f"{path}: llama.cpp cannot load it; fetch it again with `edge-reranker model pull`"
        )
    n_layer = int(llama.llama_model_n_layer(model))
    llama.llama_model_free(model)
    return n_layer


class LlamaModel:
    """One GGUF file in memory with one context; not thread-safe, meant for a worker process."""

    def __init__(self, spec: EngineSpec) -> None:
        """Loads the file. Raises ModelInvalid if llama.cpp refuses it."""
        _start_backend()
        self._spec = spec
        self._model: Any = llama.llama_model_load_from_file(
            str(spec.path).encode(), llama.llama_model_default_params()
        )
        if not self._model:
            raise ModelInvalid(
                f"{spec.path}: llama.cpp cannot load it; check it with `edge-reranker model verify`"
            )
        parameters = llama.llama_context_default_params()
        if spec.role == "encoder":
            parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = MAX_ENCODE_TOKENS
            parameters.n_seq_max = 1
            parameters.embeddings = True
            parameters.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
        else:
            # Stream 0 keeps the prefix. Separate streams without flash attention give a candidate the same
            # bits whatever stands beside it (DESIGN chapter 2).
            parameters.n_seq_max = spec.n_sequences + 1
            parameters.n_ctx = spec.n_ctx_sequence * parameters.n_seq_max
            parameters.n_batch = parameters.n_ubatch = MAX_BATCH_TOKENS
            parameters.kv_unified = False
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.n_threads = parameters.n_threads_batch = spec.n_threads
        self._context: Any = llama.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ModelInvalid(f"{spec.path}: no memory for a context of {parameters.n_ctx} tokens")
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._n_embd = int(llama.llama_model_n_embd(self._model))
        self._n_vocab = int(llama.llama_vocab_n_tokens(self._vocab))
        self._batch = llama.llama_batch_init(MAX_BATCH_TOKENS, 0, 1)
        self._adapters = Adapters(self._model, self._context)
        self._prefix: list[int] = []
        self._copied = 0  # streams 1 to this one hold the prefix

    @property
    def info(self) -> EngineInfo:
        """What the model is."""
        buffer = ctypes.create_string_buffer(256)
        llama.llama_model_desc(self._model, buffer, len(buffer))
        return EngineInfo(
            description=buffer.value.decode(errors="replace"),
            n_embd=self._n_embd,
            n_vocab=self._n_vocab,
            n_layer=int(llama.llama_model_n_layer(self._model)),
            n_ctx_sequence=self._spec.n_ctx_sequence,
            system=llama.llama_print_system_info().decode(errors="replace"),
        )

    def tokenize(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of one text; data gives neither control nor user-defined tokens."""
        ids: list[int] = []
        for text, structure in pieces:
            found = self._tokens(text.encode(), structure)
            if not structure:
                found = [token for token in found if not self._forbidden(token)]
            ids += found
        return ids

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
        """Mean over tokens of the last hidden states, float32 [n_embd]. At most MAX_ENCODE_TOKENS ids.

        ``n_threads`` 0 means those of the spec; the result is the same bits whatever they are.
        """
        n_threads = n_threads or self._spec.n_threads
        llama.llama_set_n_threads(self._context, n_threads, n_threads)
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        self._begin()
        for position, token in enumerate(ids):
            self._add(token, position, 0, read=True)
        self._decode()
        states = llama.llama_get_embeddings(self._context)
        rows = np.ctypeslib.as_array(states, shape=(len(ids), self._n_embd))
        return np.asarray(rows.mean(axis=0, dtype=np.float32), np.float32)

    @property
    def n_sequences(self) -> int:
        """How many candidates one batch holds at most."""
        return self._spec.n_sequences

    def prefix_cost(self, ids: Sequence[int]) -> int:
        """How many tokens ``set_prefix`` would have to decode."""
        return len(ids) - self._common(ids)

    def _common(self, ids: Sequence[int]) -> int:
        pairs = enumerate(zip(self._prefix, ids, strict=False))
        return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(self._prefix), len(ids)))

    def set_prefix(self, ids: Sequence[int]) -> int:
        """Makes ``ids`` the prefix; decodes what differs from the last one. Returns the tokens decoded."""
        ids = list(ids)
        common = self._common(ids)
        if common == len(ids) == len(self._prefix):
            return 0
        memory = llama.llama_get_memory(self._context)
        self._copied = 0
        self._prefix = []
        if 0 < len(ids) - common < MIN_TOKENS:
            common = max(0, len(ids) - MIN_TOKENS)  # once more, rather than one token alone
        # Some caches (recurrent, sliding window) cannot be trimmed; then start afresh.
        if not llama.llama_memory_seq_rm(memory, 0, common, -1):
            llama.llama_memory_clear(memory, False)
            common = 0
        start = common
        while (left := len(ids) - start) > 0:
            n = min(left, MAX_BATCH_TOKENS)
            if 0 < left - n < MIN_TOKENS:
                n -= MIN_TOKENS
            self._begin()
            for position in range(start, start + n):
                self._add(ids[position], position, 0, read=False)
            self._decode()
            start += n
        self._prefix = ids
        return len(ids) - common

    def score(self, suffixes: Sequence[Sequence[int]], batch: Batch, targets: Sequence[int]) -> FloatArray:
        """Logits of ``targets`` after prefix + suffix, float32 [len(batch.indices), len(targets)]."""
        n = len(batch.indices)
        self._copy_prefix(n)
        self._begin()
        reads = []
        start = len(self._prefix)
        for stream, index in enumerate(batch.indices, start=1):
            suffix = suffixes[index]
            for offset in range(batch.length):
                # Padding repeats the last token behind the position that is read: causal attention never
                # looks ahead, so it cannot change the score.
                token = suffix[min(offset, len(suffix) - 1)]
                read = offset == len(suffix) - 1
                if read:
                    reads.append(self._batch.n_tokens)
                self._add(token, start + offset, stream, read=read)
        self._decode()
        out = np.empty((n, len(targets)), dtype=np.float32)
        for row, read_at in enumerate(reads):
            logits = llama.llama_get_logits_ith(self._context, read_at)
            out[row] = [logits[target] for target in targets]
        memory = llama.llama_get_memory(self._context)
        for stream in range(1, n + 1):
            llama.llama_memory_seq_rm(memory, stream, start, -1)
        return out

    def _copy_prefix(self, n: int) -> None:
        """Puts the prefix into streams 1 to ``n``.

        As saved state, which holds the prefix's cells only: `llama_memory_seq_cp` copies whole streams,
        and took twice as long (11 against 5 ms for 8 streams of 512 cells).
        """
        if n <= self._copied:
            return
        if not self._prefix:
            memory = llama.llama_get_memory(self._context)
            for stream in range(self._copied + 1, n + 1):
                llama.llama_memory_seq_rm(memory, stream, -1, -1)
            self._copied = n
            return
        size = llama.llama_state_seq_get_size(self._context, 0)
        state = (ctypes.c_uint8 * size)()
        ok = llama.llama_state_seq_get_data(self._context, state, size, 0) == size
        for stream in range(self._copied + 1, n + 1):
            ok = ok and llama.llama_state_seq_set_data(self._context, state, size, stream) == size
        if not ok:
            self._copied = 0
            raise RuntimeError(f"the state of {len(self._prefix)} tokens could not be copied")
        self._copied = n

    def use_adapter(self, adapter: Adapter | None) -> None:
        """What is decoded from here on is decoded with ``adapter``; None: by the bare model.

        Raises ModelInvalid, and then all is as it was.
        """
        if self._adapters.use(adapter):
            # The prefix's keys and values were made with the other one.
            llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
            self._prefix = []
            self._copied = 0

    def load_adapter(self, path: Path) -> None:
        """Loads an adapter for later. Raises ModelInvalid."""
        self._adapters.load(path)

    def _begin(self) -> None:
        self._batch.n_tokens = 0

    def _add(self, token: int, position: int, stream: int, *, read: bool) -> None:
        batch = self._batch
        at = batch.n_tokens
        batch.token[at] = token
        batch.pos[at] = position
        batch.n_seq_id[at] = 1
        batch.seq_id[at][0] = stream
        batch.logits[at] = 1 if read else 0
        batch.n_tokens = at + 1

    def _decode(self) -> None:
        result = llama.llama_decode(self._context, self._batch)
        if result != 0:
            raise RuntimeError(f"llama_decode returned {result} for {self._batch.n_tokens} tokens")
