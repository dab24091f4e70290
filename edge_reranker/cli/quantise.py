"""``quantize importance``, ``prune`` and ``quantise``: files made of a GGUF."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edge_reranker.cli import logs, options
from edge_reranker.errors import InvalidArgument

if TYPE_CHECKING:
    from edge_reranker.engine.activations import Observed
    from edge_reranker_quantize.importance import Text

_MOVIELENS = "movielens"
_GGUF = options.Given(path_type=Path, exists=True, dir_okay=False)
_texts = click.option(
    "--texts",
    default=_MOVIELENS,
    show_default=True,
    help="What the model reads: movielens, items (JSON lines), or plain text (a text a line).",
)
_force = click.option("--force", is_flag=True, help="Replace a file that is there already.")


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.argument("model", type=_GGUF)
@click.option("--out", type=options.Given(path_type=Path), required=True, help="The file to write.")
@_texts
@click.option(
    "--tokens", type=click.IntRange(1), default=8_192, show_default=True, help="Read at most so many."
)
@_force
@options.cache_dir
def importance(model: Path, out: Path, texts: str, tokens: int, force: bool, **flags: Any) -> None:
    """Measure on your kind of text which columns of MODEL matter, for `quantise --importance`.

    Measure on the file of the highest precision that you have. llama.cpp's tools read the result, too.

    \b
    Example:
      edge-reranker quantize importance F16.gguf --out importance.gguf
    """
    from edge_reranker.models.pull import atomic
    from edge_reranker_quantize import importance as measuring
    from edge_reranker_quantize import outputs

    outputs.check(out, model, force=force)
    found = _observed(model, texts, tokens, flags)
    with atomic(out) as part:
        measuring.write(part, found, Path(texts).name)
    click.echo(f"{out}: {len(found.columns)} tensors, over {found.n_tokens:,} tokens")


@click.command()
@click.argument("model", type=_GGUF)
@click.option("--keep", type=click.IntRange(1), help="Keep this many blocks, the first ones.")
@click.option("--drop", help="Drop these blocks, as in 3,10-19; the first is 0.")
@click.option("--influence", type=int, help="Drop this many blocks, those of least influence.")
@click.option("--out", type=options.Given(path_type=Path), help="The file to write; without, only the table.")
@click.option("--type", "type_", default="COPY", show_default=True, help="Its type; COPY leaves tensors be.")
@_texts
@click.option(
    "--tokens", type=click.IntRange(1), default=2_048, show_default=True, help="Read at most so many."
)
@_force
@options.cache_dir
@options.as_json
def prune(
    model: Path,
    keep: int | None,
    drop: str | None,
    influence: int | None,
    out: Path | None,
    type_: str,
    texts: str,
    tokens: int,
    force: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write MODEL with fewer blocks, or tell how much each block changes what goes through it.

    A block's influence is 1 less the mean cosine between a token's states before it and behind it.

    \b
    Example:
      edge-reranker quantize prune F16.gguf --influence 4 --out 26-blocks.gguf
    """
    from edge_reranker_quantize import outputs
    from edge_reranker_quantize import prune as pruning

    chosen = sum(each is not None for each in (keep, drop, influence))
    if chosen > 1:
        raise InvalidArgument("--keep, --drop and --influence", "are three ways to choose; give one of them")
    if bool(chosen) != (out is not None):
        raise InvalidArgument(
            "--out", "goes with one of --keep, --drop and --influence; give both, or neither"
        )
    blocks = pruning.blocks_of(drop) if drop is not None else []
    if out is not None:
        outputs.check(out, model, force=force)
    found: list[float] = []
    if influence is not None or not chosen:
        found, n_tokens = pruning.influence(_observed(model, texts, tokens, flags), model)
        _say(f"measured over {n_tokens:,} tokens")
    if influence is not None:
        blocks = pruning.least(found, influence)
    if out is not None:
        pruning.prune(model, out, n_blocks=keep, blocks=blocks, type_=type_)
    if as_json:
        told = {"influence": found, "dropped": blocks, "kept": keep, "out": out and str(out)}
        click.echo(msgspec.json.encode(told).decode())
        return
    for block, value in enumerate(found):
        click.echo(f"block {block:>3}  {value:7.4f}{'  dropped' if block in blocks else ''}")
    if out is not None:
        click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@click.command()
@click.argument("model", type=_GGUF)
@click.option("--type", "types", multiple=True, required=True, help="A type such as Q4_0; again for more.")
@click.option("--out", type=options.Given(path_type=Path), required=True, help="A folder, or a .gguf file.")
@click.option("--importance", "matrix", type=_GGUF, help="What `quantize importance` wrote.")
@click.option("--override", "overrides", multiple=True, help="PATTERN=TYPE for tensors so named; repeatable.")
@click.option("--pure", is_flag=True, help="Every tensor in the same type.")
@_force
@options.as_json
def quantise(
    model: Path,
    types: tuple[str, ...],
    out: Path,
    matrix: Path | None,
    overrides: tuple[str, ...],
    pure: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write MODEL in other types. Run again, it keeps the files that are there, whole and made the same way.

    \b
    Example:
      edge-reranker quantize quantise F16.gguf --type Q4_0 --type Q8_0 --out variants
      edge-reranker quantize quantise F16.gguf --type IQ4_NL --importance importance.gguf --out small.gguf
      edge-reranker quantize quantise F16.gguf --type Q4_0 --override attn_v=Q8_0 --out mixed.gguf
    """
    from edge_reranker.engine.quantiser import Progress
    from edge_reranker_quantize import quantise as quantising

    by_pattern = {}
    for override in overrides:
        pattern, equals, name = override.rpartition("=")
        if not (pattern and equals and name):
            raise InvalidArgument("--override", f"{override!r}; PATTERN=TYPE is wanted, as in attn_v=Q8_0")
        by_pattern[pattern] = name.upper()
    settings = quantising.Settings(matrix, by_pattern, pure)
    targets = quantising.targets_of(model, types, out)

    def progress(type_: str, at: Progress) -> None:
        if sys.stderr.isatty():
            click.echo(
                f"\r{type_}: {at.n_done} of {at.n_tensors} tensors", nl=at.n_done == at.n_tensors, err=True
            )

    made = quantising.quantise(model, targets, settings, _say, force=force, progress=progress)
    if as_json:
        click.echo(msgspec.json.encode(made, enc_hook=str).decode())
        return
    for each in made:
        click.echo(f"{each.path}  {each.type}  {each.size_bytes / 1e6:.1f} MB")


def _observed(model: Path, texts: str, tokens: int, flags: dict[str, Any]) -> Observed:
    from edge_reranker_quantize import importance as measuring

    chosen = _texts_of(model, texts, flags)
    told = 0

    def progress(n: int) -> None:
        nonlocal told
        if n - told >= 1_000:
            told = n
            _say(f"read {n:,} of up to {tokens:,} tokens")

    return measuring.measure(model, chosen, max_tokens=tokens, progress=progress)


def _texts_of(model: Path, texts: str, flags: dict[str, Any]) -> list[Text]:
    from edge_reranker_quantize import importance as measuring

    contexts = measuring.reads_contexts(model)
    if texts == _MOVIELENS:
        config = options.load_config(flags)
        return measuring.texts_of_log(logs.chosen_log(config.cache_dir, None, None, None), contexts=contexts)
    if not Path(texts).is_file():
        raise InvalidArgument("--texts", f"{texts!r} is no file; name one, or {_MOVIELENS}")
    return measuring.texts_of_file(Path(texts), contexts=contexts)
