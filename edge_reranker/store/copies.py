"""Copies of the store beside it, which hold what is forgotten in it: backups, and damaged files set aside."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_reranker.store import files

_FOLDERS = ("backups", "quarantine")


def count(data_dir: Path) -> int:
    """How many there are."""
    return len(_all(data_dir))


def purge(data_dir: Path) -> int:
    """Remove all of them, and say how many. Raises OSError."""
    found = _all(data_dir)
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in {path.parent for path in found}:
        files.sync_dir(folder)
    return len(found)


def _all(data_dir: Path) -> list[Path]:
    folders = [data_dir / name for name in _FOLDERS]
    return [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
