"""The files to compare: one model in many types, each made once and kept in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_reranker.errors import EngineError, InvalidArgument, ModelInvalid
from edge_reranker.models.device_types import PUBLISHED
from edge_reranker.models.gguf_header import check_header
from edge_reranker.models.pull import atomic

REFERENCE = "F16"
LADDER = (
    *("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0", "Q4_1", "IQ4_NL"),
    *("IQ4_XS", "Q3_K_M"),
)

Say = Callable[[str], None]


class Derive(Protocol):
    """Makes a GGUF out of another; the engine has it, and only it may touch llama.cpp."""

    def __call__(self, source: Path, target: Path, *, quantisation: str, n_blocks: int | None) -> None:
        """Writes ``target``. Raises ModelInvalid."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model to make variants of: its file, how many of its blocks (None: all), and what it is called."""

    name: str
    path: Path
    n_blocks: int | None = None
    as_it_came: bool = True  # False: ``path`` was only made on the way, and nobody could serve it

    @property
    def has_published(self) -> bool:
        """Whether the file as it came is a variant."""
        return self.as_it_came and self.n_blocks is None


def make(
    source: Source, types: Sequence[str], known: Mapping[str, int], folder: Path, derive: Derive, say: Say
) -> dict[str, Path]:
    """The variants by type, the published file first if it is one; what cannot be made of it is left out.

    ``known`` are the types there are. Raises InvalidArgument for another, ModelInvalid when not even the
    reference can be made.
    """
    for type_ in types:
        if type_ not in known:
            raise InvalidArgument("--types", f"{type_!r}; there are {', '.join(sorted(known))}")
    check_header(source.path)
    found = {PUBLISHED: source.path} if source.has_published else {}
    for type_ in dict.fromkeys((REFERENCE, *types)):
        path = folder / f"{type_}.gguf"
        say(f"making {type_}")
        try:
            with atomic(path) as part:
                derive(source.path, part, quantisation=type_, n_blocks=source.n_blocks)
        except (ModelInvalid, EngineError) as error:
            if type_ == REFERENCE:
                raise
            say(f"{type_} is left out: {error}")
            continue
        found[type_] = path
    return found
