"""A damaged store is put aside in ``quarantine/``, and the newest sound backup takes its place.

Every step can be cut off. What decides is the name ``store.db.restored``: from the moment a verified copy
has it, the exchange is carried to its end by the next start; before that, nothing has changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_reranker.errors import StoreCorrupt
from edge_reranker.store import files
from edge_reranker.store.backups import Backup, Backups

_FOLDER = "quarantine"
_NAME = re.compile(r"\d{6}-\d{8}T\d{6}Z")
_REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What was put aside, and what took its place.

    ``at`` and ``backup_at`` in s since 1970; ``n_events`` are those of the backup; ``told`` once the user
    has read of it at a start.
    """

    folder: str
    at: float
    why: tuple[str, ...]
    backup: str
    backup_at: float
    n_events: int
    told: bool = False

    def __str__(self) -> str:
        """What happened, for the user."""
        when, then = (
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at)) for at in (self.at, self.backup_at)
        )
        return (
            f"on {when} the store was put aside in {self.folder} ({self.why[0]}), and the backup of {then} "
            f"with {self.n_events} events took its place; what was recorded in between is not in it"
        )


def quarantined(data_dir: Path) -> list[Quarantined]:
    """All that was put aside, oldest first."""
    found = []
    for folder in _folders(data_dir):
        with contextlib.suppress(OSError, ValueError, TypeError):
            told = json.loads((folder / _REPORT).read_bytes())
            found.append(Quarantined(**{**told, "folder": str(folder), "why": tuple(told["why"])}))
    return found


def mark_told(data_dir: Path) -> list[Quarantined]:
    """What the user has not read of yet; from now on they have."""
    fresh = [one for one in quarantined(data_dir) if not one.told]
    for one in fresh:
        _write_report(dataclasses.replace(one, told=True))
    return fresh


def n_quarantined(data_dir: Path) -> int:
    """How many ``remove_quarantined`` would remove."""
    return len(_folders(data_dir))


def remove_quarantined(data_dir: Path) -> int:
    """Remove all that was put aside, and say how many there were. Raises OSError."""
    folders = _folders(data_dir)
    for folder in folders:
        shutil.rmtree(folder)
    return len(folders)


def restore(
    path: Path, backups: Backups, backup: Backup, why: Sequence[str], *, told: bool = False
) -> Quarantined:
    """Put the database ``path`` with its log aside, and a copy of ``backup`` in its place.

    No connection may be open. Raises StoreCorrupt when the copy is not sound (then nothing has changed),
    StoreError, OSError.
    """
    data_dir = path.parent
    folder = _new_folder(data_dir)
    n_events = backups.n_events(backup) or 0
    report = Quarantined(str(folder), time.time(), tuple(why), backup.name, backup.made_at, n_events, told)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        files.private_file(part)
        shutil.copyfile(backup.path, part)
        files.sync_file(part)
        if not backups.sound(dataclasses.replace(backup, path=part)):
            raise StoreCorrupt(f"{backup.path} is damaged or has another key; choose another backup")
        _write_report(report)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.rmdir()  # unless something else was put aside before
        raise
    part.replace(_restored(path))
    files.sync_dir(data_dir)
    finish(path)
    return report


def restore_newest(
    path: Path, backups: Backups, why: Sequence[str], *, told: bool = False
) -> Quarantined | None:
    """``restore`` with the newest backup that is sound; None if there is none. Raises StoreError, OSError."""
    for backup in reversed(backups.list()):
        # What the key does not open need not be copied to see that. The rest is checked once it is copied.
        if backups.n_events(backup) is not None:
            with contextlib.suppress(StoreCorrupt):
                return restore(path, backups, backup, why, told=told)
    return None


def finish(path: Path) -> None:
    """Carry on an exchange that was cut off, and remove what one that never began left. Raises OSError."""
    data_dir = path.parent
    restored = _restored(path)
    if not restored.exists():
        for folder in _folders(data_dir):
            if not any(part.name.startswith(path.name) for part in folder.iterdir()):
                shutil.rmtree(folder)
        return
    folder = (_folders(data_dir) or [_new_folder(data_dir)])[-1]
    # The log must be gone before the copy is in place: SQLite would play it into that.
    for suffix in ("", "-wal"):
        old = path.with_name(path.name + suffix)
        if old.exists() or old.is_symlink():
            old.replace(folder / old.name)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    files.sync_dir(folder)
    files.sync_dir(data_dir)
    restored.replace(path)
    files.sync_dir(data_dir)


def _restored(path: Path) -> Path:
    return path.with_name(path.name + ".restored")


def _folders(data_dir: Path) -> list[Path]:
    folder = data_dir / _FOLDER
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.iterdir() if one.is_dir() and _NAME.fullmatch(one.name))


def _new_folder(data_dir: Path) -> Path:
    number = int(_folders(data_dir)[-1].name.split("-")[0]) + 1 if _folders(data_dir) else 1
    files.private_dir(data_dir / _FOLDER)
    folder = data_dir / _FOLDER / time.strftime(f"{number:06d}-%Y%m%dT%H%M%SZ", time.gmtime())
    files.private_dir(folder)
    files.sync_dir(folder.parent)
    return folder


def _write_report(report: Quarantined) -> None:
    files.write_private(Path(report.folder) / _REPORT, json.dumps(dataclasses.asdict(report)).encode())
