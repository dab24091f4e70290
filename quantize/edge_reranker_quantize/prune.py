"""A model with fewer blocks, as it is or to train from."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from edge_reranker.engine.activations import Observed, observe
from edge_reranker.engine.quantiser import COPY, derive
from edge_reranker.errors import InvalidArgument, ModelInvalid
from edge_reranker.models.gguf_header import check_header
from edge_reranker.models.pull import atomic
from edge_reranker.types import Piece

_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


def blocks_of(text: str) -> list[int]:
    """The blocks that "3,10-19" names. Raises InvalidArgument."""
    found: set[int] = set()
    for part in text.split(","):
        named = _RANGE.fullmatch(part.strip())
        if not named or int(named[1]) > int(named[2] or named[1]):
            raise InvalidArgument("--drop", f"{text!r}; blocks and ranges with commas between, as in 3,10-19")
        found |= set(range(int(named[1]), int(named[2] or named[1]) + 1))
    return sorted(found)


def influence(found: Observed, model: Path) -> tuple[list[float], int]:
    """Of each block, and the tokens it was measured on. Raises ModelInvalid when it could not be."""
    if found.influence is None:
        raise ModelInvalid(
            f"{model}: llama.cpp does not name the states between its blocks, so their influence cannot be "
            "measured; choose with --keep or --drop"
        )
    return found.influence.tolist(), found.n_tokens


def least(influence: Sequence[float], n: int) -> list[int]:
    """The ``n`` blocks of least influence. Raises InvalidArgument unless at least one is left."""
    if not 1 <= n < len(influence):
        raise InvalidArgument(
            "--influence", f"{n}; of {len(influence)} blocks, 1 to {len(influence) - 1} can go"
        )
    return sorted(int(at) for at in np.argsort(influence, kind="stable")[:n])


def prune(
    source: Path,
    target: Path,
    *,
    n_blocks: int | None = None,
    blocks: Collection[int] = (),
    type_: str = COPY,
) -> None:
    """Writes ``target``, its first ``n_blocks`` blocks or all but ``blocks``, and sees that it reads a text.

    Raises InvalidArgument, ModelInvalid, FailedPrecondition for lack of space, OSError.
    """
    check_header(source)
    with atomic(target) as part:
        derive(source, part, quantisation=type_, n_blocks=n_blocks, blocks=blocks)
        try:
            observe(part, [[Piece("a")]], max_tokens=1)
        except ModelInvalid as error:
            raise ModelInvalid(
                f"{source}: its settings name each block, so it cannot do with fewer; nothing was written"
            ) from error
