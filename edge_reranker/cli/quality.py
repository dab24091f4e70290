"""``train`` and ``evaluate``: packs, and what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from edge_reranker.cli import logs, options
from edge_reranker.models import load_pack
from edge_reranker.models.catalogue import DEFAULT_MODEL


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
    type=click.Choice(["smollm2"]),
    default="smollm2",
    show_default=True,
    help="The model that reads items.",
)
@click.option("--name", help="Name of the pack: lower-case letters, digits and dashes.")
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
def train(
    data_folder: Path | None,
    items: Path | None,
    interactions: Path | None,
    out: Path,
    seed: int,
    encoder: str,
    name: str | None,
    **flags: Any,
) -> None:
    """Train a pack on a log of yours, or on MovieLens-100K: towers, fusion prior, a card with honest figures.

    \b
    Example:
      edge-reranker train --items items.jsonl --interactions log.parquet --out my-pack
      edge-reranker train --out packs/movielens-smollm2
    """
    from edge_reranker.cli.hidden import kept_hidden_states
    from edge_reranker.evaluation import protocol
    from edge_reranker.training import card, recipe
    from edge_reranker.training.head import require_torch

    config = options.load_config({**flags, "model": DEFAULT_MODEL})
    require_torch()
    data = logs.chosen_log(config.cache_dir, data_folder, items, interactions)
    protocol.split(data)  # says that users are too few before the items are encoded
    hidden = kept_hidden_states(config, recipe.SMOLLM2, data.items)
    command = f"edge-reranker train --out {out} --seed {seed}"
    about = card.MOVIELENS
    if items is not None and interactions is not None:
        command += f" --items {items.name} --interactions {interactions.name} --encoder {encoder}"
        about = card.about(data, items=items.name, interactions=interactions.name)
    default_name = recipe.NAME if items is None else f"own-{encoder}"
    trained = recipe.train(
        data, hidden, out, seed=seed, command=command, about=about, name=name or default_name
    )
    click.echo(trained.report.as_text())
    click.echo(f"pack {trained.pack.id} written to {out}")


@click.command()
@options.cache_dir
@options.data_set
@logs.log_files
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@options.as_json
def evaluate(
    data_folder: Path | None, items: Path | None, interactions: Path | None, as_json: bool, **flags: Any
) -> None:
    """Measure the pack on users it has never seen: NDCG@10 of a popularity server's top 100, reranked.

    \b
    Example:
      edge-reranker data pull movielens-100k
      edge-reranker evaluate
      edge-reranker evaluate --items items.jsonl --interactions log.parquet --pack my-pack
    """
    from edge_reranker.cli.hidden import kept_hidden_states
    from edge_reranker.cli.wiring import adapter_of, pack_folder
    from edge_reranker.evaluation import protocol, run

    config = options.load_config(flags)
    pack = load_pack(pack_folder(config))
    data = logs.chosen_log(config.cache_dir, data_folder, items, interactions)
    protocol.split(data)  # says that users are too few before the items are encoded
    hidden = kept_hidden_states(config, pack.manifest.encoder, data.items, adapter_of(pack, "encoder"))
    report = run.evaluate(data, pack, hidden)
    click.echo(msgspec.json.encode(report.as_dict()).decode() if as_json else report.as_text())
