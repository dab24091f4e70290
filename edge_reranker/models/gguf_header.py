"""Reads a GGUF header with suspicion, before native code does: every count and size must fit the file."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_reranker.errors import ModelInvalid

_VERSIONS = (2, 3)
_MOST_TENSORS = 1 << 16
_MOST_PAIRS = 1 << 16
_MOST_STRINGS = 1 << 22  # in all arrays together: vocabularies and merges have a tenth
_MOST_NAME_BYTES = 256
_MOST_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32

# Value types of the metadata: bytes of those of a fixed size, then the two others.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9

# Tensor types of ggml: elements and bytes of a block.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


class _Bad(Exception):
    """What is wrong with the file, in words."""


@dataclass(slots=True)
class _Bytes:
    """The file, of which no more can be asked for than there is."""

    file: BinaryIO
    left: int
    strings_left: int = _MOST_STRINGS

    def take(self, size: int) -> bytes:
        self._spend(size)
        taken = self.file.read(size)
        if len(taken) != size:
            raise _Bad("it shrank while it was read")
        return taken

    def skip(self, size: int) -> None:
        self._spend(size)
        self.file.seek(size, os.SEEK_CUR)

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def uint64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def name(self) -> bytes:
        """A string that may not be long: a key, or a tensor's name."""
        size = self.uint64()
        if not 0 < size <= _MOST_NAME_BYTES:
            raise _Bad(f"a name of {size} bytes; 1 to {_MOST_NAME_BYTES} are allowed")
        return self.take(size)

    def _spend(self, size: int) -> None:
        if size > self.left:
            raise _Bad(f"{size} bytes are announced where {self.left} are left")
        self.left -= size


def check_header(path: Path) -> None:
    """Refuses a file whose header is none of a GGUF, or promises what the file does not hold.

    Looks at all of the header and at nothing else; takes memory for one name at a time. Raises ModelInvalid.
    """
    try:
        with path.open("rb") as file:
            _check(_Bytes(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise ModelInvalid(f"{path}: {error.strerror}") from error
    except _Bad as error:
        raise ModelInvalid(f"{path}: not a sound GGUF file: {error}; fetch it again") from error


def _check(data: _Bytes) -> None:
    size = data.left
    if data.left < 4 or data.take(4) != b"GGUF":
        raise _Bad("it does not begin with GGUF")
    version = data.uint32()
    if version not in _VERSIONS:
        raise _Bad(f"version {version}; {_VERSIONS} are known")
    n_tensors, n_pairs = data.uint64(), data.uint64()
    if not 0 < n_tensors <= _MOST_TENSORS or not 0 < n_pairs <= _MOST_PAIRS:
        raise _Bad(f"{n_tensors} tensors and {n_pairs} metadata pairs")
    alignment = _metadata(data, n_pairs)
    end = _tensors(data, n_tensors, alignment)
    start = _padded(size - data.left, alignment)
    if start + end > size:
        raise _Bad(f"its tensors end at byte {start + end} of {size}")


def _metadata(data: _Bytes, n_pairs: int) -> int:
    """Walks over the metadata; the alignment of the tensors, in bytes."""
    keys = set()
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(n_pairs):
        key = data.name()
        if key in keys:
            raise _Bad(f"{_shown(key)} is there twice")
        keys.add(key)
        kind = data.uint32()
        if key == b"general.alignment":
            alignment = data.uint32() if kind == _UINT32 else 0
            if not 1 <= alignment <= 1 << 16 or alignment & (alignment - 1):
                raise _Bad("general.alignment is no power of two up to 65,536")
        elif key == b"general.architecture" and kind != _STRING:
            raise _Bad("general.architecture is no text")
        else:
            _value(data, kind)
    if b"general.architecture" not in keys:
        raise _Bad("general.architecture is missing")
    return alignment


def _value(data: _Bytes, kind: int) -> None:
    if kind == _STRING:
        data.skip(data.uint64())
    elif kind == _ARRAY:
        of, count = data.uint32(), data.uint64()
        if of in _SIZES:
            data.skip(count * _SIZES[of])
        elif of == _STRING:
            if count > data.strings_left:
                raise _Bad(f"an array of {count} texts")
            data.strings_left -= count
            for _ in range(count):
                data.skip(data.uint64())
        else:
            raise _Bad(f"an array of type {of}")
    elif kind in _SIZES:
        data.skip(_SIZES[kind])
    else:
        raise _Bad(f"a value of type {kind}")


def _tensors(data: _Bytes, n_tensors: int, alignment: int) -> int:
    """Walks over the tensors' descriptions; where the last one ends, in bytes after the header.

    They must lie one after another, as llama.cpp wants them too: no two share a byte.
    """
    names = set()
    end = 0
    for _ in range(n_tensors):
        name = data.name()
        if name in names:
            raise _Bad(f"tensor {_shown(name)} is there twice")
        names.add(name)
        n_dimensions = data.uint32()
        if not 1 <= n_dimensions <= _MOST_DIMENSIONS:
            raise _Bad(f"tensor {_shown(name)} has {n_dimensions} dimensions")
        shape = struct.unpack(f"<{n_dimensions}Q", data.take(8 * n_dimensions))
        kind, offset = data.uint32(), data.uint64()
        if kind not in BLOCKS:
            raise _Bad(f"tensor {_shown(name)} has the unknown type {kind}")
        n_elements, n_bytes = BLOCKS[kind]
        if not all(shape) or shape[0] % n_elements:
            raise _Bad(f"tensor {_shown(name)} of type {kind} cannot have the shape {shape}")
        if offset != _padded(end, alignment):
            raise _Bad(f"tensor {_shown(name)} begins at byte {offset}, not {_padded(end, alignment)}")
        end = offset + math.prod(shape) // n_elements * n_bytes
    return end


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _shown(name: bytes) -> str:
    return ascii(name.decode("utf-8", "replace"))
