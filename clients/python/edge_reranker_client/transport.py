"""The channel to the socket: token, deadline, retries, errors."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from edge_reranker_client import discovery, explain
from edge_reranker_client.errors import (
    EdgeRerankerError,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    ServiceUnavailable,
    Unauthenticated,
    from_rpc,
    kind_of,
)

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

_OPTIONS: Final = (
    # A unix socket has no proxy; without this, gRPC asks the environment for one.
    ("grpc.enable_http_proxy", 0),
    # Trying a local socket again costs nothing, so a service that was restarted is found at once; the
    # option with "min" in its name is how long one attempt may take, which on a busy device can be long.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
_PAUSES_S: Final = (0.05, 0.15, 0.3)
# sizeof(sun_path) less the closing NUL.
_MAX_SOCKET_BYTES: Final = 103 if sys.platform == "darwin" else 107
_MAX_TIMEOUT_S: Final = 1e9  # thirty years; gRPC takes ten times more for a moment long past

Call = Callable[..., Any]


class Transport:
    """Makes calls to one service; safe to use from several threads.

    An UNAVAILABLE call is made again, three times at most, when it is safe: when it is idempotent, or when it
    never reached the service. So is an idempotent one that was one too many at once; `Rerank` is not, because
    its caller has an order already and waits for this one.
    """

    def __init__(self, socket: Path, token: str | None, token_file: Path, timeout_s: float) -> None:
        self.socket = socket
        self.timeout_s = _seconds(timeout_s)
        # The token is not shown: it is a secret.
        if token is not None and not _fits_a_header(token):
            raise InvalidArgument("token: is not printable ASCII text; read tokens/app.token again")
        self._given = token
        self._token_file = token_file
        self._token = token
        path = os.fsencode(os.path.abspath(socket))
        if len(path) > _MAX_SOCKET_BYTES:
            raise InvalidArgument(
                f"socket: {socket} has {len(path)} bytes; at most {_MAX_SOCKET_BYTES} are allowed, "
                "choose a shorter path"
            )
        # The target is a URI, so spaces and signs in the path are escaped.
        self._target = f"unix:{urllib.parse.quote(path)}"
        self.channel = grpc.insecure_channel(self._target, options=_OPTIONS)
        self._closed = False

    def close(self) -> None:
        """Ends all calls and the connection."""
        self._closed = True
        self.channel.close()

    def call(self, method: Call, request: Message, *, timeout_s: float | None, idempotent: bool) -> Any:
        """The answer; raises the error that stands for a failed call."""
        until_s = time.monotonic() + (self.timeout_s if timeout_s is None else _seconds(timeout_s))
        for pause_s in (*_PAUSES_S, None):
            try:
                return self._made(method, request, max(0.0, until_s - time.monotonic()))
            except grpc.RpcError as error:
                again = _unavailable(error) and _never_sent(error)
                again |= idempotent and (_unavailable(error) or _one_too_many(error))
                if pause_s is None or not again:
                    raise self._error(error, request) from None
                pause_s *= random.uniform(0.7, 1.0)
                if time.monotonic() + pause_s >= until_s:
                    raise self._error(error, request) from None
                time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def stream(self, method: Call, request: Message, *, timeout_s: float | None) -> Iterator[Any]:
        """The answers as they come, never retried; leaving the loop early cancels the call."""
        limit_s = self.timeout_s if timeout_s is None else _seconds(timeout_s)
        call = self._made(method, request, limit_s)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._error(error, request) from None
        finally:
            call.cancel()

    def send(self, method: Any, requests: Iterable[Message], *, timeout_s: float) -> Any:
        """The answer to many requests, never retried; raises what ``requests`` raises."""
        begun = threading.Event()
        failed: list[BaseException] = []

        def guarded() -> Iterator[Message]:
            # In gRPC's thread, which would tell of an error on stderr. The stream is cancelled, not ended:
            # its end would say that this was all.
            try:
                yield from requests
            except GeneratorExit:  # it was refused before its end, and gRPC wants no more of it
                raise
            except BaseException as error:
                failed.append(error)
                begun.wait()
                call.cancel()

        call = self._made(method.future, guarded(), _seconds(timeout_s))
        begun.set()
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise failed[0] from None
        except grpc.RpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()

    def serving(self, timeout_s: float) -> bool:
        """Whether the standard health service says SERVING."""
        timeout_s = _seconds(timeout_s)
        if self._closed:
            return False
        # A channel of its own: one that has just failed to connect would wait before it tries again, and
        # who asks this often waits for a service to start.
        options = (*_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        with grpc.insecure_channel(self._target, options=options) as channel:
            # One field of one message: not worth a dependency on the health package.
            check: Call = channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                return bool(check(b"", timeout=timeout_s) == b"\x08\x01")
            except grpc.RpcError:
                return False

    def _made(self, method: Call, request: object, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s, metadata=self._metadata())
        except ValueError:  # what gRPC raises for a channel that was closed, also in between
            if not self._closed:
                raise
            raise FailedPrecondition("this client is closed; make another EdgeReranker") from None

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._token is None:
            self._token = self._read_token()
        return (("authorization", f"Bearer {self._token}"),)

    def _read_token(self) -> str:
        try:
            token = self._token_file.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            if not self.socket.exists():
                raise ServiceUnavailable(
                    f"nothing is at {self.socket}: is the service running? start it: `edge-reranker serve`"
                ) from None
            raise Unauthenticated(
                f"there is no token at {self._token_file}; set {discovery.TOKEN_VARIABLE}, or "
                f"{discovery.DATA_DIR_VARIABLE} to the service's data directory"
            ) from None
        except PermissionError:
            raise Unauthenticated(
                f"{self._token_file} belongs to another user; run as the user who started the service"
            ) from None
        except OSError as error:
            raise Unauthenticated(f"{self._token_file} cannot be read: {error.strerror}") from None
        if not _fits_a_header(token):
            raise Unauthenticated(f"{self._token_file} holds no token; delete it and start the service again")
        return token

    def _error(self, error: grpc.RpcError, request: Message | None = None) -> EdgeRerankerError:
        made = from_rpc(error, str(self.socket))
        size = 0 if request is None else request.ByteSize()
        if isinstance(made, Overloaded) and size > MAX_MESSAGE_BYTES:
            made = InvalidArgument(
                f"request: {size:,} bytes are too many, at most {MAX_MESSAGE_BYTES:,} can be sent; "
                "give fewer at a time, or shorter texts"
            )
            made.status = error.code()
        if isinstance(made, Unauthenticated):
            # The service may have made new tokens since: the next call reads the file again.
            self._token = self._given
        return made


def given_path(name: str, given: object) -> Path:
    """The path that an argument names, "~" being the home folder; raises InvalidArgument for what is none."""
    try:
        if given and b"\0" not in os.fsencode(given):  # type: ignore[arg-type]
            return Path(given).expanduser()  # type: ignore[arg-type]
    except (*explain.ODD, RuntimeError):  # the last: nobody is called so
        pass
    raise explain.bad(name, given, "a path")


def _seconds(timeout_s: float) -> float:
    try:
        if 0 <= timeout_s <= _MAX_TIMEOUT_S and not isinstance(timeout_s, bool):
            return timeout_s
    except explain.ODD:
        pass
    raise explain.bad("timeout_s", timeout_s, f"a number of seconds from 0 to {_MAX_TIMEOUT_S:,.0f}")


def _fits_a_header(token: object) -> bool:
    return isinstance(token, str) and token.isascii() and token.isprintable()


def _unavailable(error: grpc.RpcError) -> bool:
    return bool(error.code() == grpc.StatusCode.UNAVAILABLE)


def _one_too_many(error: grpc.RpcError) -> bool:
    return kind_of(error) == Overloaded.__name__  # without a kind, it is a message that is too large


def _never_sent(error: grpc.RpcError) -> bool:
    # gRPC has no field for it, only this text; a text that changed would cost a retry, never repeat a call.
    details: str = error.details() or ""
    return not kind_of(error) and details.startswith("failed to connect")
