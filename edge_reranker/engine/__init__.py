"""Runs a language model: token ids in, logits and hidden states out."""

from edge_reranker.engine.adapters import Adapted
from edge_reranker.engine.client import WorkerEngine
from edge_reranker.engine.types import Adapter, Encoded, Engine, EngineInfo, EngineSpec, Role, Scored, Stop

__all__ = [
    "Adapted",
    "Adapter",
    "Encoded",
    "Engine",
    "EngineInfo",
    "EngineSpec",
    "Role",
    "Scored",
    "Stop",
    "WorkerEngine",
]
