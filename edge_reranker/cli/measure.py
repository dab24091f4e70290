"""``quantize measure`` and ``quantize pick``: which type of a model suits this device."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edge_reranker.cli import logs, options
from edge_reranker.errors import FailedPrecondition, InvalidArgument
from edge_reranker.models import ModelCache, load_pack
from edge_reranker.models.catalogue import DEFAULT_MODEL, MODELS

if TYPE_CHECKING:
    from edge_reranker.config import Config
    from edge_reranker_quantize.measure import Subject
    from edge_reranker_quantize.variants import Source

_ROLES = ("encoder", "scorer")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _split(_context: click.Context, _option: click.Parameter, given: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (given or "").split(",")))


@click.command()
@click.argument("model")
@click.option(
    "--role", type=click.Choice(_ROLES), default="scorer", show_default=True, help="What the model does."
)
@click.option(
    "--types", callback=_split, help="Types, with commas between them; default: a ladder of twelve."
)
@click.option(
    "--requests", type=click.IntRange(1), default=200, show_default=True, help="Most that a scorer ranks."
)
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds that speed is taken in."
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="A scorer ranks as many requests as fit, 30 at the least.",
)
@click.option("--out", type=options.Given(path_type=Path), help="Folder for report.json and plot.svg.")
@options.cache_dir
@options.data_set
@logs.log_files
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@options.as_json
def measure(
    model: str,
    role: str,
    types: tuple[str, ...],
    requests: int,
    rounds: int,
    max_minutes: float,
    out: Path | None,
    data_folder: Path | None,
    items: Path | None,
    interactions: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Compare types of MODEL (a name in the catalogue, or a GGUF file) in one run: size, speed, rankings.

    \b
    Example:
      edge-reranker quantize measure smollm2-135m --out report
      edge-reranker quantize measure minilm --role encoder --types Q8_0,Q4_0
    """
    from edge_reranker.deadline import Deadline
    from edge_reranker.engine.quantiser import QUANTISATIONS, derive
    from edge_reranker.evaluation import metrics
    from edge_reranker_quantize import measure as measuring
    from edge_reranker_quantize import plot, variants

    deadline = Deadline.after_ms(max_minutes * 60_000)
    metrics.require_library()
    config = options.load_config(flags)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    data = logs.chosen_log(config.cache_dir, data_folder, items, interactions)
    with _source(config, model, role) as source, tempfile.TemporaryDirectory(prefix="er-quantize-") as folder:
        found = variants.make(source, types or variants.LADDER, QUANTISATIONS, Path(folder), derive, _say)
        report = measuring.measure(
            *(source, found, _subject(config, model, role, data), _say, deadline),
            n_requests=requests,
            n_rounds=rounds,
        )
    plain = msgspec.json.encode(report).decode()
    if out is not None:
        (out / "report.json").write_text(plain + "\n", encoding="utf-8")
        (out / "plot.svg").write_text(plot.svg(report), encoding="utf-8")
    click.echo(plain if as_json else measuring.as_text(report))


@click.command()
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--role", type=click.Choice(_ROLES), help="What the model does; default: what it can.")
@click.option(
    "--types", callback=_split, help="Types to choose from, with commas between them; default: ten."
)
@click.option("--memory-mb", type=click.IntRange(1), help="The most memory for a worker; default: no bound.")
@click.option(
    "--max-minutes",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Ends then.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be picked, and change nothing.")
@options.cache_dir
@options.data_set
@logs.log_files
@options.pack
@click.option("--threads", "n_threads", type=int, help="Threads for the model.")
@options.as_json
def pick(
    model: str,
    role: str | None,
    types: tuple[str, ...],
    memory_mb: int | None,
    max_minutes: float,
    dry_run: bool,
    data_folder: Path | None,
    items: Path | None,
    interactions: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Find the fastest type of MODEL that ranks as half precision does here, and use it from now on.

    The choice goes into device.toml beside the models, where `model pull` and `serve` read it. Ends with
    exit code 4 where nothing could be picked.

    \b
    Example:
      edge-reranker quantize pick smollm2-135m --dry-run
      edge-reranker quantize pick minilm --role encoder --memory-mb 120
    """
    from edge_reranker.deadline import Deadline
    from edge_reranker.engine.quantiser import QUANTISATIONS, derive
    from edge_reranker.evaluation import metrics
    from edge_reranker.models.device_types import Picked
    from edge_reranker_quantize import pick as picking
    from edge_reranker_quantize import variants

    deadline = Deadline.after_ms(max_minutes * 60_000)
    metrics.require_library()
    config = options.load_config(flags)
    if model not in MODELS and not dry_run:
        raise InvalidArgument(
            "model", f"{model!r} is not in the catalogue, so nothing would read the choice; use --dry-run"
        )
    if role is None:
        role = MODELS[model].variants[-1].role if model in MODELS else "scorer"
    data = logs.chosen_log(config.cache_dir, data_folder, items, interactions)
    with _source(config, model, role) as source, tempfile.TemporaryDirectory(prefix="er-quantize-") as folder:
        found = variants.make(source, types or picking.TYPES, QUANTISATIONS, Path(folder), derive, _say)
        choice = picking.pick(
            *(source, found, _subject(config, model, role, data), _say, deadline),
            memory_bytes=(memory_mb or 0) * 1_000_000,
        )
    click.echo(msgspec.json.encode(choice).decode() if as_json else picking.as_text(choice))
    chosen = choice.of_picked
    if chosen is None or chosen.rankings is None:
        raise click.exceptions.Exit(4)
    if not dry_run:
        cache = ModelCache(config.cache_dir)
        picked = Picked(
            chosen.type,
            choice.baseline,
            round(chosen.speed.to_baseline, 3),
            round(chosen.rankings.tau.mean, 4),
            choice.machine.processor,
        )
        _say(f"noted in {cache.pick(model, role, picked)}")
        cache.pull(model, derive, _say)


@contextlib.contextmanager
def _source(config: Config, model: str, role: str) -> Iterator[Source]:
    from edge_reranker_quantize.variants import Source

    if model not in MODELS:
        path = Path(model)
        if not path.is_file():
            raise InvalidArgument(
                "model", f"{model!r} is neither a file nor in the catalogue: {', '.join(sorted(MODELS))}"
            )
        yield Source(path.stem, path)
        return
    cache = ModelCache(config.cache_dir)
    variant = next((each for each in cache.variants(model) if each.role == role), None)
    if variant is None:
        roles = " or ".join(each.role for each in MODELS[model].variants)
        raise InvalidArgument("--role", f"{model} is no {role}; it can be {roles}")
    with cache.original(model, _say) as path:
        yield Source(model, path, variant.n_blocks, as_it_came=MODELS[model].holds == "gguf")


def _subject(config: Config, model: str, role: str, data: Any) -> Subject:
    from edge_reranker.cli.packs import pack_folder
    from edge_reranker.cli.wiring import n_threads
    from edge_reranker_quantize.measure import Subject

    if role == "scorer":
        return Subject("scorer", data, n_threads(config))
    pack = load_pack(pack_folder(config))
    encoder = pack.manifest.encoder
    if model in MODELS and encoder.model != model:
        raise FailedPrecondition(
            f"pack {pack.id} reads {encoder.model}, not {model}; name one that reads it with --pack"
        )
    return Subject("encoder", data, n_threads(config), encoder, pack)
