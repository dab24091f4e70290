"""``serve``: the service, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from pathlib import Path
from typing import Any

import click

from edge_reranker.cli import options
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline


@click.command()
@options.data_dir
@options.cache_dir
@options.config_file
@click.option("--model", help='Catalogue name of the model; "none" runs the tiers that need no model.')
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@click.option("--nice", type=int, help="Niceness of the model, 0 to 19: how far other programs go first.")
@click.option("--budget-ms", "default_budget_ms", type=float, help="Time a request gets that asks for none.")
@click.option("--key-source", help='"auto": the OS keyring, else a key file. "file": a key file.')
@click.option("--reflection", is_flag=True, help="Offer gRPC reflection, for development.")
def serve(config_file: Path | None, reflection: bool, **flags: Any) -> None:
    """Answer apps on a unix socket until stopped (Ctrl-C or SIGTERM).

    \b
    Example:
      edge-reranker serve
      edge-reranker serve --model none --data-dir /tmp/try
    """
    config = options.load_config(flags, file=config_file)
    # The process holds the user's events in memory: no part of it may land in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where tqdm is installed, bm25s would start its thread, which wakes up every ten seconds.
    os.environ["DISABLE_TQDM"] = "1"
    asyncio.run(_serve(config, reflection=reflection))


_LOAD_MS = 15_000.0


async def _serve(config: Config, *, reflection: bool) -> None:
    from edge_reranker.cli.wiring import open_device
    from edge_reranker.server import InstanceLock, Server
    from edge_reranker.store import mark_told

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_ in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_, stopping.set)
    with InstanceLock(config.data_dir) as lock:
        device = open_device(config)
        try:
            # The model is loaded before the first call is taken: nobody gets a lesser order for being early.
            problems = await asyncio.to_thread(device.settle, Deadline.after_ms(_LOAD_MS))
            for problem in (*problems, *mark_told(config.data_dir)):
                click.echo(f"warning: {problem}", err=True)
            server = Server(
                device.pipeline,
                data_dir=config.data_dir,
                socket_path=config.socket,
                default_budget_ms=config.default_budget_ms,
                margin_ms=config.margin_ms,
                reflection=reflection,
                lock=lock,
            )
            await server.start()
            # What was loaded so far stays: a collection that walked over it would hold up a request by 20 ms.
            gc.collect()
            gc.freeze()
            click.echo(f"serving on {config.socket} (model: {config.model})", err=True)
            try:
                await stopping.wait()
            finally:
                await server.stop()
        finally:
            device.close()
