"""One model in types of one's choice: resumable, and what is there and whole is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_reranker.engine.quantiser import PLAIN, QUANTISATIONS, VERSION, Progress, derive
from edge_reranker.errors import InvalidArgument
from edge_reranker.models.gguf_header import check_header
from edge_reranker.models.gguf_tensors import require_gguf
from edge_reranker.models.pull import atomic, sha256_of
from edge_reranker_quantize import importance, outputs

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How files are made, besides their type: ``importance`` is a file, ``overrides`` types by pattern."""

    importance: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    pure: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A file. ``n_fallback`` of its tensors got a larger type than its name says; None: it was there."""

    path: Path
    type: str
    size_bytes: int
    n_fallback: int | None = None
    n_tensors: int | None = None


def quantise(
    source: Path,
    targets: Mapping[str, Path],
    settings: Settings,
    say: Say,
    *,
    force: bool = False,
    progress: Callable[[str, Progress], None] = lambda _type, _at: None,
) -> list[Made]:
    """Makes the file of every type in ``targets``; those there, whole and made the same way are kept.

    What a file was made of lies beside it, in its name and ``.json``. Raises InvalidArgument, ModelInvalid,
    FailedPrecondition for lack of space, OSError.
    """
    for type_ in targets:
        if type_ not in QUANTISATIONS:
            raise InvalidArgument("--type", f"{type_!r}; there are {', '.join(sorted(QUANTISATIONS))}")
    check_header(source)
    if settings.overrides:
        _check_overrides(source, settings.overrides)
    matrix = importance.read(settings.importance) if settings.importance else None
    sha256 = sha256_of(source)
    found = []
    for type_, target in targets.items():
        overrides = {} if type_ in PLAIN else dict(settings.overrides)
        made_with = {
            "type": type_,
            "importance": sha256_of(settings.importance) if settings.importance else "",
            "overrides": list(map(list, overrides.items())),
            "pure": settings.pure,
            "llama_cpp": VERSION,
        }
        if outputs.is_made(target, sha256, made_with):
            say(f"{target}: already there, and whole")
            found.append(Made(target, type_, target.stat().st_size))
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        outputs.check(target, source, force=force)
        say(f"making {target}")
        seen = Progress(0, 0, 0)

        def heard(at: Progress, type_: str = type_) -> None:
            nonlocal seen
            seen = at
            progress(type_, at)

        with atomic(target) as part:
            derive(
                source,
                part,
                quantisation=type_,
                importance=matrix,
                overrides=overrides,
                pure=settings.pure,
                progress=heard,
            )
        outputs.note(target, sha256, made_with)
        if seen.n_fallback:
            say(
                f"{target}: {seen.n_fallback} of {seen.n_tensors} tensors fell back to a larger type, for "
                "their columns are no multiple of the type's blocks"
            )
        found.append(Made(target, type_, target.stat().st_size, seen.n_fallback, seen.n_tensors))
    return found


def targets_of(source: Path, types: Sequence[str], out: Path) -> dict[str, Path]:
    """Where the file of each type goes: ``out`` itself, or a folder's NAME-TYPE.gguf."""
    types = list(dict.fromkeys(types))
    if out.suffix == ".gguf" and not out.is_dir():
        if len(types) > 1:
            raise InvalidArgument("--out", f"{out} is one file for {len(types)} types; name a folder")
        return {types[0]: out}
    return {type_: out / f"{source.stem}-{type_}.gguf" for type_ in types}


def _check_overrides(source: Path, overrides: Mapping[str, str]) -> None:
    """Raises InvalidArgument for a pattern that no tensor's name matches: it would do nothing, silently."""
    names = [tensor.name for tensor in require_gguf().GGUFReader(source).tensors]
    for pattern in overrides:
        try:
            known = any(re.search(pattern, name) for name in names)
        except re.error as error:
            raise InvalidArgument("--override", f"{pattern!r} is no regular expression: {error}") from error
        if not known:
            raise InvalidArgument(
                "--override", f"{pattern!r} is in no tensor's name; one of them is {names[-1]!r}"
            )
