"""Which log ``train`` and ``evaluate`` read: MovieLens-100K, or files of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_reranker.cli import options
from edge_reranker.errors import InvalidArgument
from edge_reranker.models.catalogue import DATASETS, find

if TYPE_CHECKING:
    from edge_reranker.evaluation.log import Log

_MOVIELENS = "movielens-100k"


def log_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --items and --interactions."""
    path = options.Given(path_type=Path, exists=True, dir_okay=False)
    for option in (
        click.option(
            "--interactions",
            type=path,
            help="Log of your own: user_id, item_id, occurred_at, and type or rating; JSON lines or Parquet.",
        ),
        click.option("--items", type=path, help="Its items: id, title, text, tags, attributes; JSON lines."),
    ):
        command = option(command)
    return command


def chosen_log(cache_dir: Path, folder: Path | None, items: Path | None, interactions: Path | None) -> Log:
    """The log in the two files if they are given, else MovieLens-100K, in ``folder`` if that is given."""
    from edge_reranker.evaluation import movielens, read_log

    if items is not None and interactions is not None:
        if folder is not None:
            raise InvalidArgument("--data", "is MovieLens-100K's folder; leave it out with --items")
        return read_log.read(items, interactions)
    if items is not None or interactions is not None:
        raise InvalidArgument("--items and --interactions", "belong together: give both, or neither")
    return movielens.load(folder or cache_dir / "data" / find(DATASETS, _MOVIELENS).name)
