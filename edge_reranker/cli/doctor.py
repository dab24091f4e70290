"""``doctor``: what is there, what is not, and what to do next."""

from __future__ import annotations

import contextlib
import importlib.util
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_reranker.cli import options
from edge_reranker.cli.doctor_backups import backups, quarantine
from edge_reranker.cli.finding import Finding
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.errors import AlreadyRunning, EdgeRerankerError, Missing, ModelInvalid
from edge_reranker.models import ModelCache, Pack, load_pack
from edge_reranker_client import EdgeReranker, messages
from edge_reranker_client import errors as client_errors

_TRY_MS = 30_000.0


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
    yield from _models(config)
    yield _pack(config)
    yield _private(config.data_dir)
    yield _key(config.data_dir)
    if not missing:
        yield _store(config)
        yield from backups(config)
        yield from quarantine(config)
        yield from _context(config)
    yield _service(config)


_PACKAGES = ("grpc", "llama_cpp", "numpy", "sqlcipher3", "sqlite_utils", "bm25s", "msgspec", "keyring")


def _models(config: Config) -> Iterator[Finding]:
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


def _pack(config: Config) -> Finding:
    from edge_reranker.cli.packs import pack_folder
    from edge_reranker.cli.wiring import encoder_file

    try:
        pack = load_pack(pack_folder(config))
    except EdgeRerankerError as error:
        return Finding("pack", False, str(error), "reinstall edge-reranker, or give a good --pack")
    encoder = pack.manifest.encoder
    if config.model == "none":
        return Finding("pack", True, pack.id)
    if config.model != encoder.model:
        way_out = f"give --model {encoder.model}, or a pack made for {config.model}"
        return Finding("pack", False, f"{pack.id} reads {encoder.model}, not {config.model}", way_out)
    with contextlib.suppress(Missing):  # the finding about the model says so
        try:
            encoder_file(config, encoder)
            _try_encoder(config, pack)
        except ModelInvalid as error:
            return Finding("pack", False, str(error), f"run `edge-reranker model pull {encoder.model}`")
    return Finding("pack", True, pack.id)


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


def _private(data_dir: Path) -> Finding:
    if not data_dir.exists():
        return Finding("data", True, f"{data_dir} (made by the first `serve`)")
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    return Finding("data", not mode & 0o077, f"{data_dir}, mode {mode:04o}", f"run `chmod 700 {data_dir}`")


def _key(data_dir: Path) -> Finding:
    database = data_dir / "store.db"
    if (data_dir / "key").exists():
        return Finding("key", True, f"in the file {data_dir / 'key'} (mode 0600): no OS keyring was used")
    if (data_dir / "key-id").exists():
        return Finding("key", True, "in the OS keyring")
    if database.exists() and database.stat().st_size:
        way_out = (
            f"put back {data_dir / 'key'}, run `edge-reranker key import FILE`, "
            f"or move {database} away to start empty"
        )
        return Finding("key", False, f"lost: {database} cannot be read without it", way_out)
    return Finding("key", True, "made by the first `serve`")


def _store(config: Config) -> Finding:
    from edge_reranker.server import InstanceLock
    from edge_reranker.store import inspect_store

    database = config.data_dir / "store.db"
    if not config.data_dir.exists():
        return Finding("store", True, "made by the first `serve`")
    try:
        # With the lock no service can start meanwhile: its checkpoints would look like damage.
        with InstanceLock(config.data_dir):
            problems = inspect_store(config.data_dir, key_source=config.key_source)
    except AlreadyRunning:
        return Finding("store", True, "held by the service; stop that to have every page checked")
    except EdgeRerankerError as error:
        return Finding("store", False, str(error), str(error))  # it says what to do by itself
    except OSError as error:
        problem = f"{error.filename or config.data_dir}: {error.strerror}"
        way_out = f"see to it that you can write to {config.data_dir}"
        return Finding("store", False, problem, way_out)
    if not problems:
        made = database.exists()
        return Finding(
            "store", True, f"{database}, every page checked" if made else "made by the first `serve`"
        )
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    way_out = f"run `edge-reranker backup restore`, or move {database} away to start empty"
    return Finding("store", False, problems[0] + more, way_out)


def _context(config: Config) -> Iterator[Finding]:
    """Whether the saved model state can be used; no word of it where there is none, or it cannot be read."""
    from edge_reranker.cli.packs import pack_folder
    from edge_reranker.cli.wiring import prefix_fingerprint
    from edge_reranker.server import InstanceLock
    from edge_reranker.store import kept_fingerprint

    if not (config.data_dir / "store.db").exists():
        return
    try:
        with InstanceLock(config.data_dir):
            kept = kept_fingerprint(config.data_dir, key_source=config.key_source)
    except (EdgeRerankerError, OSError):
        return  # another finding says so
    if not kept:
        return
    same = False
    with contextlib.suppress(EdgeRerankerError):  # no such model, or no pack: then it is of another
        same = kept == prefix_fingerprint(config, load_pack(pack_folder(config)))
    again = "of another model, pack, mode or version: the next start reads the user's events again"
    yield Finding("context", True, "saved, for this model" if same else f"saved, but {again}")


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
