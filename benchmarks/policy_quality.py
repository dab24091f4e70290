"""What the list policy costs and brings on MovieLens' later users; a table on standard error."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np

from benchmarks.common import cache_dir, report
from edge_reranker.cli import hidden, packs
from edge_reranker.config import Config
from edge_reranker.evaluation import lists, movielens, policies, protocol, run
from edge_reranker.models import load_pack
from edge_reranker.ranking import fusion
from edge_reranker.types import DiversityMethod, Policy

_MMR = {f"mmr {strength}": Policy(diversity=strength) for strength in (0.2, 0.4, 0.6)}
_DPP = {
    f"dpp {strength}": Policy(diversity=strength, diversity_method=DiversityMethod.DPP)
    for strength in (0.2, 0.4, 0.6)
}
_CALIBRATED = {
    f"calibration {strength}": Policy(calibration=strength) for strength in (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
}
_BOTH = {"mmr 0.4, calibration 0.5": Policy(diversity=0.4, calibration=0.5)}
_EXPLORED = {f"exploration {strength}": Policy(exploration=strength) for strength in (0.25, 0.5, 1.0)}


def main() -> bool:
    """A popularity server's top 100, reranked by the pack that ships; first ten places."""
    config = Config(cache_dir(), cache_dir() / "s", cache_dir(), "minilm")
    data = movielens.load(cache_dir() / "data" / "movielens-100k")
    pack = load_pack(packs.pack_folder(config))
    split = protocol.split(data)
    states = hidden.kept_hidden_states(config, pack.manifest.encoder, data.items)
    lister = run.lister(data, split, pack, states)
    listed = [lister.listed(cut) for cut in split.test]
    weights = fusion.Weights.of(pack.manifest.fusion)
    chosen = _MMR | _DPP | _CALIBRATED | _BOTH | _EXPLORED
    found = policies.compare(listed, lister, weights, chosen)
    for name, each in found.items():
        cells = [
            f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]" if interval else "-"
            for interval in (
                each.ndcg10,
                each.ndcg10_change,
                each.distance,
                each.content_distance,
                each.divergence,
                each.from_taste,
            )
        ]
        print(f"| {name} | {' | '.join(cells)} | {each.users_worse} |", file=sys.stderr)
    by_strength = [found["none"], *(found[name] for name in _CALIBRATED)]
    rises = sum(
        int((after.from_taste_of > before.from_taste_of + 1e-9).sum())
        for before, after in pairwise(by_strength)
    )
    figures: dict[str, object] = {"n_lists": len(listed), "n_cases": len(lists.users(listed))}
    for name, each in found.items():
        for field in ("ndcg10", "ndcg10_change", "distance", "divergence", "from_taste"):
            measured = getattr(each, field)
            figures[f"{name}: {field}"] = measured.mean if measured else None
    figures["lists_whose_divergence_rose_with_calibration"] = rises
    figures["lists"] = int(np.isfinite(found["none"].from_taste_of).sum())
    return report("policy_quality", figures, {"the divergence never rises with calibration": rises == 0})
