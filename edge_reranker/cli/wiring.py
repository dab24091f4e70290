"""Real parts, put together: store, packs, engines and pipeline from a config."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from edge_reranker.cli.packs import pack_folder
from edge_reranker.cli.tiers import adapter_of, make_tiers, template_of
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapted, Adapter, Engine, EngineSpec, Role, WorkerEngine, device
from edge_reranker.engine.selftest import self_test
from edge_reranker.errors import (
    EngineBusy,
    EngineError,
    FailedPrecondition,
    InvalidArgument,
    Missing,
    ModelInvalid,
    NotFound,
    PackInvalid,
)
from edge_reranker.models import ModelCache, Pack, load_pack
from edge_reranker.models.cache import made_of
from edge_reranker.models.catalogue import MODELS, known_pair
from edge_reranker.models.pack import Encoder
from edge_reranker.pipeline import Pipeline
from edge_reranker.prompt import TEMPLATES
from edge_reranker.ranking.towers import Towers
from edge_reranker.scoring import (
    Serving,
    Tiers,
)
from edge_reranker.scoring.probes import MIN_COSINE, likeness
from edge_reranker.store import Store
from edge_reranker.types import DegradedReason, Model, ModelState

NO_MODEL = "none"


def n_threads(config: Config) -> int:
    """Threads for the model: as configured, or as many as the device has cores for."""
    return config.n_threads or device.n_threads()


def encoder_file(config: Config, encoder: Encoder) -> Path:
    """The file that makes the hidden states that a pack reads, verified. Raises Missing, ModelInvalid."""
    cache = ModelCache(config.cache_dir)
    file, path = cache.open(encoder.model, "encoder")
    made = made_of(encoder.n_blocks, encoder.gguf_type)
    # Hidden states of another depth or type are another space: ranking by them would be noise. What
    # `quantize pick` chose was measured on this very device; `require_same_vectors` looks again.
    if encoder.sha256 and file.sha256 != encoder.sha256:
        raise ModelInvalid(
            f"the pack reads {encoder.model} with SHA-256 {encoder.sha256}, not {file.sha256}; "
            "add that file with `edge-reranker model add`, or use a pack made for this one"
        )
    readable = cache.reads(encoder.model, encoder.n_blocks, encoder.gguf_type)
    if not encoder.sha256 and file.made not in readable:
        raise ModelInvalid(
            f"the pack reads {encoder.model} ({made}), not ({file.made}); "
            f"run `edge-reranker model pull {encoder.model}`, or use a pack made for this file"
        )
    return path


def encoder_engine(config: Config, encoder: Encoder, path: Path | None = None) -> WorkerEngine:
    """A worker that makes the hidden states that a pack reads, of ``path`` if given.

    Raises Missing, ModelInvalid.
    """
    spec = _spec(config, path or encoder_file(config, encoder), "encoder")
    return WorkerEngine(dataclasses.replace(spec, pooling=encoder.pooling, normalise=encoder.normalise))


def scorer_engine(config: Config, name: str, role: Role) -> WorkerEngine:
    """A worker that reads candidates. Raises Missing, ModelInvalid."""
    _, path = ModelCache(config.cache_dir).open(name, role)
    return WorkerEngine(_spec(config, path, role))


def scorer_role(config: Config, name: str) -> Role:
    """How a model reads candidates: as a ranker if it is here as that, and not as a scorer too."""
    roles = {file.role for file in ModelCache(config.cache_dir).files() if file.name == name}
    return "ranker" if "ranker" in roles and "scorer" not in roles else "scorer"


def prefix_fingerprint(config: Config, pack: Pack) -> str:
    """Names all that a decoded context depends on besides its tokens. Raises Missing, ModelInvalid."""
    settings = pack.manifest.scorer
    file, path = ModelCache(config.cache_dir).open(settings.model or config.model, "scorer")
    spec = _spec(config, path, "scorer")
    version = metadata.version("llama_cpp_python")
    parts = (file.sha256, settings.adapter, template_of(settings), spec.mode, spec.n_ctx_sequence, version)
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
    """Everything that runs behind the server, engines and adapters by role.

    ``problems`` says what is missing, for ``doctor``.
    """

    pipeline: Pipeline
    store: Store
    engines: Mapping[str, WorkerEngine]
    problems: tuple[str, ...]
    adapters: Mapping[str, Adapter] = dataclasses.field(default_factory=dict)

    def settle(self, deadline: Deadline) -> tuple[str, ...]:
        """Waits until each model and adapter has loaded or failed to; all problems there are."""
        problems = []
        for role, worker in self.engines.items():
            if not worker.wait_settled(deadline):
                problems.append(worker.problem or "the model is still loading")
            elif role in self.adapters:
                try:
                    worker.load_adapter(self.adapters[role].path, deadline)
                except (ModelInvalid, EngineError) as error:
                    problems.append(str(error))
        return self.problems + tuple(problems)

    def close(self) -> None:
        """Stops everything, the store last. Idempotent."""
        self.pipeline.close()
        for worker in self.engines.values():
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
    store = Store.open(config.data_dir, key_source=config.key_source, backups=config.backups)
    try:
        device = _wire(config, store)
        store.keep_safe()
        return device
    except BaseException:
        store.close()
        raise


def _known_models(config: Config) -> set[str]:
    return {*MODELS, *(file.name for file in ModelCache(config.cache_dir).files())}


def _wire(config: Config, store: Store) -> Device:
    try:
        pack = load_pack(pack_folder(config))
        if pack.manifest.scorer.template not in TEMPLATES:
            raise PackInvalid(f"pack {pack.id}: no template is called {pack.manifest.scorer.template!r}")
    except PackInvalid as error:
        problem = str(error)

        def refuse(name: str, before: Tiers, deadline: Deadline) -> Serving:
            raise PackInvalid(problem)

        return Device(Pipeline(store, Tiers(), load=refuse), store, {}, (problem,))

    def load(name: str, before: Tiers, deadline: Deadline) -> Serving:
        return load_model(dataclasses.replace(config, model=name), pack, store, before, deadline)

    problems: list[str] = []
    engines: dict[str, WorkerEngine] = {}
    manifest = pack.manifest
    wanted = config.model != NO_MODEL
    if wanted and config.model != manifest.encoder.model:
        problems.append(
            f"pack {pack.id} reads {manifest.encoder.model}, not {config.model}: no vectors; "
            f"give --model {manifest.encoder.model}"
        )
    for role, start in _workers(config, pack).items() if wanted else ():
        if role == "encoder" and config.model != manifest.encoder.model:
            continue
        try:
            engines[role] = start()
        except (Missing, ModelInvalid) as error:
            problems.append(str(error))
    without = DegradedReason.MODEL_UNAVAILABLE if wanted else DegradedReason.NO_MODEL
    tiers = _tiers(config, pack, store, engines, without_encoder=without)
    if tiers.hot is not None:
        tiers.hot.start()
    else:
        store.put_prefix_state(None)  # nobody will read it
    pipeline = Pipeline(store, tiers, models=_models(config, pack, engines), load=load)
    adapters = {role: adapter for role in engines if (adapter := adapter_of(pack, role)) is not None}
    return Device(pipeline, store, engines, tuple(problems), adapters)


def _workers(config: Config, pack: Pack) -> dict[str, Callable[[], WorkerEngine]]:
    """What starts the models of a pack's tiers, by role."""
    manifest = pack.manifest
    workers = {"encoder": lambda: encoder_engine(config, manifest.encoder)}
    if manifest.scorer.weight:
        reader = manifest.scorer.model or config.model
        role = scorer_role(config, reader)
        workers[role] = lambda: scorer_engine(config, reader, role)
    return workers


def _tiers(
    config: Config,
    pack: Pack,
    store: Store,
    engines: Mapping[str, WorkerEngine],
    *,
    without_encoder: DegradedReason = DegradedReason.NO_MODEL,
    before: Tiers | None = None,
) -> Tiers:
    return make_tiers(
        pack,
        store,
        engines.get("encoder"),
        engines.get("scorer"),
        ranker=engines.get("ranker"),
        without_encoder=without_encoder,
        model=config.model,
        fingerprint=prefix_fingerprint(config, pack) if "scorer" in engines else "",
        before=before,
    )


def _models(
    config: Config,
    pack: Pack,
    engines: Mapping[str, Engine],
    speeds: Mapping[str, float] = MappingProxyType({}),
) -> tuple[tuple[Model, Engine | None], ...]:
    """The model files on this device, those in use with their engine and its tokens per second."""
    reader = pack.manifest.scorer.model or config.model
    found = []
    for file in ModelCache(config.cache_dir).files():
        used = (
            engines.get(file.role)
            if file.name == (config.model if file.role == "encoder" else reader)
            else None
        )
        speed = speeds.get(file.role, 0.0) if used is not None else 0.0
        state = ModelState.AVAILABLE
        model = Model(file.name, file.sha256, file.size_bytes, file.role, state, file.license, speed)
        found.append((model, used))
    return tuple(found)


def load_model(config: Config, pack: Pack, store: Store, before: Tiers, deadline: Deadline) -> Serving:
    """Starts ``config.model`` beside what serves and tries it out; nothing is left running when it fails.

    Raises NotFound, FailedPrecondition (Missing, a pack that reads another model), ModelInvalid, EngineBusy.
    """
    name, manifest = config.model, pack.manifest
    if name not in _known_models(config):
        raise NotFound(f"{name[:64]!r} is neither in the catalogue nor added; see `edge-reranker model list`")
    if name != manifest.encoder.model:
        raise FailedPrecondition(
            f"pack {pack.id} reads {manifest.encoder.model}, not {name}; "
            f"start the service with a --pack that was made for {name}"
        )
    engines: dict[str, WorkerEngine] = {}
    try:
        for role, start in _workers(config, pack).items():
            engines[role] = start()
        speeds = {role: _tried(engine, role, name, pack, deadline) for role, engine in engines.items()}
        tiers = _tiers(config, pack, store, engines, before=before)
        return Serving(tiers, _models(config, pack, engines, speeds))
    except BaseException:
        for engine in engines.values():
            engine.close()
        raise


def _tried(engine: WorkerEngine, role: str, name: str, pack: Pack, deadline: Deadline) -> float:
    """Tokens per second of a model that passed its self-test, bare and with the pack's adapter."""
    name = name if role == "encoder" else pack.manifest.scorer.model or name
    what = f"{name} {role}"
    if not engine.wait_settled(deadline):
        if deadline.passed:
            raise EngineBusy(f"{what} did not load in time; allow more time")
        raise ModelInvalid(engine.problem or f"{what}: its worker died while loading it; pull it again")
    n_embd = pack.manifest.encoder.n_embd
    if role == "encoder" and (engine.info is None or engine.info.n_embd != n_embd):
        raise ModelInvalid(
            f"{what} has hidden states of another size than the {n_embd} that the pack reads; pull it again"
        )
    kind: Role = "encoder" if role == "encoder" else "ranker" if role == "ranker" else "scorer"
    report = self_test(engine, kind, what, deadline, known_pair(name, role))
    adapter = adapter_of(pack, role)
    if adapter is not None:
        engine.load_adapter(adapter.path, deadline)
        report = self_test(Adapted(engine, adapter), kind, f"{what} with {adapter.path.name}", deadline)
    if role == "encoder":
        require_same_vectors(engine, pack, what, deadline)
    return report.tokens_per_s


def require_same_vectors(engine: Engine, pack: Pack, what: str, deadline: Deadline) -> None:
    """Raises ModelInvalid when the encoder makes other vectors than in the pack's training."""
    if pack.probes is None:
        return
    adapter = adapter_of(pack, "encoder")
    found = likeness(
        engine if adapter is None else Adapted(engine, adapter),
        Towers.of(pack.head),
        pack.probes.texts,
        pack.probes.vectors,
        deadline,
        prefix=pack.manifest.encoder.prefix,
    )
    if not found >= MIN_COSINE:
        raise ModelInvalid(
            f"{what} makes other vectors than those that pack {pack.id} was trained on (cosine {found:.3f}, "
            f"{MIN_COSINE} is needed); pull it again, or train a pack on this device"
        )
