"""RerankService: validate, ask the core, map."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, TypeAlias

import grpc.aio

from edge_reranker.deadline import Deadline
from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks, convert, convert_why, limits, respond, respond_why
from edge_reranker.server.call import Budget, Call, Lateness, current, since_ms, timed
from edge_reranker.server.core import Core, whose
from edge_reranker.server.workers import Workers
from edge_reranker.turns import Turn, Turns
from edge_reranker.v1 import rerank_service_pb2 as pb
from edge_reranker.v1 import rerank_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RerankServicer(rerank_service_pb2_grpc.RerankServiceServicer):
    """Orders candidates, once or step by step."""

    def __init__(self, core: Core, workers: Workers, budget: Budget) -> None:
        self._core = core
        self._workers = workers
        self._budget = budget
        self._lateness_of: dict[str, Lateness] = {}
        self._turns = Turns()

    async def Rerank(self, request: pb.RerankRequest, context: _Context) -> pb.RerankResponse:
        """One complete order within the deadline."""
        call = current()
        with _cancelling() as cancelled:
            work = partial(self._rerank, call, request, cancelled)
            response, deadline = await self._workers.run(work, app=call.app)
            # Here, not in the thread: on a busy device the way back is what takes long.
            self._lateness(call).ended(deadline, call)
            return response

    async def RerankStream(
        self, request: pb.RerankStreamRequest, context: _Context
    ) -> AsyncIterator[pb.RerankStreamResponse]:
        """A complete order after each tier."""
        call = current()
        with _cancelling() as cancelled:
            work = partial(self._rerank_stream, call, request, cancelled)
            async for answer in self._workers.stream(work, app=call.app):
                yield answer

    async def Explain(self, request: pb.ExplainRequest, context: _Context) -> pb.ExplainResponse:
        """Why a past ranking is as it is; what there is at the call's deadline."""
        call = current()
        with _cancelling() as cancelled:
            return await self._workers.run(lambda: self._explain(call, request, cancelled), app=call.app)

    def _rerank(
        self, call: Call, request: pb.RerankRequest, cancelled: threading.Event
    ) -> tuple[pb.RerankResponse, Deadline]:
        """The answer, and when the core was to be done with it."""
        with self._turn(call, request) as turn:
            query = convert.rerank_query(request)
            queue_ms, deadline = self._queued(call, request, cancelled, turn)
            ranking = self._core.rerank(call.namespace, query, deadline)
            return respond.ranking(timed(ranking, queue_ms), query.top_n), deadline

    def _rerank_stream(
        self, call: Call, request: pb.RerankStreamRequest, cancelled: threading.Event
    ) -> Iterator[pb.RerankStreamResponse]:
        with self._turn(call, request.request) as turn:
            try:
                query = convert.rerank_query(request.request)
            except InvalidArgument as error:
                raise checks.inside("request", error) from None
            queue_ms, deadline = self._queued(call, request.request, cancelled, turn)
            for ranking in self._core.rerank_stream(call.namespace, query, deadline):
                answer = respond.ranking(timed(ranking, queue_ms), query.top_n)
                yield pb.RerankStreamResponse(response=answer)

    def _explain(
        self, call: Call, request: pb.ExplainRequest, cancelled: threading.Event
    ) -> pb.ExplainResponse:
        ranking_id, ids = convert_why.explanation(request)
        namespace = whose(self._core, call, request.namespace)
        due = self._budget.deadline(call, limits.MAX_BUDGET_MS, cancelled)
        # A request that wants an order waits for its turn a thousandth of the time that this can take.
        with Turn(self._turns, due.at_s, call.app) as turn:
            deadline = dataclasses.replace(due, turn=turn)
            return respond_why.explained(self._core.explain(namespace, ranking_id, ids, deadline))

    def _turn(self, call: Call, request: pb.RerankRequest) -> Turn:
        # Python computes in one thread at a time anyway. Many that try at once take it from each other at
        # every pause: 200 switches a request instead of 26, a sixth of the work done.
        due = self._lateness(call).before(self._budget.deadline(call, request.budget_ms))
        return Turn(self._turns, due.at_s, call.app)

    def _queued(
        self, call: Call, request: pb.RerankRequest, cancelled: threading.Event, turn: Turn
    ) -> tuple[float, Deadline]:
        """How long the request waited until it was taken in, and when the core must be done with it."""
        queue_ms = since_ms(call.arrived_s)
        taken_ms = max(0.0, queue_ms - turn.waited_ms)
        due = self._budget.deadline(call, request.budget_ms, cancelled, taken_ms=taken_ms, turn=turn)
        return queue_ms, self._lateness(call).before(due)

    def _lateness(self, call: Call) -> Lateness:
        """The app's own: one that asks for what cannot be done in time must not shorten another's."""
        return self._lateness_of.setdefault(call.app, Lateness())


@contextlib.contextmanager
def _cancelling() -> Iterator[threading.Event]:
    """An event that is set when the call is cut off, so that its thread has no time left."""
    cancelled = threading.Event()
    try:
        yield cancelled
    except BaseException:  # CancelledError and GeneratorExit among them
        cancelled.set()
        raise
