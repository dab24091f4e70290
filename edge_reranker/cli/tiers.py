"""A pack's tiers over the engines that there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edge_reranker.engine import Adapted, Adapter, Engine
from edge_reranker.models import Pack
from edge_reranker.models.pack import AdapterFile, Encoder, ScorerSettings
from edge_reranker.prompt import TEMPLATES, Template
from edge_reranker.ranking.affinity import Affinity
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.profile import Taste
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring import (
    BackgroundEncoder,
    CrossScorer,
    Epochs,
    HotPrefix,
    PublicVectors,
    RankScorer,
    Tiers,
    VectorCache,
    VectorScorer,
)
from edge_reranker.store import Store
from edge_reranker.types import DegradedReason


def make_tiers(
    pack: Pack,
    store: Store,
    encoder: Engine | None,
    scorer: Engine | None,
    *,
    ranker: Engine | None = None,
    without_encoder: DegradedReason = DegradedReason.NO_MODEL,
    model: str = "",
    fingerprint: str = "",
    before: Tiers | None = None,
) -> Tiers:
    """The tiers of a pack over the engines that there are; tier 2 has a scorer or a ranker.

    ``fingerprint`` is the scorer's, see HotPrefix. What does not depend on the model goes on from the tiers
    ``before``: a forget reaches the work of both.
    """
    encoder = _with(encoder, adapter_of(pack, "encoder"))
    scorer = _with(scorer, adapter_of(pack, "scorer"))
    towers = Towers.of(pack.head)
    epochs = before.epochs if before is not None else Epochs()
    vectors = VectorCache(
        *(store, pack.id, towers, encoder, epochs),
        prefix=pack.manifest.encoder.prefix,
        without_encoder=without_encoder,
    )
    public = (before and before.public) or PublicVectors(store, pack.id, epochs)
    background = (before and before.background) or BackgroundEncoder(vectors, public)
    manifest = pack.manifest
    items = None if pack.item_to_item is None else ItemToItem.of(pack.item_to_item)
    tier2: CrossScorer | RankScorer | None = None
    hot = None
    if scorer is not None and manifest.scorer.weight:
        tier2 = cross = CrossScorer(scorer, template_of(manifest.scorer), epochs=epochs)
        hot = HotPrefix(cross, scorer, store, epochs, fingerprint)
    elif ranker is not None and manifest.scorer.weight:
        tier2 = RankScorer(ranker)
    return Tiers(
        pack_id=pack.id,
        model=model if encoder is not None else "",
        taste=Taste.of(manifest.taste),
        named=tuple(manifest.named_features),
        weights=_with_scorer(Weights.of(manifest.fusion), manifest.scorer.weight),
        without_model=_with_scorer(Weights.of(manifest.without_model), manifest.scorer.weight),
        tier1=VectorScorer(vectors, Affinity(towers, items, manifest.centred), background, epochs),
        tier2=tier2,
        hot=hot,
        vectors=vectors,
        public=public,
        epochs=epochs,
        background=background,
    )


def template_of(settings: ScorerSettings) -> Template:
    """Tier 2's template, with the pack's own instruction if it has one."""
    template = TEMPLATES[settings.template]
    return template.with_instruction(settings.instruction) if settings.instruction else template


def _with_scorer(weights: Weights, weight: float) -> Weights:
    """Adds tier 2's weight, where the pack gives it one beside its prior."""
    if not weight or "scorer" in weights.names:
        return weights
    k = len(weights.names)
    covariance = np.eye(k + 1)
    covariance[:k, :k] = weights.covariance
    return dataclasses.replace(
        weights,
        names=(*weights.names, "scorer"),
        mean=np.append(weights.mean, weight),
        covariance=covariance,
    )


def adapter_of(pack: Pack, role: str) -> Adapter | None:
    """The adapter that a pack brings for a role, as engines know it."""
    file = {"encoder": pack.manifest.encoder.adapter, "scorer": pack.manifest.scorer.adapter}.get(role)
    return None if pack.folder is None else _adapter(file, pack.folder)


def encoder_adapter(encoder: Encoder, folder: Path) -> Adapter | None:
    """The adapter of an encoder whose pack is still being made in ``folder``."""
    return _adapter(encoder.adapter, folder)


def _adapter(file: AdapterFile | None, folder: Path) -> Adapter | None:
    return None if file is None else Adapter(folder / file.file, file.scale)


def _with(engine: Engine | None, adapter: Adapter | None) -> Engine | None:
    return engine if engine is None or adapter is None else Adapted(engine, adapter)
