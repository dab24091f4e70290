"""The one interceptor: who calls, when it came, and what a caller reads when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from edge_reranker.errors import EdgeRerankerError, InvalidArgument, Stopping
from edge_reranker.server.access import Access, Scope
from edge_reranker.server.call import Call, enter
from edge_reranker.server.status import KIND_KEY, status_of

_LOG = logging.getLogger(__name__)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class _Received(NamedTuple):
    """A request as it came: its bytes, and when (monotonic seconds)."""

    raw: bytes
    at_s: float


class Gate(grpc.aio.ServerInterceptor):
    """Authenticates every call, then parses it, and turns every exception into its fixed status.

    Requests stay bytes until the token is known, so that a stranger's message is never parsed.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._wrapped: dict[str, _Handler] = {}
        self._active = 0
        self._stopping = False
        self._idle = asyncio.Event()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of the method, wrapped once; None for a method that is not ours."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    async def drain(self, grace_s: float) -> None:
        """Refuses new calls and waits for those in flight, ``grace_s`` seconds at most.

        gRPC's own grace also waits for idle clients to hang up, which they need not do for a long time.
        """
        self._stopping = True
        if self._active:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)

    @contextlib.contextmanager
    def _in_flight(self, method: str) -> Iterator[None]:
        if method.startswith(_HEALTH):
            yield  # it tells that the service stops; and a watch has no end to wait for
            return
        if self._stopping:
            raise Stopping("the service is stopping; try again once it runs")
        self._active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        parse = handler.request_deserializer or bytes
        behaviour: Any = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )

        async def request_of(received: Any, context: _Context) -> Any:
            if not handler.request_streaming:
                self._enter(method, received.at_s, context)
                return _parsed(parse, received.raw)
            # The deadline of a streamed request counts from its start, before its first message.
            self._enter(method, time.monotonic(), context)
            return _each_parsed(parse, received)

        async def one_answer(received: Any, context: _Context) -> Any:
            try:
                with self._in_flight(method):
                    return await behaviour(await request_of(received, context), context)
            except Exception as error:
                await _refuse(method, context, error)

        async def many_answers(received: Any, context: _Context) -> None:
            try:
                with self._in_flight(method):
                    answers = behaviour(await request_of(received, context), context)
                    if not hasattr(answers, "__aiter__"):
                        await answers  # a servicer that writes to the context itself, as the health one does
                        return
                    async for answer in answers:
                        await context.write(answer)
            except Exception as error:
                await _refuse(method, context, error)

        make: Any = _MAKERS[bool(handler.request_streaming), bool(handler.response_streaming)]
        made: _Handler = make(
            many_answers if handler.response_streaming else one_answer,
            request_deserializer=_receive,
            response_serializer=handler.response_serializer,
        )
        return made

    def _enter(self, method: str, arrived_s: float, context: _Context) -> None:
        metadata: Any = context.invocation_metadata() or ()
        identity = self._access.admit(method, metadata)
        left_s = context.time_remaining()
        due_s = math.inf if left_s is None else time.monotonic() + left_s
        app = "owner" if identity.scope is Scope.OWNER else identity.namespace  # no namespace is called so
        enter(Call(identity.namespace, arrived_s, due_s, app))


_HEALTH = "/grpc.health.v1.Health/"

_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _receive(raw: bytes) -> _Received:
    return _Received(raw, time.monotonic())


def _parsed(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return parse(raw)
    except (DecodeError, UnicodeDecodeError):
        # The parser's own text quotes the message, so it goes no further.
        raise InvalidArgument(
            "request", "is not a message of this rpc; every string in it must be valid UTF-8"
        ) from None


async def _each_parsed(
    parse: Callable[[bytes], Any], received: AsyncIterator[_Received]
) -> AsyncIterator[Any]:
    async for each in received:
        yield _parsed(parse, each.raw)


async def _refuse(method: str, context: _Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code, message, kind = status_of(error)
    if not isinstance(error, EdgeRerankerError):
        # Its text may hold what a user wrote or did, so only its class is told, and only here.
        _LOG.error("%s failed: %s", method, type(error).__name__)
    await context.abort(code, message, trailing_metadata=((KIND_KEY, kind),))
