"""Whether llama.cpp runs a file at all."""

from __future__ import annotations

from pathlib import Path

import llama_cpp.llama_cpp as llama

from edge_reranker import interrupts
from edge_reranker.engine.llama import _start_backend


def loads(path: Path) -> bool:
    """Whether llama.cpp knows the architecture and the pre-tokenizer of ``path`` and finds all tensors.

    The weights are mapped and not read.
    """
    _start_backend()
    parameters = llama.llama_model_default_params()
    parameters.load_mode = llama.LLAMA_LOAD_MODE_MMAP
    parameters.use_extra_bufts = False  # nothing is rearranged for the processor, so nothing is read
    with interrupts.held():
        model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        return False
    llama.llama_model_free(model)
    return True
