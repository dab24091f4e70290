"""ModelService: validate, ask the core, map."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc.aio

from edge_reranker.errors import InvalidArgument, NotFound
from edge_reranker.server import checks, limits, respond
from edge_reranker.server.call import Budget, Call, current
from edge_reranker.server.core import Core
from edge_reranker.server.workers import Workers
from edge_reranker.v1 import model_service_pb2 as pb
from edge_reranker.v1 import model_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Tells about the models on this device, and swaps them."""

    def __init__(self, core: Core, workers: Workers, budget: Budget) -> None:
        self._core = core
        self._workers = workers
        self._budget = budget

    async def ListModels(self, request: pb.ListModelsRequest, context: _Context) -> pb.ListModelsResponse:
        """All models on this device, and the pack in use."""
        return await self._workers.run(self._list)

    async def GetModel(self, request: pb.GetModelRequest, context: _Context) -> pb.GetModelResponse:
        """One model by name; NOT_FOUND when it is not on this device."""
        return await self._workers.run(lambda: self._get(request))

    async def LoadModel(self, request: pb.LoadModelRequest, context: _Context) -> pb.LoadModelResponse:
        """Swaps the model; its loading and self-test end within the call's deadline, a minute at most."""
        call = current()
        return await self._workers.run(lambda: self._load(call, request))

    async def Warmup(self, request: pb.WarmupRequest, context: _Context) -> pb.WarmupResponse:
        """Makes ready within the call's deadline, a minute at most."""
        call = current()
        return await self._workers.run(lambda: self._warmup(call))

    def _list(self) -> pb.ListModelsResponse:
        models = [respond.model(each) for each in self._core.models()]
        return pb.ListModelsResponse(models=models, pack=self._core.pack_id)

    def _get(self, request: pb.GetModelRequest) -> pb.GetModelResponse:
        for each in self._core.models():
            if each.name == request.name:
                return pb.GetModelResponse(model=respond.model(each))
        raise NotFound(
            f'name: "{checks.echo(request.name)}" is not a model on this device; ListModels names them'
        )

    def _load(self, call: Call, request: pb.LoadModelRequest) -> pb.LoadModelResponse:
        if not request.name:
            raise InvalidArgument("name", "is empty; ListModels names the models on this device")
        deadline = self._budget.deadline(call, limits.MAX_BUDGET_MS)
        return pb.LoadModelResponse(model=respond.model(self._core.load_model(request.name, deadline)))

    def _warmup(self, call: Call) -> pb.WarmupResponse:
        return pb.WarmupResponse(ready=self._core.warmup(self._budget.deadline(call, limits.MAX_BUDGET_MS)))
