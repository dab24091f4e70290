"""Who makes hidden states for a command: a worker here, or many through Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from edge_reranker.config import Config
from edge_reranker.errors import InvalidArgument
from edge_reranker.models import ModelCache
from edge_reranker.models.pack import Encoder

if TYPE_CHECKING:
    from edge_reranker.backend.encoder import Encoders, ItemEncoder
    from edge_reranker.engine import Adapter


@dataclasses.dataclass(frozen=True, slots=True)
class RayPool:
    """What --ray asks for; None is as many workers as the cluster has room for."""

    n_workers: int | None = None


def encoders(
    config: Config, encoder: Encoder, adapter: Adapter | None, ray: RayPool | None = None
) -> AbstractContextManager[Encoders]:
    """Whoever makes this encoder's hidden states. Raises Missing, ModelInvalid."""
    from edge_reranker.backend.encoder import Here

    file, _ = ModelCache(config.cache_dir).open(encoder.model, "encoder")
    if ray is None:
        return Here(partial(start_encoder, config, encoder, adapter))
    from edge_reranker.backend.on_ray import OnRay

    # One thread a worker, for a text is a short decode; and on every machine the very file that is here.
    config = dataclasses.replace(config, n_threads=config.n_threads or 1)
    pinned = dataclasses.replace(encoder, sha256=file.sha256)
    return OnRay(partial(start_encoder, config, pinned, adapter), ray.n_workers, config.n_threads)


def start_encoder(config: Config, encoder: Encoder, adapter: Adapter | None) -> ItemEncoder:
    """A worker that has loaded its model. Raises Missing, ModelInvalid, EngineError."""
    from edge_reranker.backend.encoder import ItemEncoder
    from edge_reranker.cli.wiring import encoder_engine

    return ItemEncoder(encoder_engine(config, encoder), adapter)


def ray_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --ray and --ray-workers."""
    for option in (
        click.option(
            "--ray-workers", type=int, help="How many encode at once with --ray; default: as many as fit."
        ),
        click.option(
            "--ray", "on_ray", is_flag=True, help="Encode on Ray Data; RAY_ADDRESS names a cluster."
        ),
    ):
        command = option(command)
    return command


def ray_pool(on_ray: bool, ray_workers: int | None) -> RayPool | None:
    """What the two options ask for. Raises InvalidArgument, and Missing without Ray."""
    if not on_ray:
        if ray_workers is not None:
            raise InvalidArgument("--ray-workers", "goes with --ray; give both, or neither")
        return None
    if ray_workers is not None and ray_workers < 1:
        raise InvalidArgument("--ray-workers", f"{ray_workers}; must be 1 or more")
    from edge_reranker.backend.on_ray import require_ray

    require_ray()
    return RayPool(ray_workers)
