"""``train`` and ``evaluate``: packs, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edge_reranker.cli import options
from edge_reranker.cli.encoders import ray_options, ray_pool
from edge_reranker.errors import InvalidArgument
from edge_reranker.models import load_pack
from edge_reranker.models.catalogue import DATASETS, DEFAULT_MODEL, find

if TYPE_CHECKING:
    from edge_reranker.evaluation.movielens import MovieLens
    from edge_reranker.evaluation.table import Tables
    from edge_reranker.models.pack import Pack

_MOVIELENS = "movielens-100k"


def _data_folder(cache_dir: Path, chosen: Path | None) -> Path:
    return chosen or cache_dir / "data" / find(DATASETS, _MOVIELENS).name


@click.command()
@options.cache_dir
@options.data_set
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
@click.option("--encoder", "name", default=DEFAULT_MODEL, show_default=True, help="What reads the items.")
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@ray_options
def train(
    data_folder: Path | None,
    out: Path,
    seed: int,
    name: str,
    on_ray: bool,
    ray_workers: int | None,
    **flags: Any,
) -> None:
    """Train a pack on MovieLens-100K: two towers, fusion prior, and a card with honest figures.

    \b
    Example:
      edge-reranker train --out packs/movielens-smollm2
    """
    from edge_reranker.cli.hidden import kept_hidden_states
    from edge_reranker.evaluation import metrics, movielens
    from edge_reranker.training import recipe
    from edge_reranker.training.head import require_torch

    encoder = recipe.ENCODERS.get(name)
    if encoder is None:
        raise InvalidArgument("encoder", f"{name!r}; there are {', '.join(recipe.ENCODERS)}")
    config = options.load_config({**flags, "model": name})
    pool = ray_pool(on_ray, ray_workers)
    require_torch()
    metrics.require_library()
    data = movielens.load(_data_folder(config.cache_dir, data_folder))
    hidden = kept_hidden_states(config, encoder, data.items, ray=pool)
    command = f"edge-reranker train --out {out} --seed {seed}"
    if encoder is not recipe.SMOLLM2:
        command += f" --encoder {name}"
    pack = recipe.NAMES[name]
    trained = recipe.train(data, hidden, out, seed=seed, encoder=encoder, name=pack, command=command)
    click.echo(trained.report.as_text())
    click.echo(f"pack {trained.pack.id} written to {out}")


@click.command()
@options.cache_dir
@options.data_set
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@click.option("--full", is_flag=True, help="The whole protocol; needs torch and some minutes.")
@options.as_json
@click.option(
    "--html",
    "html_file",
    type=options.Given(path_type=Path, dir_okay=False),
    help="File the report is written to as well, as one page with plots.",
)
def evaluate(
    data_folder: Path | None, full: bool, as_json: bool, html_file: Path | None, **flags: Any
) -> None:
    """Measure the pack on users it has never seen: NDCG@10 of a popularity server's top 100, reranked.

    \b
    Example:
      edge-reranker data pull movielens-100k
      edge-reranker evaluate --html report.html
      edge-reranker evaluate --full
    """
    from edge_reranker.cli.hidden import kept_hidden_states
    from edge_reranker.cli.tiers import adapter_of
    from edge_reranker.cli.wiring import pack_folder
    from edge_reranker.evaluation import metrics, movielens, report, run, sections

    config = options.load_config(flags)
    metrics.require_library()
    if html_file is not None and not html_file.parent.is_dir():
        raise InvalidArgument("--html", f"{html_file.parent} is not a folder; make it first")
    pack = load_pack(pack_folder(config))
    data = movielens.load(_data_folder(config.cache_dir, data_folder))
    hidden = kept_hidden_states(config, pack.manifest.encoder, data.items, adapter_of(pack, "encoder"))
    if full:
        page, text = _full(data, pack, hidden)
        plain: Mapping[str, Any] = page
    else:
        found = run.evaluate(data, pack, hidden)
        text, plain, page = found.as_text(), found.as_dict(), sections.of(found)
    click.echo(msgspec.json.encode(plain).decode() if as_json else text)
    if html_file is not None:
        html_file.write_text(report.html(page), encoding="utf-8")


def _full(data: MovieLens, pack: Pack, hidden: Any) -> tuple[Tables, str]:
    from edge_reranker.evaluation import full, table
    from edge_reranker.training.head import require_torch
    from edge_reranker.training.retrain import Trainer

    require_torch()
    trainer = Trainer(pack.manifest.taste)
    tables = full.evaluate(data, pack, hidden, trainer, say=lambda line: click.echo(line, err=True))
    return tables, table.as_text(tables)
