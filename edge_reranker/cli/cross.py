"""``train --cross``: trains tier 2's model behind a pack, and turns it on where it pays."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from edge_reranker.cli.finetune import only
from edge_reranker.cli.wiring import n_threads, scorer_engine
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Adapted, Adapter, EngineSpec, WorkerEngine
from edge_reranker.engine.quantiser import derive
from edge_reranker.errors import EngineDied, EngineError, Missing
from edge_reranker.evaluation import run
from edge_reranker.evaluation.lists import Listed
from edge_reranker.evaluation.log import Log
from edge_reranker.evaluation.protocol import Cut, split
from edge_reranker.models import ModelCache, Pack, gguf_tensors
from edge_reranker.models import pack as packs
from edge_reranker.models.catalogue import MODELS
from edge_reranker.models.pack import AdapterFile, Encoder, ScorerSettings
from edge_reranker.models.pull import sha256_of
from edge_reranker.prompt import TEMPLATES
from edge_reranker.ranking import fusion
from edge_reranker.scoring import CrossScorer
from edge_reranker.training import cross_fit, cross_lists, prior, recipe
from edge_reranker.training.cross import Example, Settings, answers, faster_in_half, train
from edge_reranker.training.encoders import Network
from edge_reranker.training.head import Recipe
from edge_reranker.training.loop import Until

MODEL = "smollm2-135m"
TEMPLATE = "titles"
N_BLOCKS = {"cut": 10, "whole": None}
ADAPTER_FILE = "scorer-lora.gguf"
LARGEST_DIFFERENCE = 0.05
_N_COMPARED = 3
_LOAD_MS = 60_000.0

Float = npt.NDArray[np.floating]


def scorer_file(config: Config, n_blocks: int | None) -> tuple[str, Path]:
    """The name and file of the model that reads, cut to its first blocks if asked. Raises Missing."""
    cache = ModelCache(config.cache_dir)
    whole, path = cache.open(MODEL, "scorer")
    if n_blocks is None:
        return whole.name, path
    name = f"{MODEL}-first-{n_blocks}"
    with contextlib.suppress(Missing):
        return name, cache.open(name, "scorer")[1]
    with tempfile.TemporaryDirectory(dir=config.cache_dir) as scratch:
        cut = Path(scratch) / "scorer.gguf"
        derive(path, cut, quantisation="Q4_0", n_blocks=n_blocks)
        cache.add(
            cut,
            sha256=sha256_of(cut),
            name=name,
            role="scorer",
            license_=MODELS[MODEL].license,
            say=lambda line: click.echo(line, err=True),
        )
    return name, cache.open(name, "scorer")[1]


def crossed(
    config: Config,
    data: Log,
    pack: Pack,
    hidden: Float,
    out: Path,
    until: Until,
    *,
    cross: str,
    seed: int,
    settings: Settings | None = None,
    towers: Recipe | None = None,
    always: bool = False,
) -> tuple[Pack, str]:
    """``pack``, which lies in ``out``, with a trained tier 2 if that pays, and what was found.

    ``cross`` is a key of ``N_BLOCKS``; ``towers`` is how the pack's were made. The card tells all, too.

    It pays where users who fit the prior gain enough, or ``always``; the later users are only reported.
    Run again after a break, it goes on where it was. Raises Missing, EngineError.
    """
    model, path = scorer_file(config, N_BLOCKS[cross])
    parted = split(data)
    taste, weights = pack.manifest.taste, fusion.Weights.of(pack.manifest.fusion)
    engine = scorer_engine(config, model, "scorer")
    try:
        if not engine.wait_ready(Deadline.after_ms(_LOAD_MS)):
            raise EngineDied(engine.problem or f"{model} does not load")
        reader = CrossScorer(engine, TEMPLATES[TEMPLATE])
        by_id = {item.id: item for item in data.items}
        # One thread, unless asked: two beside a busy program wait for each other most of the time.
        settings = settings or Settings(half=faster_in_half(), n_threads=config.n_threads or 1)
        towers = towers or Recipe()
        shown = cross_lists.unseen_lists(
            *(data, hidden, parted.head), seed=seed, recipe=towers, items=recipe.ITEMS, taste=taste
        )
        found = list(cross_lists.examples(reader, shown, weights, by_id, taste, seed=seed))
        adapter = _trained(config, path, found, out, until, seed=seed, settings=settings)
        lister = run.lister(data, parted, pack, hidden)

        def read(cuts: Sequence[Cut]) -> tuple[list[Listed], ...]:
            listed = [lister.listed(cut) for cut in cuts]
            rows = cross_lists.tops(listed, weights)
            prompts = cross_lists.prompts(reader, listed, rows, by_id, taste)
            scores = cross_fit.served(Adapted(engine, adapter), prompts)
            return cross_lists.with_scores(listed, rows, scores), listed

        scored, plain = read(parted.fusion)
        valid = cross_fit.validated(scored, plain)
        histories = [recipe.history(past, taste) for past in parted.head.values()]
        unseen = recipe.unaware(
            *(data, hidden, scored, histories), seed=seed, recipe=towers, items=recipe.ITEMS, taste=taste
        )
        fitted = prior.fit(scored, unseen)
        later, as_before = read(parted.test)
    finally:
        engine.close()
    tested = cross_fit.gain((later, fitted), (as_before, weights))
    on = always or valid.pays
    text = "\n".join(
        [
            f"tier 2, {model}, {len(found)} lists, top {cross_lists.TOP_K}:",
            f"users who fit the prior: {valid.as_text()}",
            f"later users: {tested.as_text()}",
            "it is on"
            if on
            else f"it stays off: less than +{cross_fit.LEAST_GAIN} for the former, or unsure",
        ]
    )
    card = (out / packs.CARD_FILE).read_text(encoding="utf-8") + f"\n## Tier 2\n\n```\n{text}\n```\n"
    if not on:
        adapter.path.unlink()
        (out / packs.CARD_FILE).write_text(card, encoding="utf-8")
        return pack, text
    weight = float(fitted.mean[fitted.names.index(CrossScorer.column)])
    manifest = replace(
        pack.manifest,
        fusion=prior.as_prior(fitted),
        scorer=ScorerSettings(
            TEMPLATE, weight, model=model, adapter=AdapterFile(ADAPTER_FILE, sha256_of(adapter.path))
        ),
    )
    made = packs.make(manifest, pack.head, folder=out, item_to_item=pack.item_to_item, probes=pack.probes)
    packs.save(made, out, card.replace(pack.id, made.id))
    return made, text


def _trained(
    config: Config,
    path: Path,
    found: Sequence[Example],
    out: Path,
    until: Until,
    *,
    seed: int,
    settings: Settings,
) -> Adapter:
    """Trains on the lists, and writes the adapter into ``out`` once it serves what the training has."""
    tensors = gguf_tensors.read(path)
    network = Network.of(tensors, Encoder(path.stem, None, int(tensors.setting("embedding_length"))))
    digest = hashlib.sha256(repr((sha256_of(path), asdict(settings), until, seed)).encode())
    for each in found:
        digest.update(repr((each.prompt, each.offset.tobytes(), each.wanted.tobytes())).encode())
    checkpoint = only(config.cache_dir / "cross" / f"{digest.hexdigest()[:32]}.pt")
    with click.progressbar(length=1000, label="training tier 2", file=sys.stderr) as bar:

        def say(step: int, share: float, loss: float) -> None:
            bar.label = f"training tier 2, step {step}, loss {loss:.3f}"
            bar.update(int(share * 1000) - bar.pos)

        train(network, found, settings, until, seed=seed, checkpoint=checkpoint, say=say)
    target = out / ADAPTER_FILE
    pairs = {name: (a.numpy(), b.numpy()) for name, (a, b) in network.pairs.items()}
    gguf_tensors.write_lora(target, tensors.architecture, pairs)
    try:
        _compare(config, network, path, found[:: max(1, len(found) // _N_COMPARED)], Adapter(target))
    except EngineError:
        target.unlink()
        raise
    checkpoint.unlink(missing_ok=True)
    return Adapter(target)


def _compare(
    config: Config, network: Network, path: Path, found: Sequence[Example], adapter: Adapter
) -> None:
    """Scores of the real worker at half precision against the training's own."""
    prompts = [each.prompt for each in found]
    with tempfile.TemporaryDirectory(dir=adapter.path.parent) as scratch:
        half = Path(scratch) / "F16.gguf"
        gguf_tensors.write_like(half, path, network.model.arrays)
        engine = WorkerEngine(EngineSpec(half, "scorer", n_threads(config)))
        try:
            if not engine.wait_ready(Deadline.after_ms(_LOAD_MS)):
                raise EngineDied(engine.problem or f"{half} does not load")
            theirs = np.concatenate(cross_fit.served(Adapted(engine, adapter), prompts))
        finally:
            engine.close()
    apart = float(np.abs(np.concatenate(list(answers(network, prompts))) - theirs).max())
    if not apart <= LARGEST_DIFFERENCE:
        raise EngineError(
            f"the trained scorer gives other scores in llama.cpp than in training (by {apart:.3f}, "
            f"{LARGEST_DIFFERENCE} is the most), so nothing was written; train without --cross"
        )
