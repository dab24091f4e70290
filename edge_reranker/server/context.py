"""ContextService: validate, ask the core, map."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc.aio

from edge_reranker.server import convert, convert_retention, convert_why, respond, respond_why
from edge_reranker.server.call import Call, current
from edge_reranker.server.core import Core, whose
from edge_reranker.server.transfers import Transfers
from edge_reranker.server.workers import Workers
from edge_reranker.v1 import context_service_pb2 as pb
from edge_reranker.v1 import context_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ContextServicer(context_service_pb2_grpc.ContextServiceServicer):
    """Keeps, lists and forgets what the user did, and gives it to take along."""

    def __init__(self, core: Core, workers: Workers, transfers: Transfers) -> None:
        self._core = core
        self._workers = workers
        self._transfers = transfers

    async def RecordEvents(
        self, request: pb.RecordEventsRequest, context: _Context
    ) -> pb.RecordEventsResponse:
        """Stores a batch, all or nothing; answers once it is durable."""
        call = current()
        return await self._workers.run(lambda: self._record(call, request), app=call.app)

    async def ListEvents(self, request: pb.ListEventsRequest, context: _Context) -> pb.ListEventsResponse:
        """One page of events, newest first."""
        call = current()
        return await self._workers.run(lambda: self._list(call, request), app=call.app)

    async def Forget(self, request: pb.ForgetRequest, context: _Context) -> pb.ForgetResponse:
        """Removes events and says what went."""
        call = current()
        return await self._workers.run(lambda: self._forget(call, request), app=call.app)

    async def Export(self, request: pb.ExportRequest, context: _Context) -> AsyncIterator[pb.ExportResponse]:
        """Everything of a namespace that cannot be made again, as JSON lines."""
        async for chunk in self._transfers.export(await self._whose(request.namespace)):
            yield pb.ExportResponse(chunk=chunk)

    async def Import(self, request: AsyncIterator[pb.ImportRequest], context: _Context) -> pb.ImportResponse:
        """Takes an export in, all of it or nothing; answers once it is durable."""
        requests = aiter(request)
        first = await anext(requests, pb.ImportRequest())

        async def chunks() -> AsyncIterator[bytes]:
            yield first.chunk
            async for each in requests:
                yield each.chunk

        recorded = await self._transfers.import_(await self._whose(first.namespace), chunks())
        return respond.imported(recorded)

    async def GetProfile(self, request: pb.GetProfileRequest, context: _Context) -> pb.GetProfileResponse:
        """What the service believes about the user."""
        call = current()
        return await self._workers.run(lambda: self._profile(call, request), app=call.app)

    async def MuteTopic(self, request: pb.MuteTopicRequest, context: _Context) -> pb.MuteTopicResponse:
        """Keeps a topic out of the rankings."""
        call = current()
        return await self._workers.run(lambda: self._mute(call, request), app=call.app)

    async def UnmuteTopic(self, request: pb.UnmuteTopicRequest, context: _Context) -> pb.UnmuteTopicResponse:
        """Lets a muted topic back in."""
        call = current()
        return await self._workers.run(lambda: self._unmute(call, request), app=call.app)

    async def GetRetention(
        self, request: pb.GetRetentionRequest, context: _Context
    ) -> pb.GetRetentionResponse:
        """How long events are kept."""
        call = current()
        return await self._workers.run(lambda: self._retention(call, request), app=call.app)

    async def SetRetention(
        self, request: pb.SetRetentionRequest, context: _Context
    ) -> pb.SetRetentionResponse:
        """Changes how long events are kept."""
        call = current()
        return await self._workers.run(lambda: self._set_retention(call, request), app=call.app)

    async def _whose(self, namespace: str) -> str:
        """Whose part of the store an owner's call is about. Raises InvalidArgument and NotFound."""
        call = current()
        return await self._workers.run(lambda: whose(self._core, call, namespace), app=call.app)

    def _record(self, call: Call, request: pb.RecordEventsRequest) -> pb.RecordEventsResponse:
        events = convert.events(request, time.time())
        return respond.recorded(self._core.record(call.namespace, events))

    def _list(self, call: Call, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        limit, page_token = convert.page(request)
        return respond.events(*self._core.events(call.namespace, limit, page_token))

    def _forget(self, call: Call, request: pb.ForgetRequest) -> pb.ForgetResponse:
        namespace, selector = convert.forget_selector(request)
        receipt = self._core.forget(whose(self._core, call, namespace), selector, dry_run=request.dry_run)
        return respond.forgotten(receipt)

    def _profile(self, call: Call, request: pb.GetProfileRequest) -> pb.GetProfileResponse:
        return respond_why.profile(self._core.profile(whose(self._core, call, request.namespace)))

    def _mute(self, call: Call, request: pb.MuteTopicRequest) -> pb.MuteTopicResponse:
        topic, namespace = convert_why.topic(request.topic), whose(self._core, call, request.namespace)
        return pb.MuteTopicResponse(muted_topics=self._core.mute(namespace, topic))

    def _unmute(self, call: Call, request: pb.UnmuteTopicRequest) -> pb.UnmuteTopicResponse:
        topic, namespace = convert_why.topic(request.topic), whose(self._core, call, request.namespace)
        return pb.UnmuteTopicResponse(muted_topics=self._core.unmute(namespace, topic))

    def _retention(self, call: Call, request: pb.GetRetentionRequest) -> pb.GetRetentionResponse:
        namespace = whose(self._core, call, request.namespace)
        return respond.retention_status(self._core.retention(namespace))

    def _set_retention(self, call: Call, request: pb.SetRetentionRequest) -> pb.SetRetentionResponse:
        namespace = whose(self._core, call, request.namespace)
        rule = convert_retention.rule(request)
        self._core.set_retention(namespace, rule)
        return pb.SetRetentionResponse(retention=respond.retention(rule))
