"""What requests are answered with: the pack's settings, the tiers that can run, their engines."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_reranker.engine import Engine
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.profile import Taste
from edge_reranker.scoring.background import BackgroundEncoder
from edge_reranker.scoring.epochs import Epochs
from edge_reranker.scoring.hot import HotPrefix
from edge_reranker.scoring.public import PublicVectors
from edge_reranker.scoring.rank import RankScorer
from edge_reranker.scoring.tier1 import VectorScorer
from edge_reranker.scoring.tier2 import CrossScorer
from edge_reranker.scoring.vectors import VectorCache
from edge_reranker.types import Model


@dataclass(frozen=True, slots=True)
class Tiers:
    """What there is above tier 0: the pack's settings and the tiers that can run.

    Without weights there is no usable pack, and the server's order stands.
    """

    pack_id: str = ""
    model: str = ""
    taste: Taste = field(default_factory=Taste)
    named: tuple[str, ...] = ()
    weights: Weights | None = None
    without_model: Weights | None = None
    tier1: VectorScorer | None = None
    tier2: CrossScorer | RankScorer | None = None
    hot: HotPrefix | None = None
    vectors: VectorCache | None = None
    public: PublicVectors | None = None
    background: BackgroundEncoder | None = None
    epochs: Epochs = field(default_factory=Epochs)


@dataclass(frozen=True, slots=True)
class Serving:
    """What requests are answered with until it is swapped: the tiers, and the engines behind them.

    ``models`` are the model files on this device, each with its engine if it is in use.
    """

    tiers: Tiers
    models: tuple[tuple[Model, Engine | None], ...] = ()

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines in use."""
        return tuple(engine for _, engine in self.models if engine is not None)

    def close(self) -> None:
        """Stops the engines. Idempotent."""
        for engine in self.engines:
            engine.close()
