"""Real parts, put together: store, packs, engines and pipeline from a config."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import numpy as np

from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine, EngineSpec, Role, WorkerEngine, device
from edge_reranker.errors import InvalidArgument, Missing, ModelInvalid, PackInvalid
from edge_reranker.models import ModelCache, Pack, load_pack
from edge_reranker.models.cache import made_of
from edge_reranker.models.catalogue import MODELS
from edge_reranker.models.pack import Encoder, ScorerSettings
from edge_reranker.pipeline import Pipeline, Tiers
from edge_reranker.prompt import TEMPLATES, Template
from edge_reranker.ranking.fusion import Weights
from edge_reranker.ranking.profile import Taste
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring import (
    BackgroundEncoder,
    CrossScorer,
    Epochs,
    HotPrefix,
    PublicVectors,
    RankScorer,
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
    """Threads for the model: as configured, or as many as the device has cores for."""
    return config.n_threads or device.n_threads()


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


def scorer_engine(config: Config, name: str, role: Role) -> WorkerEngine:
    """A worker that reads candidates. Raises Missing, ModelInvalid."""
    _, path = ModelCache(config.cache_dir).open(name, role)
    return WorkerEngine(_spec(config, path, role))


def scorer_role(config: Config, name: str) -> Role:
    """How a model reads candidates: as a ranker if it is here as that, and not as a scorer too."""
    roles = {file.role for file in ModelCache(config.cache_dir).files() if file.name == name}
    return "ranker" if "ranker" in roles and "scorer" not in roles else "scorer"


def prefix_fingerprint(config: Config, name: str, template: Template) -> str:
    """Names all that a decoded context depends on besides its tokens. Raises Missing, ModelInvalid."""
    file, path = ModelCache(config.cache_dir).open(name, "scorer")
    spec = _spec(config, path, "scorer")
    parts = (file.sha256, template, spec.mode, spec.n_ctx_sequence, metadata.version("llama_cpp_python"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _spec(config: Config, path: Path, role: Role) -> EngineSpec:
    return EngineSpec(
        path=path,
        role=role,
        n_threads=n_threads(config),
        memory_limit_bytes=config.memory_limit_mb * 1024 * 1024,
        nice=config.nice,
        mode="unified" if config.mode == "unified" else "isolated",
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
    reader = manifest.scorer.model or config.model
    role = scorer_role(config, reader)
    wanted = config.model != NO_MODEL
    if wanted and config.model != manifest.encoder.model:
        problems.append(f"pack {pack.id} reads {manifest.encoder.model}, not {config.model}: no vectors")
    elif wanted:
        encoder = _start(lambda: encoder_engine(config, manifest.encoder), problems)
    if wanted and manifest.scorer.weight:
        cross = _start(lambda: scorer_engine(config, reader, role), problems)
    without = DegradedReason.MODEL_UNAVAILABLE if wanted else DegradedReason.NO_MODEL
    as_scorer, as_ranker = (cross, None) if role == "scorer" else (None, cross)
    tiers = make_tiers(
        pack,
        store,
        encoder,
        as_scorer,
        ranker=as_ranker,
        without_encoder=without,
        model=config.model,
        fingerprint=prefix_fingerprint(config, reader, _template(manifest.scorer)) if as_scorer else "",
    )
    if tiers.hot is not None:
        tiers.hot.start()
    engines: dict[tuple[str, str], WorkerEngine | None] = {
        (config.model, "encoder"): encoder,
        (reader, role): cross,
    }
    models = [
        (
            Model(file.name, file.sha256, file.size_bytes, file.role, ModelState.AVAILABLE, file.license),
            engines.get((file.name, file.role)),
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
    ranker: Engine | None = None,
    without_encoder: DegradedReason = DegradedReason.NO_MODEL,
    model: str = "",
    fingerprint: str = "",
) -> Tiers:
    """The tiers of a pack over the engines that there are; tier 2 has a scorer or a ranker.

    ``fingerprint`` is the scorer's, see HotPrefix.
    """
    towers = Towers.of(pack.head)
    epochs = Epochs()
    vectors = VectorCache(store, pack.id, towers, encoder, epochs, without_encoder=without_encoder)
    public = PublicVectors(store, pack.id, epochs)
    background = BackgroundEncoder(vectors, public)
    manifest = pack.manifest
    tier2: CrossScorer | RankScorer | None = None
    hot = None
    if scorer is not None and manifest.scorer.weight:
        tier2 = cross = CrossScorer(scorer, _template(manifest.scorer), epochs=epochs)
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
        tier1=VectorScorer(vectors, towers, background),
        tier2=tier2,
        hot=hot,
        vectors=vectors,
        public=public,
        epochs=epochs,
        background=background,
    )


def _template(settings: ScorerSettings) -> Template:
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


def _start(start: Callable[[], WorkerEngine], problems: list[str]) -> WorkerEngine | None:
    try:
        return start()
    except (Missing, ModelInvalid) as error:
        problems.append(str(error))
        return None
