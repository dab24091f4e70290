"""The same evaluation gives the same report, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import numpy as np

from edge_reranker.evaluation import run
from edge_reranker.evaluation.log import Log
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder, Head, Manifest, Prior, TasteSettings
from tests.planted import N_EMBD, world

WORDS = ("Action", "Comedy", "Drama", "Horror", "Musical", "Mystery", "Thriller", "War", "Western")


def main() -> None:
    """Prints the report of a world whose items have many tags, all of which have a say."""
    data, hidden = world(n_users=40)
    rng = np.random.default_rng(0)
    items = tuple(item._replace(tags=tuple(rng.permutation(WORDS)[:5].tolist())) for item in data.items)
    own = Prior(("server_rank", "tags"), (-0.9, 5.0), ((1.0, 0.0), (0.0, 1.0)))
    manifest = Manifest(
        "plain", "1", Encoder("made-up", 1, N_EMBD), TasteSettings({"LIKE": 1.0}, 0.01, 50, 7.0), own, own
    )
    identity, zeros = np.eye(N_EMBD, dtype=np.float16), np.zeros(N_EMBD, np.float16)
    pack = packs.make(manifest, Head(zeros, zeros + 1, identity, zeros, identity))
    report = run.evaluate(Log.of(items, data.interactions), pack, hidden)
    print(msgspec.json.encode(report.as_dict()).decode())


def test_another_process_finds_the_same_figures_to_the_last_bit() -> None:
    """Words hash otherwise in every process; no sum may follow the order of a set of them."""
    reports = {
        subprocess.run(
            [sys.executable, "-m", "tests.evaluation.test_repeatable"],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(reports) == 1


if __name__ == "__main__":
    main()
