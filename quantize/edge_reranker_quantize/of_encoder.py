"""An encoder's variant: its vectors, and the lists that a pack makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Stop, WorkerEngine
from edge_reranker.errors import EngineDied
from edge_reranker.evaluation import lists, protocol, run
from edge_reranker.evaluation.log import Log
from edge_reranker.models.pack import Encoder, Pack
from edge_reranker.prompt import item_pieces
from edge_reranker.ranking import fusion
from edge_reranker.types import Item
from edge_reranker_quantize.agreement import Float, Rankings

_LOAD_MS = 600_000.0


def states(path: Path, encoder: Encoder, items: Sequence[Item], n_threads: int) -> Float:
    """Hidden states of all items, pooled as the service pools them: [n_items, n_embd]. Raises EngineDied."""
    spec = EngineSpec(path, "encoder", n_threads, pooling=encoder.pooling, normalise=encoder.normalise)
    engine = WorkerEngine(spec)
    try:
        if not engine.wait_ready(Deadline.after_ms(_LOAD_MS)):
            raise EngineDied(engine.problem or f"{path} does not load")
        ids = engine.tokenize([item_pieces(item) for item in items], Deadline())
        room = engine.info.n_ctx_sequence if engine.info else 0
        encoded = engine.encode([each[:room] for each in ids], Deadline())
        if encoded.stop != Stop.DONE:
            raise EngineDied(engine.problem or "the model stopped while it was measured; run it again")
        return encoded.vectors
    finally:
        engine.close()


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of later users as a pack fuses them, from whatever states its items have."""

    data: Log
    pack: Pack

    def rankings(self, hidden: Float) -> Rankings:
        """Of a popularity server's first 100, every cut of every later user."""
        parted = protocol.split(self.data)
        make = run.lister(self.data, parted, self.pack, hidden)
        weights = fusion.Weights.of(self.pack.manifest.fusion)
        listed = [make.listed(cut) for cut in parted.test]
        scores = [fusion.fuse(each.matrix, lists.NAMES, weights) for each in listed]
        flat = iter(lists.places(listed, weights).tolist())
        return Rankings(
            [each.cut.user_id for each in listed],
            scores,
            [[next(flat) for _ in each.targets] for each in listed],
        )
