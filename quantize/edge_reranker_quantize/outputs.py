"""Files that are made: where they may lie, and what they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_reranker.errors import InvalidArgument
from edge_reranker.models.pull import atomic, sha256_of


def check(target: Path, source: Path, *, force: bool) -> None:
    """Raises InvalidArgument for a target that is the source, or there already and not to be replaced."""
    if not target.parent.is_dir():
        raise InvalidArgument("--out", f"{target.parent} is no folder; make it first")
    if target.is_dir():
        raise InvalidArgument("--out", f"{target} is a folder; name a file in it")
    if target.exists():
        if target.samefile(source):
            raise InvalidArgument("--out", f"{target} is the source, which stays as it is; name another file")
        if not force:
            raise InvalidArgument("--out", f"{target} is there already; --force replaces it")


class Record(msgspec.Struct, frozen=True):
    """Beside a file that was made: its hash, its source's, and the settings it was made with."""

    sha256: str
    source_sha256: str
    settings: dict[str, Any]


def is_made(target: Path, source_sha256: str, settings: Mapping[str, Any]) -> bool:
    """Whether ``target`` is there, whole, and made of that with these settings."""
    try:
        record = msgspec.json.decode(_beside(target).read_bytes(), type=Record)
        return (
            (record.source_sha256, record.settings) == (source_sha256, settings)
            and target.is_file()
            and sha256_of(target) == record.sha256
        )
    except (OSError, msgspec.DecodeError):
        return False


def note(target: Path, source_sha256: str, settings: Mapping[str, Any]) -> None:
    """Writes down what ``target`` was made of, in ``target``.json."""
    with atomic(_beside(target)) as part:
        record = Record(sha256_of(target), source_sha256, dict(settings))
        part.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")
