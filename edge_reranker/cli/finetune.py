"""``train --finetune``: trains the encoder before the towers, and puts it where the service reads it."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from edge_reranker.backend.encoder import BATCH, ItemEncoder, texts_of
from edge_reranker.cli.wiring import encoder_engine, encoder_file
from edge_reranker.config import Config
from edge_reranker.engine.quantiser import derive
from edge_reranker.errors import EngineError
from edge_reranker.evaluation import protocol
from edge_reranker.evaluation.log import Log
from edge_reranker.models import ModelCache, gguf_tensors
from edge_reranker.models.catalogue import MODELS
from edge_reranker.models.pack import AdapterFile, Encoder
from edge_reranker.models.pull import sha256_of
from edge_reranker.training import recipe
from edge_reranker.training.encoders import Network, merged
from edge_reranker.training.finetune import Settings, finetune
from edge_reranker.training.head import History
from edge_reranker.training.loop import Until
from edge_reranker.types import Item

ADAPTER_FILE = "encoder-lora.gguf"
MODEL_FILE = "encoder.gguf"
LEAST_COSINE = 0.9995
_N_COMPARED = 200

Float32 = npt.NDArray[np.float32]


def finetuned(
    config: Config,
    encoder: Encoder,
    data: Log,
    frozen: Float32,
    out: Path,
    settings: Settings,
    until: Until,
    *,
    seed: int,
) -> Encoder:
    """``encoder`` trained on the past of the users who train the towers, as the pack in ``out`` names it.

    ``frozen`` are the items' states as they are. A LoRA adapter lies in ``out`` afterwards; a model trained
    as a whole lies there, and in the cache. Run again after a break, it goes on where it was. Raises Missing,
    ModelInvalid, and EngineError when the file that was made gives other vectors than the training had.
    """
    base = encoder_file(config, encoder)
    network = Network.of(gguf_tensors.read(base), encoder)
    ids = _token_ids(config, encoder, data.items)
    histories = [recipe.history(past, recipe.TASTE) for past in protocol.split(data).head.values()]
    name = _name(sha256_of(base), encoder, settings, until, seed, ids, histories)
    checkpoint = only(config.cache_dir / "finetune" / f"{name}.pt")
    with click.progressbar(length=1000, label=f"fine-tuning {encoder.model}", file=sys.stderr) as bar:

        def say(step: int, share: float, loss: float) -> None:
            bar.label = f"fine-tuning {encoder.model}, step {step}, loss {loss:.3f}"
            bar.update(int(share * 1000) - bar.pos)

        finetune(network, ids, frozen, histories, settings, until, seed=seed, checkpoint=checkpoint, say=say)
    out.mkdir(parents=True, exist_ok=True)
    made = _export(config, encoder, network, base, data.items, ids, out)
    checkpoint.unlink(missing_ok=True)
    return made


def _export(
    config: Config,
    encoder: Encoder,
    network: Network,
    base: Path,
    items: Sequence[Item],
    ids: Sequence[Sequence[int]],
    out: Path,
) -> Encoder:
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        half = Path(scratch) / "F16.gguf"
        gguf_tensors.write_like(half, base, merged(network))
        _compare(config, encoder, network, half, items, ids)
        if network.pairs:
            target = out / ADAPTER_FILE
            pairs = {name: (a.numpy(), b.numpy()) for name, (a, b) in network.pairs.items()}
            gguf_tensors.write_lora(target, network.model.architecture, pairs)
            return replace(encoder, adapter=AdapterFile(target.name, sha256_of(target)))
        target = out / MODEL_FILE
        derive(half, target, quantisation=encoder.gguf_type)
    sha256 = sha256_of(target)
    file = ModelCache(config.cache_dir).add(
        target,
        sha256=sha256,
        name=f"{encoder.model}-{sha256[:8]}",
        role="encoder",
        license_=MODELS[encoder.model].license if encoder.model in MODELS else "not stated",
        say=lambda line: click.echo(line, err=True),
    )
    return replace(encoder, model=file.name, n_blocks=None, sha256=sha256)


def _compare(
    config: Config,
    encoder: Encoder,
    network: Network,
    path: Path,
    items: Sequence[Item],
    ids: Sequence[Sequence[int]],
) -> None:
    """Vectors of the real worker against the training's own: before the norm or after it is another space."""
    rows = range(0, len(items), max(1, len(items) // _N_COMPARED))
    worker = ItemEncoder(encoder_engine(config, encoder, path))
    try:
        served = worker.encode(texts_of([items[row] for row in rows], encoder.prefix))
    finally:
        worker.close()
    trained = np.concatenate([network.states([ids[row]]).numpy() for row in rows])
    lengths = np.linalg.norm(served, axis=1) * np.linalg.norm(trained, axis=1)
    least = float(((served * trained).sum(axis=1) / lengths).min())
    if not least >= LEAST_COSINE:
        raise EngineError(
            f"the fine-tuned {encoder.model} gives other vectors in llama.cpp than in training (cosine "
            f"{least:.4f}, {LEAST_COSINE} is the least), so nothing was written; train without --finetune"
        )


def _token_ids(config: Config, encoder: Encoder, items: Sequence[Item]) -> list[list[int]]:
    """What the worker reads of each item, without separators."""
    worker = ItemEncoder(encoder_engine(config, encoder))
    try:
        texts = texts_of(items, encoder.prefix)
        starts = range(0, len(texts), BATCH)
        return [ids for start in starts for ids in worker.token_ids(texts[start : start + BATCH])]
    finally:
        worker.close()


def _name(
    sha256: str,
    encoder: Encoder,
    settings: Settings,
    until: Until,
    seed: int,
    ids: Sequence[Sequence[int]],
    histories: Sequence[History],
) -> str:
    """Of all that a half-done training depends on."""
    digest = hashlib.sha256(repr((sha256, encoder, asdict(settings), until, seed, list(ids))).encode())
    for history in histories:
        for array in (history.rows, history.weights, history.liked):
            digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def only(path: Path) -> Path:
    """``path``, the others of its kind gone: a half-done training has 130 MB."""
    for other in path.parent.glob("*.pt"):
        if other != path:
            other.unlink(missing_ok=True)
    return path
