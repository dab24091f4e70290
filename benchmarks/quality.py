"""Does the order help users nobody has learned from? The same as `edge-reranker evaluate`."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.common import cache_dir, report


def main() -> bool:
    """NDCG@10 of a popularity server's top 100, all unseen later users."""
    command = [
        sys.executable,
        "-m",
        "edge_reranker.cli",
        "evaluate",
        "--json",
        "--cache-dir",
        str(cache_dir()),
    ]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    orders, against = found["orders"], found["against_server"]
    ours, other = against["ours"]["ndcg10"], against["placebo_other_history"]["ndcg10"]
    return report(
        "quality",
        {
            "n_cases": found["n_cases"],
            "server_ndcg10": orders["server"]["ndcg10"]["mean"],
            "without_model_ndcg10": orders["without_model"]["ndcg10"]["mean"],
            "ours_ndcg10": orders["ours"]["ndcg10"]["mean"],
            "gain": ours["mean"],
            "gain_low": ours["low"],
            "gain_high": ours["high"],
            "ratio": found["ratio"],
            "other_history_gain": other["mean"],
            "other_history_gain_low": other["low"],
            "other_history_gain_high": other["high"],
        },
        {
            "ratio >= 1.45": found["ratio"] >= 1.45,
            "no history is exactly the server's order": found["no_history_is_server_order"],
            "another user's history gains nothing": other["low"] <= 0,
        },
    )
