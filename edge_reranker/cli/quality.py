"""``train`` and ``evaluate``: packs, and what they are worth."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edge_reranker.cli import logs, options
from edge_reranker.cli.encoders import RayPool, ray_options, ray_pool
from edge_reranker.errors import InvalidArgument, Missing
from edge_reranker.models import ModelCache, load_pack
from edge_reranker.models.catalogue import DEFAULT_MODEL

if TYPE_CHECKING:
    from edge_reranker.config import Config
    from edge_reranker.evaluation.log import Log
    from edge_reranker.evaluation.table import Tables
    from edge_reranker.models.pack import Encoder, Pack

AUTO = "auto"
_MINUTES = 15.0


@click.command()
@options.cache_dir
@options.data_set
@logs.log_files
@click.option(
    "--out", type=options.Given(path_type=Path), required=True, help="Folder the pack is written to."
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of the training; the split of users is fixed.",
)
@click.option(
    "--encoder",
    "model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="What reads the items; auto: of those pulled, the one that serves the users who fit the prior best.",
)
@click.option(
    "--generic", is_flag=True, help="A pack for domains without a log: nothing is learned of any item."
)
@click.option(
    "--finetune",
    type=click.Choice(("full", "lora")),
    help="Train the encoder as well: as a whole, or a small LoRA adapter that lies in the pack.",
)
@click.option(
    "--cross",
    type=click.Choice(("cut", "whole")),
    help="Train tier 2's model too, its first 10 blocks or all; off by default, and in the pack if it pays.",
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long each; default: 15.")
@click.option("--name", help="Name of the pack: lower-case letters, digits and dashes.")
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@ray_options
def train(
    data_folder: Path | None,
    items: Path | None,
    interactions: Path | None,
    out: Path,
    seed: int,
    model: str,
    generic: bool,
    finetune: str | None,
    cross: str | None,
    minutes: float | None,
    name: str | None,
    on_ray: bool,
    ray_workers: int | None,
    **flags: Any,
) -> None:
    """Train a pack on a log of yours, or on MovieLens-100K: towers, fusion prior, a card with honest figures.

    \b
    Example:
      edge-reranker train --items items.jsonl --interactions log.parquet --out my-pack
      edge-reranker train --out packs/movielens-minilm
      edge-reranker train --finetune lora --minutes 15 --out my-pack
      edge-reranker train --cross cut --minutes 60 --out my-pack
      edge-reranker train --generic --out packs/generic-minilm
    """
    from edge_reranker.cli.hidden import hidden_states, kept_hidden_states
    from edge_reranker.evaluation import metrics, protocol
    from edge_reranker.training import card, recipe
    from edge_reranker.training.head import require_torch

    if model != AUTO and model not in recipe.ENCODERS:
        raise InvalidArgument("encoder", f"{model!r}; there are {AUTO}, {', '.join(recipe.ENCODERS)}")
    if minutes is not None and finetune is None and cross is None:
        raise InvalidArgument(
            "--minutes", "goes with --finetune or --cross: the towers take a fixed number of steps"
        )
    config = options.load_config(flags if model == AUTO else {**flags, "model": model})
    _require_room(out)
    pool = ray_pool(on_ray, ray_workers)
    if generic:
        _train_generic(
            config, data_folder, out, model, (items, interactions, name, finetune, cross, seed), pool
        )
        return
    require_torch()
    metrics.require_library()
    data = logs.chosen_log(config.cache_dir, data_folder, items, interactions)
    protocol.split(data)  # says that users are too few before the items are encoded
    choice = ""
    if model == AUTO:
        encoder, hidden, choice = _chosen(config, data, seed, pool)
        click.echo(choice, err=True)
    else:
        encoder = recipe.ENCODERS[model]
        hidden = kept_hidden_states(config, encoder, data.items, ray=pool)
    command = ["edge-reranker", "train", "--out", str(out), "--seed", str(seed)]
    about, default_name = card.MOVIELENS, recipe.NAMES[encoder.model]
    if items is not None and interactions is not None:
        command += ["--items", items.name, "--interactions", interactions.name]
        about = card.about(data, items=items.name, interactions=interactions.name)
        default_name = f"own-{encoder.model}"
    if model != DEFAULT_MODEL:
        command += ["--encoder", model]
    if name is not None:
        command += ["--name", name]
    adapter = None
    minutes = minutes or _MINUTES
    if finetune is not None:
        from edge_reranker.cli.finetune import finetuned
        from edge_reranker.cli.tiers import encoder_adapter
        from edge_reranker.training.finetune import SETTINGS
        from edge_reranker.training.loop import Until

        encoder = finetuned(
            config, encoder, data, hidden, out, SETTINGS[finetune], Until(60 * minutes), seed=seed
        )
        adapter = encoder_adapter(encoder, out)
        hidden = kept_hidden_states(config, encoder, data.items, adapter, pool)
        command += ["--finetune", finetune, "--minutes", f"{minutes:g}"]
    if cross is not None:
        command += ["--cross", cross, *(() if finetune else ("--minutes", f"{minutes:g}"))]
    trained = recipe.train(
        data,
        hidden,
        out,
        seed=seed,
        encoder=encoder,
        command=shlex.join(command),
        about=about,
        choice=choice,
        probes=hidden_states(config, encoder, recipe.PROBES, adapter),
        name=name or default_name,
        say=lambda line: click.echo(line, err=True),
    )
    click.echo(trained.report.as_text())
    pack = trained.pack
    if cross is not None:
        from edge_reranker.cli.cross import crossed
        from edge_reranker.training.loop import Until

        pack, found = crossed(config, data, pack, hidden, out, Until(60 * minutes), cross=cross, seed=seed)
        click.echo(found)
    click.echo(f"pack {pack.id} written to {out}")


def _require_room(out: Path) -> None:
    """Found out now, not after minutes of training."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InvalidArgument("--out", f"{there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InvalidArgument("--out", f"{there} cannot be written to; name another folder")


def _train_generic(
    config: Config,
    data_folder: Path | None,
    out: Path,
    model: str,
    not_with: tuple[object, ...],
    pool: RayPool | None,
) -> None:
    from edge_reranker.cli.hidden import hidden_states, kept_hidden_states
    from edge_reranker.evaluation import metrics
    from edge_reranker.training import generic, recipe

    if model != generic.ENCODER.model or any(not_with):
        raise InvalidArgument(
            "--generic",
            f"goes with the encoder {generic.ENCODER.model}; leave out log, name, seed, --finetune, --cross",
        )
    metrics.require_library()
    data = logs.chosen_log(config.cache_dir, data_folder, None, None)
    hidden = kept_hidden_states(config, recipe.ENCODERS[model], data.items, ray=pool)
    command = shlex.join(["edge-reranker", "train", "--generic", "--out", str(out)])
    probes = hidden_states(config, generic.ENCODER, recipe.PROBES)
    pack = generic.train(data, hidden, out, command=command, probes=probes)
    click.echo(f"pack {pack.id} written to {out}")


def _chosen(config: Config, data: Log, seed: int, ray: RayPool | None) -> tuple[Encoder, Any, str]:
    """Of the encoders on this device the best for ``data``, its hidden states, and the card's words."""
    from edge_reranker.cli.hidden import kept_hidden_states
    from edge_reranker.training import recipe
    from edge_reranker.training.choice import choose
    from edge_reranker.training.head import Recipe

    pulled = {file.name for file in ModelCache(config.cache_dir).files() if file.role == "encoder"}
    encoders = [each for each in recipe.ENCODERS.values() if each.model in pulled]
    if not encoders:
        raise Missing(f"no encoder on this device: edge-reranker model pull {DEFAULT_MODEL}")
    hidden_of = {
        each.model: kept_hidden_states(replace(config, model=each.model), each, data.items, ray=ray)
        for each in encoders
    }
    choice = choose(data, [(each, hidden_of[each.model]) for each in encoders], seed=seed, settings=Recipe())
    return choice.encoder, hidden_of[choice.encoder.model], choice.as_text()


@click.command()
@options.cache_dir
@options.data_set
@logs.log_files
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@click.option("--full", is_flag=True, help="The whole protocol; needs torch and some minutes.")
@click.option("--rounds", is_flag=True, help="Simulated feedback rounds: what learning gains; some minutes.")
@click.option("--mine", is_flag=True, help="Your own choices, from the running service: does it help you?")
@options.data_dir
@options.namespace
@options.as_json
@click.option(
    "--html",
    "html_file",
    type=options.Given(path_type=Path, dir_okay=False),
    help="File the report is written to as well, as one page with plots.",
)
def evaluate(
    data_folder: Path | None,
    items: Path | None,
    interactions: Path | None,
    full: bool,
    rounds: bool,
    mine: bool,
    namespace: str,
    as_json: bool,
    html_file: Path | None,
    **flags: Any,
) -> None:
    """Measure the pack on users it has never seen: NDCG@10 of a popularity server's top 100, reranked.

    With --mine, your own choices are replayed instead, and nothing of them leaves the device. With --rounds,
    feedback is simulated: nobody clicked.

    \b
    Example:
      edge-reranker data pull movielens-100k
      edge-reranker evaluate --html report.html
      edge-reranker evaluate --full
      edge-reranker evaluate --rounds --html rounds.html
      edge-reranker evaluate --mine --html mine.html
      edge-reranker evaluate --items items.jsonl --interactions log.parquet --pack my-pack
    """
    from edge_reranker.cli.hidden import kept_hidden_states
    from edge_reranker.cli.mine import report as report_mine
    from edge_reranker.cli.packs import pack_folder
    from edge_reranker.cli.tiers import adapter_of
    from edge_reranker.evaluation import metrics, protocol, report, run, sections

    if html_file is not None and not html_file.parent.is_dir():
        raise InvalidArgument("--html", f"{html_file.parent} is not a folder; make it first")
    if mine:
        if full or rounds or data_folder or items or interactions:
            raise InvalidArgument("--mine", "is of your own choices: leave out --full, --rounds and the log")
        report_mine(flags, namespace, as_json=as_json, html_file=html_file)
        return
    config = options.load_config(flags)
    metrics.require_library()
    pack = load_pack(pack_folder(config))
    data = logs.chosen_log(config.cache_dir, data_folder, items, interactions)
    protocol.split(data)  # says that users are too few before the items are encoded
    hidden = kept_hidden_states(config, pack.manifest.encoder, data.items, adapter_of(pack, "encoder"))
    if full or rounds:
        page, text = _tables(data, pack, hidden, full=full, rounds=rounds)
        plain: Mapping[str, Any] = page
    else:
        found = run.evaluate(data, pack, hidden)
        text, plain, page = found.as_text(), found.as_dict(), sections.of(found)
    click.echo(msgspec.json.encode(plain).decode() if as_json else text)
    if html_file is not None:
        html_file.write_text(report.html(page), encoding="utf-8")


def _tables(data: Log, pack: Pack, hidden: Any, *, full: bool, rounds: bool) -> tuple[Tables, str]:
    from edge_reranker.evaluation import simulated, table

    tables = _full(data, pack, hidden) if full else None
    if rounds:
        found = simulated.evaluate(data, pack, hidden, say=_say)
        tables = found if tables is None else table.joined(tables, found)
    if tables is None:
        raise AssertionError("neither was asked for")
    return tables, table.as_text(tables)


def _full(data: Log, pack: Pack, hidden: Any) -> Tables:
    from edge_reranker.evaluation import full
    from edge_reranker.training.head import require_torch
    from edge_reranker.training.retrain import Trainer

    require_torch()
    return full.evaluate(data, pack, hidden, Trainer(pack.manifest.taste), say=_say)


def _say(line: str) -> None:
    click.echo(line, err=True)
