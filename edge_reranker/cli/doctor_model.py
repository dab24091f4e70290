"""What ``doctor`` says of the model and the pack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edge_reranker.cli.finding import Finding
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.errors import EdgeRerankerError, Missing, ModelInvalid
from edge_reranker.models import ModelCache, Pack, load_pack

_TRY_MS = 30_000.0


def models(config: Config) -> Iterator[Finding]:
    """Whether the wanted model is here, and is what it should be."""
    if config.model == "none":
        yield Finding("model", True, "none wanted")
        return
    cache = ModelCache(config.cache_dir)
    try:
        file, path = cache.open(config.model, "encoder")
    except EdgeRerankerError as error:
        yield Finding("model", False, str(error), f"run `edge-reranker model pull {config.model}`")
        return
    yield Finding("model", True, f"{config.model}, {file.made}, verified ({path})")


def pack(config: Config) -> Finding:
    """Whether the pack can be read, and reads what the encoder makes."""
    from edge_reranker.cli.packs import pack_folder
    from edge_reranker.cli.wiring import encoder_file

    try:
        loaded = load_pack(pack_folder(config))
    except EdgeRerankerError as error:
        return Finding("pack", False, str(error), "reinstall edge-reranker, or give a good --pack")
    encoder = loaded.manifest.encoder
    if config.model == "none":
        return Finding("pack", True, loaded.id)
    if config.model != encoder.model:
        way_out = f"give --model {encoder.model}, or a pack made for {config.model}"
        return Finding("pack", False, f"{loaded.id} reads {encoder.model}, not {config.model}", way_out)
    with contextlib.suppress(Missing):  # the finding about the model says so
        try:
            encoder_file(config, encoder)
            _try_encoder(config, loaded)
        except ModelInvalid as error:
            return Finding("pack", False, str(error), f"run `edge-reranker model pull {encoder.model}`")
    return Finding("pack", True, loaded.id)


def _try_encoder(config: Config, pack: Pack) -> None:
    """Starts the encoder for a moment. Raises ModelInvalid when it is not the one that the pack reads."""
    from edge_reranker.cli.tiers import adapter_of
    from edge_reranker.cli.wiring import encoder_engine, require_same_vectors

    if pack.probes is None:
        return
    engine = encoder_engine(config, pack.manifest.encoder)
    try:
        deadline = Deadline.after_ms(_TRY_MS)
        if not engine.wait_settled(deadline):
            raise ModelInvalid(engine.problem or "the encoder did not load in time")
        adapter = adapter_of(pack, "encoder")
        if adapter is not None:
            engine.load_adapter(adapter.path, deadline)
        require_same_vectors(engine, pack, f"{pack.manifest.encoder.model} encoder", deadline)
    finally:
        engine.close()
