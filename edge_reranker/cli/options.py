"""What every command shares: where things are, and how the config is put together."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import platformdirs

from edge_reranker import config as settings
from edge_reranker.config import Config
from edge_reranker.models.catalogue import DEFAULT_MODEL
from edge_reranker_client import EdgeReranker, discovery

_Command = Callable[..., Any]


class Given(click.Path):
    """A path; "" is refused, which Python takes for the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; fails for an empty one."""
        if value == "":
            self.fail("an empty path; leave the option out, or name a path", param, ctx)
        return super().convert(value, param, ctx)


def data_dir(command: _Command) -> _Command:
    """Adds --data-dir and --socket."""
    for option in (
        click.option("--socket", type=Given(path_type=Path), help="Unix socket of the service."),
        click.option(
            "--data-dir",
            type=Given(path_type=Path, file_okay=False),
            help="Where events, key and tokens are kept.",
        ),
    ):
        command = option(command)
    return command


def cache_dir(command: _Command) -> _Command:
    """Adds --cache-dir."""
    return click.option(
        "--cache-dir",
        type=Given(path_type=Path, file_okay=False),
        help="Where models and data sets are kept.",
    )(command)


def pack(command: _Command) -> _Command:
    """Adds --pack."""
    return click.option(
        "--pack",
        type=Given(path_type=Path),
        help="Folder of a pack, or the name of one that ships; default: movielens-minilm.",
    )(command)


def data_set(command: _Command) -> _Command:
    """Adds --data."""
    return click.option(
        "--data", "data_folder", type=Given(path_type=Path), help="Folder of MovieLens-100K."
    )(command)


def input_file(command: _Command) -> _Command:
    """Adds FILE: UTF-8, with or without a byte order mark."""
    return click.argument("file", type=click.File(encoding="utf-8-sig"))(command)


def config_file(command: _Command) -> _Command:
    """Adds --config."""
    return click.option(
        "--config",
        "config_file",
        type=Given(path_type=Path, dir_okay=False),
        help="TOML file with settings.",
    )(command)


def namespace(command: _Command) -> _Command:
    """Adds --namespace."""
    return click.option("--namespace", default="", help="Whose part of the store; default: the token's own.")(
        command
    )


def passphrase_file(command: _Command) -> _Command:
    """Adds --passphrase-file."""
    return click.option(
        "--passphrase-file",
        type=Given(path_type=Path, dir_okay=False, exists=True),
        help="File whose first line is the passphrase; without it, it is asked for.",
    )(command)


def key_source(command: _Command) -> _Command:
    """Adds --key-source."""
    return click.option("--key-source", help='"auto": the OS keyring, else a key file. "file": a key file.')(
        command
    )


def as_json(command: _Command) -> _Command:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def load_config(flags: dict[str, Any], *, file: Path | None = None) -> Config:
    """Flags over environment over file over defaults."""
    defaults = {
        "data_dir": discovery.default_data_dir(),
        "cache_dir": Path(platformdirs.user_cache_dir("edge-reranker", appauthor=False)),
        "model": DEFAULT_MODEL,
    }
    return settings.load(flags, os.environ, defaults, file=file)


def connect(flags: dict[str, Any], *, owner: bool = False) -> EdgeReranker:
    """A client of the service that the flags name."""
    config = load_config(flags)
    return EdgeReranker(socket=config.socket, data_dir=config.data_dir, owner=owner)
