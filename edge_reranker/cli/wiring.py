"""Real parts, put together: store, packs, engines and pipeline from a config."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapted, Adapter, Engine, EngineSpec, Role, WorkerEngine
from edge_reranker.errors import InvalidArgument, Missing, ModelInvalid, PackInvalid
from edge_reranker.models import ModelCache, Pack, load_pack
from edge_reranker.models.cache import made_of
from edge_reranker.models.catalogue import MODELS
from edge_reranker.models.pack import AdapterFile, Encoder
from edge_reranker.pipeline import Pipeline, Tiers
from edge_reranker.prompt import TEMPLATES
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.profile import Taste
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring import (
    BackgroundEncoder,
    CrossScorer,
    Epochs,
    PublicVectors,
    VectorCache,
    VectorScorer,
)
from edge_reranker.store import Store
from edge_reranker.types import DegradedReason, Model, ModelState

NO_MODEL = "none"
DEFAULT_PACK = "movielens-smollm2"


def pack_folder(config: Config) -> Path:
    """The folder of the pack in use: the configured one, or the one that ships."""
    if config.pack:
        return Path(config.pack).expanduser()
    return Path(str(resources.files("edge_reranker_packs"))) / DEFAULT_PACK


def n_threads(config: Config) -> int:
    """Threads for the model: as configured, or the processors this process may use, four at most."""
    return config.n_threads or min(4, len(os.sched_getaffinity(0)) if _HAS_AFFINITY else os.cpu_count() or 1)


_HAS_AFFINITY = hasattr(os, "sched_getaffinity")


def encoder_engine(config: Config, encoder: Encoder) -> WorkerEngine:
    """A worker that makes the hidden states that a pack reads. Raises Missing, ModelInvalid."""
    file, path = ModelCache(config.cache_dir).open(encoder.model, "encoder")
    made = made_of(encoder.n_blocks, encoder.gguf_type)
    # Hidden states of another depth or type are another space: ranking by them would be noise.
    if file.made != made:
        raise ModelInvalid(
            f"the pack reads {encoder.model} ({made}), not ({file.made}); "
            f"run `edge-reranker model pull {encoder.model}`, or use a pack made for this file"
        )
    return WorkerEngine(_spec(config, path, "encoder"))


def scorer_engine(config: Config) -> WorkerEngine:
    """A worker that reads candidates. Raises Missing, ModelInvalid."""
    _, path = ModelCache(config.cache_dir).open(config.model, "scorer")
    return WorkerEngine(_spec(config, path, "scorer"))


def adapter_of(pack: Pack, file: AdapterFile | None) -> Adapter | None:
    """The engine's record of one of a pack's adapters."""
    return None if file is None or pack.folder is None else Adapter(pack.folder / file.file, file.scale)


def _with(engine: Engine | None, adapter: Adapter | None) -> Engine | None:
    return engine if engine is None or adapter is None else Adapted(engine, adapter)


def _spec(config: Config, path: Path, role: Role) -> EngineSpec:
    return EngineSpec(
        path=path,
        role=role,
        n_threads=n_threads(config),
        memory_limit_bytes=config.memory_limit_mb * 1024 * 1024,
    )


@dataclass(frozen=True, slots=True)
class Device:
    """Everything that runs behind the server. ``problems`` says what is missing, for ``doctor``."""

    pipeline: Pipeline
    store: Store
    engines: tuple[WorkerEngine, ...]
    problems: tuple[str, ...]

    def settle(self, deadline: Deadline) -> tuple[str, ...]:
        """Waits until each model has loaded or failed to; all problems there are."""
        failed = [worker.problem for worker in self.engines if not worker.wait_settled(deadline)]
        return self.problems + tuple(problem or "the model is still loading" for problem in failed)

    def close(self) -> None:
        """Stops everything, the store last. Idempotent."""
        self.pipeline.close()
        for worker in self.engines:
            worker.close()
        self.store.close()


def open_device(config: Config) -> Device:
    """Opens the store and starts what the config asks for.

    A missing model or a broken pack is no error: the lower tiers serve, and say so. Raises StoreError.
    """
    if config.model != NO_MODEL and config.model not in _known_models(config):
        raise InvalidArgument(
            "model", f"{config.model!r} is neither in the catalogue nor added; see `edge-reranker model list`"
        )
    store = Store.open(config.data_dir, key_source=config.key_source)
    try:
        return _wire(config, store)
    except BaseException:
        store.close()
        raise


def _known_models(config: Config) -> set[str]:
    return {*MODELS, *(file.name for file in ModelCache(config.cache_dir).files())}


def _wire(config: Config, store: Store) -> Device:
    problems: list[str] = []
    try:
        pack = load_pack(pack_folder(config))
        if pack.manifest.scorer.template not in TEMPLATES:
            raise PackInvalid(f"pack {pack.id}: no template is called {pack.manifest.scorer.template!r}")
    except PackInvalid as error:
        pipeline = Pipeline(store, Tiers())
        return Device(pipeline, store, (), (str(error),))
    manifest = pack.manifest
    encoder = cross = None
    wanted = config.model != NO_MODEL
    if wanted and config.model != manifest.encoder.model:
        problems.append(f"pack {pack.id} reads {manifest.encoder.model}, not {config.model}: no vectors")
    elif wanted:
        encoder = _start(lambda: encoder_engine(config, manifest.encoder), problems)
    if wanted and manifest.scorer.weight:
        cross = _start(lambda: scorer_engine(config), problems)
    without = DegradedReason.MODEL_UNAVAILABLE if wanted else DegradedReason.NO_MODEL
    tiers = make_tiers(pack, store, encoder, cross, without_encoder=without, model=config.model)
    engines = {"encoder": encoder, "scorer": cross}
    models = [
        (
            Model(file.name, file.sha256, file.size_bytes, file.role, ModelState.AVAILABLE, file.license),
            engines.get(file.role) if file.name == config.model else None,
        )
        for file in ModelCache(config.cache_dir).files()
    ]
    running = tuple(worker for worker in engines.values() if worker is not None)
    return Device(Pipeline(store, tiers, models=models), store, running, tuple(problems))


def make_tiers(
    pack: Pack,
    store: Store,
    encoder: Engine | None,
    scorer: Engine | None,
    *,
    without_encoder: DegradedReason = DegradedReason.NO_MODEL,
    model: str = "",
) -> Tiers:
    """The tiers of a pack over the engines that there are."""
    manifest = pack.manifest
    encoder = _with(encoder, adapter_of(pack, manifest.encoder.adapter))
    scorer = _with(scorer, adapter_of(pack, manifest.scorer.adapter))
    towers = Towers.of(pack.head)
    epochs = Epochs()
    vectors = VectorCache(store, pack.id, towers, encoder, epochs, without_encoder=without_encoder)
    public = PublicVectors(store, pack.id, epochs)
    background = BackgroundEncoder(vectors, public)
    return Tiers(
        pack_id=pack.id,
        model=model if encoder is not None else "",
        taste=Taste.of(manifest.taste),
        named=tuple(manifest.named_features),
        weights=_with_scorer(Weights.of(manifest.fusion), manifest.scorer.weight),
        without_model=_with_scorer(Weights.of(manifest.without_model), manifest.scorer.weight),
        tier1=VectorScorer(vectors, towers, background),
        tier2=CrossScorer(scorer, TEMPLATES[manifest.scorer.template])
        if scorer is not None and manifest.scorer.weight
        else None,
        vectors=vectors,
        public=public,
        epochs=epochs,
        background=background,
    )


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


def _start(start: Callable[[], WorkerEngine], problems: list[str]) -> WorkerEngine | None:
    try:
        return start()
    except (Missing, ModelInvalid) as error:
        problems.append(str(error))
        return None
