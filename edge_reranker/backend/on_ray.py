"""Hidden states from Ray Data: actors on this machine or a cluster, each with a worker of its own."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_reranker.backend.encoder import Batch, Float32, Start
from edge_reranker.errors import EngineError, FailedPrecondition, Missing

_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # what is beyond goes to disk
_LONGEST_FOLDER = 30  # a Unix socket's path has 107 bytes, and Ray's own part of it about 70
# Ray asks for nothing and tells nobody; its own logs and bars stay out of the command's output.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def require_ray() -> None:
    """Raises Missing that names the extra when Ray Data is not installed."""
    os.environ.update(_SETTINGS)  # read on import, as are the next two
    if not _cluster():
        # Ray listens on every interface. The token is this run's only: Ray would keep one in the home.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise Missing(f"--ray: pip install 'edge-reranker[ray]' ({error})") from error


class OnRay:
    """Encoders on ``n_workers`` actors (None: as many as fit) that take ``n_threads`` processors each.

    On the cluster that RAY_ADDRESS names, else on a Ray of its own that ends with it.
    """

    def __init__(self, start: Start, n_workers: int | None, n_threads: int) -> None:
        """``start`` is called in each actor."""
        self._start = start
        self._n_workers = n_workers
        self._n_threads = n_threads
        self._stack = ExitStack()

    def __enter__(self) -> OnRay:
        """Starts Ray, or joins it. Raises Missing, FailedPrecondition."""
        require_ray()
        self._stack.enter_context(_ray((self._n_workers or 1) * self._n_threads))
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the actors, and Ray if it is our own."""
        self._stack.close()

    def states(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Float32]]:
        """See Encoders. The texts wait in Ray's store, which moves to disk what memory does not hold."""
        import pyarrow
        import ray
        import ray.data

        tables = [ray.put(_table(pyarrow, number, texts)) for number, texts in batches]
        if not tables:
            return
        n_workers = self._n_workers or max(1, int(ray.cluster_resources()["CPU"]) // self._n_threads)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        made = ray.data.from_arrow_refs(tables).map_batches(
            _Actor,
            fn_constructor_args=(self._start,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(n_workers, len(tables))),
            num_cpus=self._n_threads,
        )
        try:
            for found in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in found.to_pylist():
                    states = np.frombuffer(row["states"], "<f4").reshape(row["n_texts"], -1)
                    yield row["number"], states
        except ray.exceptions.RayError as error:
            raise EngineError(f"Ray: {_last_line(error)}") from error


class _Actor:
    """What runs in each of Ray's processes; the worker ends with it."""

    def __init__(self, start: Start) -> None:
        self._encoder = start()

    def __call__(self, batch: Any) -> Any:
        """A table of batches of texts to one of their hidden states."""
        import pyarrow

        numbers, texts = batch["number"].to_pylist(), batch["texts"].to_pylist()
        states = [self._encoder.encode(each).astype("<f4").tobytes() for each in texts]
        n_texts = [len(each) for each in texts]
        return pyarrow.table({"number": numbers, "n_texts": n_texts, "states": states})


def _table(pyarrow: Any, number: int, texts: Any) -> Any:
    return pyarrow.table({"number": [number], "texts": [list(texts)]})


@contextmanager
def _ray(n_cpus: int) -> Iterator[None]:
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = _cluster()
    with ExitStack() as stack:
        if address:
            try:
                with _signals_kept():
                    ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise FailedPrecondition(f"RAY_ADDRESS {address!r}: {_last_line(error)}") from error
        else:
            folder = stack.enter_context(_folder())
            with _signals_kept():
                ray.init(
                    address="local",
                    num_cpus=max(n_cpus, os.cpu_count() or 1),
                    object_store_memory=_OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    _temp_dir=str(folder),
                    **quiet,
                )
        stack.callback(ray.shutdown)
        yield


def _cluster() -> str:
    """The address of a Ray that runs already; empty to start one."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


@contextmanager
def _folder() -> Iterator[Path]:
    parent = tempfile.gettempdir()
    short = parent if len(parent) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108 - the folder in it is ours alone
    with tempfile.TemporaryDirectory(prefix="er-ray-", dir=short, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; the command's own handler cleans up."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
