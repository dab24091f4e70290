"""``quantize``: the commands that make model files and measure them."""

from __future__ import annotations

import click

from edge_reranker.cli.convert import convert
from edge_reranker.cli.measure import measure, pick
from edge_reranker.cli.quantise import importance, prune, quantise


@click.group()
def quantize() -> None:
    """Make the model file that this device should run, and prove that it ranks the same.

    \b
    Example:
      edge-reranker quantize pick smollm2-135m --dry-run
    """


for command in (convert, importance, quantise, prune, measure, pick):
    quantize.add_command(command)
