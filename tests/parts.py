"""Real store, real pipeline, a small made-up pack and the fake engine, for tests of what is above it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.models.pack import (
    Encoder,
    Head,
    Manifest,
    Pack,
    Prior,
    ScorerSettings,
    TasteSettings,
    make,
)
from edge_reranker.pipeline import Pipeline
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Event, EventType, Item

N_EMBD = 16
N_DIMS = 8


def prior(**mean: float) -> Prior:
    names = tuple(mean)
    identity = tuple(tuple(float(row == column) for column in names) for row in names)
    return Prior(names, tuple(mean.values()), identity)


def small_pack(*, scorer_weight: float = 0.0, n_learned: int = N_DIMS) -> Pack:
    """A head of random maps over the fake engine's vectors, and a fusion that listens to all tiers.

    What is not learned of an item's numbers is its content part.
    A weight of -1 on the server's rank undoes the server prior: what is left is what the features say.
    """
    random = np.random.default_rng(0)
    half = np.float16
    head = Head(
        shift=np.zeros(N_EMBD, half),
        scale=np.ones(N_EMBD, half),
        project=random.standard_normal((N_EMBD, N_DIMS)).astype(half),
        bias=np.zeros(N_DIMS, half),
        turn=np.eye(n_learned, dtype=half),
    )
    manifest = Manifest(
        name="small",
        version="1",
        encoder=Encoder("fake", 1, N_EMBD),
        taste=TasteSettings({"LIKE": 1.0, "CLICK": 0.5}, 30.0, 50, 7.0),
        fusion=prior(
            server_rank=-1.0,
            tags=2.0,
            towers=4.0,
            content=4.0,
            query_text=2.0,
            query_content=4.0,
            neighbours=2.0,
            public_vector=4.0,
        ),
        without_model=prior(server_rank=-1.0, tags=2.0, query_text=2.0, neighbours=2.0, public_vector=4.0),
        scorer=ScorerSettings("default", scorer_weight),
    )
    return make(manifest, head)


def for_encoder(encoder: Encoder, *, n_dims: int = 64) -> Pack:
    """A pack with a random head that reads ``encoder``."""
    random = np.random.default_rng(0)
    half = np.float16
    head = Head(
        shift=np.zeros(encoder.n_embd, half),
        scale=np.ones(encoder.n_embd, half),
        project=random.standard_normal((encoder.n_embd, n_dims)).astype(half),
        bias=np.zeros(n_dims, half),
        turn=np.eye(n_dims, dtype=half),
    )
    return make(dataclasses.replace(small_pack().manifest, encoder=encoder), head)


@contextlib.contextmanager
def pipeline(
    folder: Path,
    *,
    encoder: FakeEngine | None = None,
    scorer: FakeEngine | None = None,
    pack: Pack | None = None,
) -> Iterator[Pipeline]:
    pack = pack or small_pack(scorer_weight=3.0 if scorer else 0.0)
    with Store.open(folder, key_source="file") as store:
        whole = Pipeline(store, make_tiers(pack, store, encoder, scorer, model="fake"))
        try:
            yield whole
        finally:
            whole.close()


GENRES = ("Crime", "Comedy", "Drama", "Horror")


def film(number: int) -> Item:
    return Item(f"f{number}", f"Film {number}", tags=(GENRES[number % len(GENRES)],))


def films(n: int, first: int = 0) -> tuple[Candidate, ...]:
    return tuple(Candidate(film(number)) for number in range(first, first + n))


def liked(*numbers: int, at_s: float = 1e9) -> list[Event]:
    return [
        Event(f"e{number}", EventType.LIKE, at_s + place, film(number))
        for place, number in enumerate(numbers)
    ]
