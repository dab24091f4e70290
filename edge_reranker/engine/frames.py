"""What goes through the pipes between the service and the worker: length, then one msgpack message.

Parsed against fixed types, never unpickled: a worker that a model file took over can send nothing else.
"""

from __future__ import annotations

import os
import select
import struct

import msgspec

from edge_reranker.deadline import Deadline
from edge_reranker.engine.types import Role
from edge_reranker.types import Pooling

_LENGTH = struct.Struct("<I")
# Far above any honest message (1,000 rows of 4,096 floats), far below what would hurt.
MAX_FRAME_BYTES = 64 * 1024 * 1024


class Open(msgspec.Struct, tag=True):
    """First message to a worker: what to load."""

    path: str
    role: Role
    n_threads: int
    n_sequences: int
    n_ctx_sequence: int
    memory_limit_bytes: int
    mode: str
    nice: int
    pooling: Pooling = "mean"
    normalise: bool = False


class Tokenize(msgspec.Struct, tag=True):
    """Texts, each a list of (text, structure) pieces."""

    id: int
    texts: list[list[tuple[str, bool]]]


class Encode(msgspec.Struct, tag=True):
    """Token ids of texts; ``budget_ms`` below 0 means no limit, ``background`` that nobody waits."""

    id: int
    sequences: list[list[int]]
    budget_ms: float
    background: bool
    adapter: tuple[str, float] | None = None  # path and scale


class Score(msgspec.Struct, tag=True):
    """A shared prefix, suffixes, and the tokens whose logits are wanted."""

    id: int
    prefix: list[int]
    suffixes: list[list[int]]
    targets: list[int]
    budget_ms: float
    adapter: tuple[str, float] | None = None


class LoadAdapter(msgspec.Struct, tag=True):
    """Load the adapter at ``path``; requests name the one they want."""

    id: int
    path: str


class Prefill(msgspec.Struct, tag=True):
    """A prefix that nobody waits for yet: a slice of it is decoded."""

    id: int
    prefix: list[int]
    adapter: tuple[str, float] | None = None


class Save(msgspec.Struct, tag=True):
    """Asks for the prefix as decoded."""

    id: int


class Restore(msgspec.Struct, tag=True):
    """A prefix as decoded before."""

    id: int
    prefix: list[int]
    state: bytes
    adapter: tuple[str, float] | None = None


class Rank(msgspec.Struct, tag=True):
    """A query and documents for a rank model, without its separators."""

    id: int
    query: list[int]
    documents: list[list[int]]
    budget_ms: float


class Cancel(msgspec.Struct, tag=True):
    """Stop working on request ``id``, at once."""

    id: int


class Opened(msgspec.Struct, tag=True):
    """The model is loaded."""

    description: str
    n_embd: int
    n_vocab: int
    n_layer: int
    n_ctx_sequence: int
    system: str


class Tokens(msgspec.Struct, tag=True):
    """Token ids of each text."""

    id: int
    ids: list[list[int]]


class Rows(msgspec.Struct, tag=True):
    """Some result rows of request ``id``: little-endian float32, one row after another."""

    id: int
    indices: list[int]
    data: bytes


class Done(msgspec.Struct, tag=True):
    """Request ``id`` is over. ``stop`` says why; ``prefix_tokens`` of a prefix were decoded for it."""

    id: int
    stop: str
    prefix_tokens: int = 0


class State(msgspec.Struct, tag=True):
    """The prefix as decoded; without ids there is none."""

    id: int
    prefix: list[int]
    state: bytes


class Failed(msgspec.Struct, tag=True):
    """Request ``id`` (0: loading) cannot be done. The message holds no content."""

    id: int
    message: str


class Refused(msgspec.Struct, tag=True):
    """Request ``id`` names a file that is not what it should be."""

    id: int
    message: str


Question = Tokenize | Encode | Score | Prefill | Save | Restore | Rank | LoadAdapter
Request = Open | Question | Cancel
Response = Opened | Tokens | Rows | Done | State | Failed | Refused

_encoder = msgspec.msgpack.Encoder()
request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
response_decoder: msgspec.msgpack.Decoder[Response] = msgspec.msgpack.Decoder(Response)


def write(fd: int, message: Request | Response) -> None:
    """Writes one message. Raises OSError when the other side is gone."""
    body = _encoder.encode(message)
    data = memoryview(_LENGTH.pack(len(body)) + body)
    while data:
        data = data[os.write(fd, data) :]


def write_by(fd: int, message: Request, deadline: Deadline) -> bool:
    """Writes one message to a descriptor that does not block; False when none of it went out in time.

    Raises TimeoutError when time ran out inside the message, which the other side cannot recover from, and
    OSError when it is gone.
    """
    body = _encoder.encode(message)
    data = memoryview(_LENGTH.pack(len(body)) + body)
    size = len(data)
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            if not select.select([], [fd], [], deadline.remaining_s())[1]:
                if len(data) == size:
                    return False
                raise TimeoutError("the worker stopped reading inside a message") from None
    return True


def read(fd: int) -> bytes | None:
    """The next message's bytes; None when the other side has closed. Raises ValueError on nonsense."""
    head = _read_exactly(fd, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return _read_exactly(fd, length)


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
