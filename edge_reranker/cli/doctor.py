"""``doctor``: what is there, what is not, and what to do next."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_reranker.cli import doctor_backups, doctor_model, doctor_privacy, doctor_store, options
from edge_reranker.cli.finding import Finding
from edge_reranker.config import Config
from edge_reranker_client import EdgeReranker, messages
from edge_reranker_client import errors as client_errors


@click.command()
@options.data_dir
@options.cache_dir
@options.config_file
@options.pack
@click.option("--model", help="The model that should be there.")
@options.as_json
def doctor(config_file: Path | None, as_json: bool, **flags: Any) -> None:
    """Check the installation; ends with what to do next. Exit code 4 when something is missing.

    \b
    Example:
      edge-reranker doctor
    """
    config = options.load_config(flags, file=config_file)
    findings = list(_look(config))
    wrong = [finding for finding in findings if not finding.ok]
    if as_json:
        click.echo(msgspec.json.encode(findings).decode())
    else:
        for finding in findings:
            click.echo(f"{'ok' if finding.ok else '!!'}  {finding.what:<12} {finding.detail}")
        click.echo(f"Next: {wrong[0].next if wrong else 'nothing; all is well'}")
    if wrong:
        raise click.exceptions.Exit(4)


def _look(config: Config) -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or later")
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    detail = f"missing: {', '.join(missing)}" if missing else "all there"
    yield Finding("packages", not missing, detail, "run `pip install 'edge-reranker[device]'`")
    yield from doctor_model.models(config)
    yield doctor_model.pack(config)
    yield doctor_store.private(config.data_dir)
    yield doctor_store.key(config.data_dir)
    if not missing:
        yield doctor_store.store(config)
        yield from doctor_backups.backups(config)
        yield from doctor_backups.quarantine(config)
        yield from doctor_store.context(config)
        yield from doctor_privacy.encrypted(config.data_dir)
    yield doctor_privacy.files(config.data_dir)
    yield from doctor_privacy.service(config)
    yield from doctor_privacy.swap()
    yield _service(config)


_PACKAGES = ("grpc", "llama_cpp", "numpy", "sqlcipher3", "sqlite_utils", "bm25s", "msgspec", "keyring")


def _service(config: Config) -> Finding:
    with EdgeReranker(socket=config.socket, data_dir=config.data_dir, owner=True, timeout_s=5) as client:
        if not client.healthy():
            return Finding(
                "service", False, f"nothing answers at {config.socket}", "run `edge-reranker serve`"
            )
        try:
            found = client.models_message()
        except client_errors.EdgeRerankerError as error:
            return Finding("service", False, str(error), "give the --data-dir that the service uses")
    models = [messages.model_of(each) for each in found.models]
    states = ", ".join(f"{model.name} {model.role} {model.state}" for model in models)
    if any(model.state == "FAILED" for model in models):
        return Finding("service", False, states, "run `edge-reranker model verify`, then start it again")
    if not found.pack:
        return Finding("service", False, "its pack cannot be used", "start it again with a good --pack")
    said = (f"answers at {config.socket}", f"pack {found.pack}", states)
    return Finding("service", True, "; ".join(filter(None, said)))
