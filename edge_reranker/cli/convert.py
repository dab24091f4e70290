"""``quantize convert``: a published model or any GGUF to a GGUF of plain numbers."""

from __future__ import annotations

from pathlib import Path

import click

from edge_reranker.cli import options

_TYPES = ("F16", "BF16", "F32")


@click.command()
@click.argument("source", type=options.Given(path_type=Path, exists=True))
@click.option("--out", type=options.Given(path_type=Path), required=True, help="GGUF file to write.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(_TYPES, case_sensitive=False),
    default="F16",
    show_default=True,
    help="What matrices are stored as; BF16 and F32 hold what is beyond F16.",
)
@click.option("--pre", help="llama.cpp's name of the pre-tokenizer, where it is not recognised.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@options.as_json
def convert(source: Path, out: Path, kind: str, pre: str | None, force: bool, as_json: bool) -> None:
    """Make a GGUF of plain numbers from SOURCE, the beginning of every other type.

    SOURCE is a folder of safetensors with config.json and tokenizer (Llama, SmolLM2, Qwen2, Qwen3, BERT),
    or any GGUF. It is only read. Tokenizer, chat template and metadata are kept.

    \b
    Example:
      edge-reranker quantize convert ./SmolLM2-135M-Instruct --out smollm2-F16.gguf
    """
    import msgspec

    from edge_reranker_quantize.convert import convert as make

    made = make(source, out, kind=kind, pre=pre, force=force)
    if as_json:
        click.echo(msgspec.json.encode(made, enc_hook=str).decode())
        return
    click.echo(
        f"{made.path}: {made.architecture}, {made.n_tensors} tensors as {made.type}, "
        f"{made.size_bytes / 1e6:.1f} MB"
    )
