"""Files under a passphrase: what goes in comes out, and nothing else does."""

from __future__ import annotations

import base64
import io
import tracemalloc
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.errors import InvalidArgument
from edge_reranker.store import passphrase as module
from edge_reranker.store.passphrase import decrypt, encrypt

CHUNK = 64 * 1024
TAG = 16
# Made by the Rust implementation of age (through pyrage 1.4.0), from b"hello" and "correct horse".
FOREIGN = (
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBRd2NvY1Arc29La0FieGVnK1hmbVV3IDE4CmJiWWFwSFJDdkNGdmd4"
    "Q1RKdno4N3pDQ3hNWGRiTThNVEs2TzZ2YlZoSDAKLS0tIHRrWVFWUlRFMU4raHFGUk0yT0RBalFqaFUrS0hqWm5pMzhIcGdT"
    "UXhPM2MKBb60xEH2K/xgdoFiFqkWzZLCPGxkiCZWwwb6jYigyKD6uxVfTQ=="
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work factor is for those who guess, not for tests."""
    monkeypatch.setattr(module, "_LOG_N", 4)


def locked(plain: bytes, passphrase: str = "words") -> bytes:
    target = io.BytesIO()
    encrypt(io.BytesIO(plain), target, passphrase)
    return target.getvalue()


def unlocked(data: bytes, passphrase: str = "words") -> bytes:
    target = io.BytesIO()
    decrypt(io.BytesIO(data), target, passphrase)
    return target.getvalue()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_goes_in_comes_out(size: int) -> None:
    plain = bytes(n % 251 for n in range(size))
    data = locked(plain)
    assert unlocked(data) == plain
    # Of fewer bytes, chance alone puts them somewhere.
    assert size < CHUNK - 1 or plain[:64] not in data


@given(st.binary(max_size=300), st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
@settings(deadline=None, max_examples=50)
def test_any_content_and_any_passphrase(plain: bytes, passphrase: str) -> None:
    data = locked(plain, passphrase)
    assert unlocked(data, passphrase) == plain
    with pytest.raises(InvalidArgument, match="passphrase: does not open"):
        unlocked(data, passphrase + "?")


def test_two_files_of_one_content_have_nothing_in_common() -> None:
    one, other = locked(b"x" * 1000), locked(b"x" * 1000)
    assert one[-1000:] != other[-1000:]
    assert one.splitlines()[1] != other.splitlines()[1]


def test_a_file_of_the_age_tool_is_read() -> None:
    assert unlocked(base64.b64decode(FOREIGN), "correct horse") == b"hello"


def test_every_flipped_bit_is_noticed() -> None:
    data = locked(b"some content")
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(InvalidArgument):
            unlocked(bytes(flipped))


def test_chunks_can_be_neither_cut_off_nor_moved_nor_added() -> None:
    data = locked(b"a" * CHUNK + b"b" * CHUNK + b"c")
    whole = CHUNK + TAG
    end = len(data) - TAG - 1
    first, second = data[end - 2 * whole : end - whole], data[end - whole : end]
    head, last = data[: end - 2 * whole], data[end:]
    assert unlocked(head + first + second + last)[-1:] == b"c"
    for odd in (head + first, head + first + second, head + second + first + last, head + first + last, head):
        with pytest.raises(InvalidArgument, match="file: is damaged or cut off"):
            unlocked(odd)
    with pytest.raises(InvalidArgument, match="file: is damaged or cut off"):
        unlocked(data + first)


@pytest.mark.parametrize("data", [b"", b"{}\n" * 9, b"age-encryption.org/v1\n" * 9, b"\0" * 9999])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="file: is not a file under a passphrase"):
        unlocked(data)


def test_a_file_cannot_ask_for_all_memory() -> None:
    hostile = locked(b"").replace(b" 4\n", b" 31\n", 1)
    with pytest.raises(InvalidArgument, match="work factor of 31; at most 20"):
        unlocked(hostile)


def test_no_passphrase_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="passphrase: is empty"):
        encrypt(io.BytesIO(b"x"), io.BytesIO(), "")


class _Zeros(io.RawIOBase):
    """A long source that gives little at a time, as a pipe does."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        given = min(self.left, size, 10_000)
        self.left -= given
        return bytes(given)


class _Nowhere(io.RawIOBase):
    size = 0

    def write(self, data: object) -> int:
        self.size += len(bytes(data))  # type: ignore[call-overload]
        return 0


def test_memory_does_not_grow_with_the_content() -> None:
    def peak(size: int) -> int:
        source: BinaryIO = _Zeros(size)  # type: ignore[assignment]
        target = _Nowhere()
        tracemalloc.start()
        encrypt(source, target, "words")  # type: ignore[arg-type]
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert target.size > size
        return found

    encrypt(io.BytesIO(), io.BytesIO(), "words")  # loads the library
    assert peak(20_000_000) < 2 * peak(500_000)
