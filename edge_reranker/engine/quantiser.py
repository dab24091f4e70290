"""A GGUF file made of another: requantised, with fewer blocks. Run as a process of its own, for llama.cpp
ends the process when it meets what it does not expect, and does not stop for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import llama_cpp
import llama_cpp.llama_cpp as llama
import numpy as np

from edge_reranker.engine.device import usable_cpus
from edge_reranker.engine.process import WORKER_ENVIRONMENT
from edge_reranker.engine.types import FloatArray
from edge_reranker.errors import FailedPrecondition, InvalidArgument, ModelInvalid

_FTYPE = re.compile(r"LLAMA_FTYPE_(?:ALL|MOSTLY)_(\w+)")
VERSION: str = llama_cpp.__version__
"""Of the binding, and so of llama.cpp."""

PLAIN = ("F32", "F16", "BF16")
"""Types without blocks."""

QUANTISATIONS: Mapping[str, int] = {
    found[1]: int(number) for name, number in vars(llama).items() if (found := _FTYPE.fullmatch(name))
}
"""Every type of a whole file that llama.cpp names. Not all can be made of every model: see ``derive``."""


def _tensor_types() -> dict[str, int]:
    library: Any = llama._lib  # linked with ggml, which knows types that the binding does not name
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_is_quantized.restype = ctypes.c_bool
    names = {at: library.ggml_type_name(at) or b"" for at in range(int(llama.GGML_TYPE_COUNT))}
    found = {name.decode().upper(): at for at, name in names.items() if library.ggml_is_quantized(at)}
    found |= {name: at for at, each in names.items() if (name := each.decode().upper()) in PLAIN}
    return {name: at for name, at in found.items() if name not in ("Q8_1", "Q8_K")}  # of activations


TENSOR_TYPES: Mapping[str, int] = _tensor_types()
"""Every type of a tensor that llama.cpp writes into files."""

COPY = "COPY"
"""For ``derive``: every tensor as it is."""

NEED_IMPORTANCE = frozenset(
    ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S")
)
"""Types that llama.cpp refuses to make without an importance matrix, if they fit the model's columns."""

# llama.cpp's lines about its progress; a test holds them against the installed version.
_AT = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_FALLS_BACK = "-> falling back to"
_SIZE = re.compile(r"quant size +=+ *([\d.]+) MiB")
_FAILED = "failed to quantize: "
# Rows of a tensor that are in memory at once; llama.cpp would take 8 GB for a large tensor.
_BUFFER_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Progress:
    """Tensors written, of how many; ``n_fallback`` of them get a larger type than was asked for.

    The K and IQ types but IQ4_NL need columns in multiples of 256; a tensor of others gets a type that takes
    multiples of 32. llama.cpp does so by itself, and then a file is larger than its name says.
    """

    n_done: int
    n_tensors: int
    n_fallback: int


def derive(
    source: Path,
    target: Path,
    *,
    quantisation: str,
    n_blocks: int | None = None,
    blocks: Collection[int] = (),
    importance: Mapping[str, FloatArray] | None = None,
    overrides: Mapping[str, str] | None = None,
    pure: bool = False,
    n_threads: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Writes ``target``: ``source`` requantised, of its first ``n_blocks`` only, or without ``blocks``.

    ``quantisation`` is one of ``QUANTISATIONS``, or ``COPY``. The final norm stays, so the cut model loads
    like any other. ``importance`` is the mean square of what each column of a tensor is multiplied with,
    float32 [n_columns], by the tensor's name in ``source``;
    ``overrides`` gives tensors whose name in ``target`` matches a regular expression a type of
    ``TENSOR_TYPES``, ``pure`` all of them the same one. ``n_threads`` 0 is one a processor; the bytes are the
    same whatever it is. ``progress`` is called at every tensor, and at the end.

    Raises InvalidArgument, ModelInvalid when llama.cpp cannot do it, FailedPrecondition for lack of space,
    OSError. What it leaves then of ``target`` is no model.
    """
    job = {
        "source": os.fsencode(source).hex(),
        "target": os.fsencode(target).hex(),
        "copy": quantisation == COPY,
        "ftype": _known("quantisation", quantisation, {**QUANTISATIONS, COPY: QUANTISATIONS["F32"]}),
        "n_blocks": n_blocks,
        "blocks": sorted(set(blocks)),
        "overrides": [
            [_pattern(pattern), _known("overrides", name, TENSOR_TYPES)]
            for pattern, name in (overrides or {}).items()
        ],
        "pure": pure,
        "n_threads": n_threads or len(usable_cpus()),
        "importance": [[name, int(array.size)] for name, array in (importance or {}).items()],
    }
    if n_blocks is not None and blocks:
        raise InvalidArgument("blocks", "cannot be given with n_blocks; leave one out")
    if overrides and quantisation in (*PLAIN, COPY):
        raise InvalidArgument("overrides", f"llama.cpp has none for {quantisation}; leave them out")
    if target.exists() and target.samefile(source):
        raise InvalidArgument("target", f"{target} is the source, which stays as it is; name another file")
    target.open("ab").close()  # raises what C++ does not tell
    try:
        _run(job, list((importance or {}).values()), progress or (lambda _: None))
    except _Failed as error:
        hint = ""
        if quantisation in NEED_IMPORTANCE and not importance:
            hint = "; `edge-reranker quantize importance` makes one"
        raise ModelInvalid(f"{source}: {quantisation} cannot be made of it: {error}{hint}") from error


def _known(field: str, name: str, names: Mapping[str, int]) -> int:
    if name not in names:
        raise InvalidArgument(field, f"{name!r}; there are {', '.join(sorted(names))}")
    return names[name]


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidArgument("overrides", f"{pattern!r} is no regular expression: {error}") from error
    return pattern


class _Failed(Exception):
    """Why llama.cpp did not make the file."""


_Say = Callable[[Mapping[str, Any]], None]


def _run(job: Mapping[str, Any], arrays: list[FloatArray], progress: Callable[[Progress], None]) -> None:
    """Has a process of its own do the job; it ends with this one, whatever ends it."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-m", "edge_reranker.engine.quantiser"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=WORKER_ENVIRONMENT,
        start_new_session=True,  # Ctrl-C is for us, and ends it
    )
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("pipes were asked for")
    try:
        with contextlib.suppress(BrokenPipeError):  # it ended early, and said why
            child.stdin.write(json.dumps(job).encode() + b"\n")
            for array in arrays:
                child.stdin.write(np.ascontiguousarray(array, "<f4").tobytes())
            child.stdin.flush()
        if not _heard(child.stdout, progress):
            code = child.wait()
            raise _Failed(f"llama.cpp broke off ({f'signal {-code}' if code < 0 else f'exit code {code}'})")
    finally:
        child.kill()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()
        child.wait()


def _heard(lines: IO[bytes], progress: Callable[[Progress], None]) -> bool:
    """Whether it came to its end."""
    for line in lines:
        if not line.endswith(b"\n"):  # cut off
            return False
        match json.loads(line):
            case {"at": [n_done, n_tensors, n_fallback]}:
                progress(Progress(n_done, n_tensors, n_fallback))
            case {"failed": str(why)}:
                raise _Failed(why)
            case {"precondition": str(why)}:
                raise FailedPrecondition(why)
            case {"argument": [field, problem]}:
                raise InvalidArgument(field, problem)
            case _:
                return True
    return False


# What follows runs in the process of its own.


class _Log:
    """What llama.cpp says meanwhile: counted, and but for why it failed not kept."""

    def __init__(self, say: _Say) -> None:
        self.dry = True
        self.n_tensors = self.n_fallback = 0
        self.size_mib = 0.0
        self.why = ""
        self._say = say
        self.callback = llama.llama_log_callback(self._line)

    def say_done(self, n_done: int) -> None:
        self._say({"at": [n_done, self.n_tensors, self.n_fallback]})

    def _line(self, _level: int, line: bytes, _user_data: object) -> None:
        text = line.decode(errors="replace")
        at = _AT.match(text)
        if _FAILED in text:
            self.why = text.split(_FAILED, 1)[1].strip()
        elif not self.dry:
            if at:
                self.say_done(int(at[1]) - 1)
        elif at:
            self.n_tensors = int(at[1])
        elif found := _SIZE.search(text):
            self.size_mib = float(found[1])
        else:
            self.n_fallback += text.count(_FALLS_BACK)


def _do(job: Mapping[str, Any], arrays: list[FloatArray], say: _Say) -> None:
    source, target = bytes.fromhex(job["source"]), bytes.fromhex(job["target"])
    log = _Log(say)
    llama.llama_log_set(log.callback, ctypes.c_void_p(0))
    llama.llama_backend_init()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.pure = job["ftype"], job["n_threads"], job["pure"]
    parameters.allow_requantize, parameters.only_copy = True, job["copy"]
    parameters.max_buf_size = _BUFFER_BYTES
    dropped = _dropped(job, source)
    kept: list[Any] = []  # until the end: what the parameters point to
    for name, found in (
        ("prune_layers", (ctypes.c_int32 * (len(dropped) + 1))(*dropped, -1) if dropped else None),
        ("imatrix", _importance(job["importance"], arrays) if arrays else None),
        ("tt_overrides", _overrides(job["overrides"]) if job["overrides"] else None),
    ):
        if found is not None:
            kept.append(found)
            setattr(parameters, name, ctypes.cast(found, ctypes.POINTER(found._type_)))
    for log.dry in (True, False):  # the first time only to know how large it will be
        parameters.dry_run = log.dry
        failed = llama.llama_model_quantize(source, target, parameters) != 0
        if log.dry or failed:
            _check_room(target, log.size_mib)
        if failed and "iostream" in log.why:  # all that C++ tells of a failed write
            raise FailedPrecondition(
                f"{os.fsdecode(target)}: could not be written to its end; see that there is room, and that "
                "files may be that large"
            )
        if failed:
            raise _Failed(log.why)
    log.say_done(log.n_tensors)


def _dropped(job: Mapping[str, Any], source: bytes) -> list[int]:
    blocks, n_blocks = job["blocks"], job["n_blocks"]
    if not blocks and n_blocks is None:
        return []
    n_layer = _n_layer(source)
    if n_blocks is not None:
        if n_blocks < 1:
            raise InvalidArgument("n_blocks", f"{n_blocks}; the model has {n_layer}, and one is the least")
        return list(range(n_blocks, n_layer))
    if blocks[0] < 0 or blocks[-1] >= n_layer:
        raise InvalidArgument("blocks", f"{blocks}; the model has 0 to {n_layer - 1}")
    if len(blocks) == n_layer:
        raise InvalidArgument("blocks", f"all {n_layer} of them; at least one has to stay")
    return list(blocks)


def _n_layer(path: bytes) -> int:
    parameters = llama.llama_model_default_params()
    parameters.use_extra_bufts = False  # nothing is rearranged, for nothing is computed
    model = llama.llama_model_load_from_file(path, parameters)
    if not model:
        raise _Failed("llama.cpp cannot load it; fetch it again with `edge-reranker model pull`")
    n_layer = int(llama.llama_model_n_layer(model))
    llama.llama_model_free(model)
    return n_layer


def _importance(named: list[tuple[str, int]], arrays: list[FloatArray]) -> Any:
    entries = (llama.llama_model_imatrix_data * (len(named) + 1))()  # one without a name ends it
    for entry, (name, size), array in zip(entries, named, arrays, strict=False):
        entry.name, entry.size = name.encode(), size
        entry.data = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries


def _overrides(wanted: list[tuple[str, int]]) -> Any:
    entries = (llama.llama_model_tensor_override * (len(wanted) + 1))()  # one without a pattern ends it
    for entry, (pattern, type_) in zip(entries, wanted, strict=False):
        entry.pattern, entry.type = pattern.encode(), type_
    return entries


def _check_room(target: bytes, size_mib: float) -> None:
    """Raises FailedPrecondition when the file will be larger than what is free, and what it has."""
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(target))).free + os.path.getsize(target)
    if free < size_mib * 2**20:
        raise FailedPrecondition(
            f"{os.fsdecode(target)}: {size_mib * 1.048576:,.0f} MB are needed and {free / 1e6:,.0f} MB free; "
            "make room, or name another folder"
        )


def _main() -> None:
    job = json.loads(sys.stdin.buffer.readline())
    arrays = [np.frombuffer(sys.stdin.buffer.read(4 * size), "<f4") for _, size in job["importance"]]
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(message: Mapping[str, Any]) -> None:
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()

    try:
        _do(job, arrays, say)
    except InvalidArgument as error:
        say({"argument": [error.field, error.problem]})
    except FailedPrecondition as error:
        say({"precondition": str(error)})
    except _Failed as error:
        say({"failed": str(error)})
    else:
        say({"done": True})


def _end_with_parent() -> None:
    sys.stdin.buffer.read(1)
    os._exit(1)


if __name__ == "__main__":
    _main()
