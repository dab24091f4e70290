"""Runs a language model: token ids in, logits and hidden states out."""

from edge_reranker.engine.adapters import Adapted
from edge_reranker.engine.client import WorkerEngine
from edge_reranker.engine.types import (
    STATES,
    Adapter,
    Encoded,
    Engine,
    EngineInfo,
    EngineSpec,
    Mode,
    Prefilled,
    Ranked,
    Role,
    SavedPrefix,
    Scored,
    Stop,
)

__all__ = [
    "STATES",
    "Adapted",
    "Adapter",
    "Encoded",
    "Engine",
    "EngineInfo",
    "EngineSpec",
    "Mode",
    "Prefilled",
    "Ranked",
    "Role",
    "SavedPrefix",
    "Scored",
    "Stop",
    "WorkerEngine",
]
