"""What ``doctor`` says of the data directory: its key, its database, and the model state in it."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

from edge_reranker.cli.finding import Finding
from edge_reranker.config import Config
from edge_reranker.errors import AlreadyRunning, EdgeRerankerError
from edge_reranker.models import load_pack


def private(data_dir: Path) -> Finding:
    """Whether the data directory is closed to others."""
    if not data_dir.exists():
        return Finding("data", True, f"{data_dir} (made by the first `serve`)")
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    return Finding("data", not mode & 0o077, f"{data_dir}, mode {mode:04o}", f"run `chmod 700 {data_dir}`")


def key(data_dir: Path) -> Finding:
    """Where the key is."""
    database = data_dir / "store.db"
    key_file = data_dir / "key"
    if key_file.exists():
        mode = stat.S_IMODE(key_file.stat().st_mode)
        detail = f"in the file {key_file} (mode {mode:04o}): no OS keyring was used"
        return Finding("key", not mode & 0o077, detail, f"run `chmod 600 {key_file}`")
    if (data_dir / "key-id").exists():
        return Finding("key", True, "in the OS keyring")
    if database.exists() and database.stat().st_size:
        way_out = (
            f"put back {data_dir / 'key'}, run `edge-reranker key import FILE`, "
            f"or move {database} away to start empty"
        )
        return Finding("key", False, f"lost: {database} cannot be read without it", way_out)
    return Finding("key", True, "made by the first `serve`")


def store(config: Config) -> Finding:
    """Whether every page of the database is sound."""
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


def context(config: Config) -> Iterator[Finding]:
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
