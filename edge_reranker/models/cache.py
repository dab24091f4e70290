"""The models on this device: where they are, what they are, and whether they are still what they were."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from edge_reranker.errors import InvalidArgument, Missing, ModelInvalid, NotFound
from edge_reranker.models import device_types
from edge_reranker.models.catalogue import MODELS, Source, Variant, find
from edge_reranker.models.convert import convert_bert
from edge_reranker.models.gguf_header import check_header
from edge_reranker.models.pull import Say, atomic, fetch, sha256_of

_MANIFEST = "model.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ModelFile(msgspec.Struct, frozen=True):
    """One GGUF on this device, made for one role."""

    name: str
    role: str
    file: str
    sha256: str
    size_bytes: int
    license: str
    made: str  # how it was made, such as "first 10 blocks, Q8_0"


class Derive(Protocol):
    """Makes a GGUF out of another; the engine has it, and only it may touch llama.cpp."""

    def __call__(self, source: Path, target: Path, *, quantisation: str, n_blocks: int | None) -> None:
        """Writes ``target``. Raises ModelInvalid."""


class ModelCache:
    """A folder of models, one sub-folder and manifest each."""

    def __init__(self, root: Path) -> None:
        self._root = root / "models"

    def pull(self, name: str, derive: Derive, say: Say) -> list[ModelFile]:
        """Fetches a catalogue model and makes its variants; what is there and whole is kept."""
        source = find(MODELS, name)
        folder = self._root / name
        known = {file.role: file for file in self._manifest(name)}
        wanted = [v for v in self.variants(name) if not self._whole(name, v, known)]
        if not wanted:
            say(f"{name}: already here, verified")
            return list(known.values())
        paths = fetch(source, folder, say)
        with _as_gguf(source, paths) as original:
            for variant in wanted:
                target = folder / _file_name(variant)
                made = made_of(variant.n_blocks, variant.quantisation)
                say(f"{name}: making the {variant.role} ({made})")
                with atomic(target) as part:
                    if variant.quantisation == device_types.PUBLISHED:
                        shutil.copyfile(original, part)
                    else:
                        derive(original, part, quantisation=variant.quantisation, n_blocks=variant.n_blocks)
                known[variant.role] = _describe(name, variant.role, target, source.license, made)
        self._write(name, list(known.values()))
        return list(known.values())

    def variants(self, name: str) -> list[Variant]:
        """What is made of a catalogue model here: each role's file, of the type that this device has chosen.

        Raises NotFound, FailedPrecondition for a damaged choice.
        """
        found = []
        for variant in find(MODELS, name).variants:
            picked = self.picked(name, variant.role)
            found.append(variant if picked is None else replace(variant, quantisation=picked.type))
        return found

    def reads(self, name: str, n_blocks: int | None, quantisation: str) -> set[str]:
        """How an encoder's file may have been made: as its pack says, or of the type that was picked here."""
        picked = self.picked(name, "encoder")
        types = {quantisation} if picked is None else {quantisation, picked.type}
        return {made_of(n_blocks, each) for each in types}

    def picked(self, name: str, role: str) -> device_types.Picked | None:
        """What `quantize pick` chose here; None: nothing. Raises FailedPrecondition for a damaged file."""
        return device_types.read(self._root).get((name, role))

    def pick(self, name: str, role: str, picked: device_types.Picked) -> Path:
        """Notes which type ``pull`` makes here from now on, and ``serve`` runs; returns the file it is in."""
        return device_types.write(self._root, name, role, picked)

    @contextlib.contextmanager
    def original(self, name: str, say: Say) -> Iterator[Path]:
        """A catalogue model as it came, fetched if need be; what is no GGUF becomes one (F16)."""
        source = find(MODELS, name)
        with _as_gguf(source, fetch(source, self._root / name, say)) as original:
            yield original

    def add(self, path: Path, *, sha256: str, name: str, role: str, license_: str, say: Say) -> ModelFile:
        """Takes in a GGUF of the user's own, if it has the SHA-256 they say.

        Raises ModelInvalid for a wrong hash or header, InvalidArgument for a name the catalogue has.
        """
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                "name", f"{name!r}; letters, digits, dots, dashes and underscores, a letter or digit first"
            )
        if name in MODELS:
            raise InvalidArgument("name", f"{name!r} is a catalogue model; choose another name")
        check_header(path)
        found = sha256_of(path)
        if found != sha256.lower():
            raise ModelInvalid(f"{path}: SHA-256 is {found}, expected {sha256.lower()}; nothing was added")
        folder = self._root / name
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{role}.gguf"
        with atomic(target) as part:
            shutil.copyfile(path, part)
        file = _describe(name, role, target, license_, "as it came")
        others = [known for known in self._manifest(name) if known.role != role]
        self._write(name, [*others, file])
        say(f"{name}: added as {role}")
        return file

    def files(self) -> list[ModelFile]:
        """All model files, by name and role."""
        found: list[ModelFile] = []
        for path in sorted(self._root.glob(f"*/{_MANIFEST}")):
            with contextlib.suppress(
                ModelInvalid
            ):  # said when it is opened; the others are there all the same
                found += self._manifest(path.parent.name)
        return found

    def open(self, name: str, role: str) -> tuple[ModelFile, Path]:
        """The file of a model for a role, checked against its SHA-256 before native code sees it.

        Raises Missing when it was never pulled, ModelInvalid when it is damaged.
        """
        for file in self._manifest(name):
            if file.role == role:
                path = self._root / name / file.file
                _check(file, path)
                return file, path
        way_out = f"fetch it with `edge-reranker model pull {name}`"
        if name not in MODELS:
            way_out = f"take it in with `edge-reranker model add PATH --name {name} --role {role} --sha256 …`"
        raise Missing(f"no {role} of {name!r} on this device; {way_out}")

    def verify(self, name: str = "") -> Iterator[tuple[ModelFile, str]]:
        """Each file (of one model, or of all) and what is wrong with it; empty when nothing is."""
        files = [file for file in self.files() if not name or file.name == name]
        if name and not files:
            raise NotFound(f"no model called {name!r} on this device; see `edge-reranker model list`")
        for file in files:
            try:
                _check(file, self._root / file.name / file.file)
            except ModelInvalid as error:
                yield file, str(error)
            else:
                yield file, ""

    def _whole(self, name: str, variant: Variant, known: dict[str, ModelFile]) -> bool:
        file = known.get(variant.role)
        if file is None or file.made != made_of(variant.n_blocks, variant.quantisation):
            return False
        try:
            _check(file, self._root / name / file.file)
        except ModelInvalid:
            return False
        return True

    def _manifest(self, name: str) -> list[ModelFile]:
        path = self._root / name / _MANIFEST
        if not path.is_file():
            return []
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[ModelFile])
        except msgspec.MsgspecError as error:
            raise ModelInvalid(f"{path}: damaged; delete it and pull the model again") from error

    def _write(self, name: str, files: list[ModelFile]) -> None:
        with atomic(self._root / name / _MANIFEST) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(files)))


@contextlib.contextmanager
def _as_gguf(source: Source, paths: list[Path]) -> Iterator[Path]:
    """The GGUF that a source is, or one of half precision that is gone afterwards."""
    if source.holds == "gguf":
        (original,) = paths
        yield original
        return
    folder = paths[0].parent
    converted = folder / "F16.gguf"
    try:
        with atomic(converted) as part:
            convert_bert(folder, part)
        yield converted
    finally:
        converted.unlink(missing_ok=True)


def pull_dataset(root: Path, source: Source, say: Say) -> Path:
    """Fetches a data set into the cache; returns its folder."""
    folder = root / "data" / source.name
    fetch(source, folder, say)
    return folder


def _check(file: ModelFile, path: Path) -> None:
    again = f"pull or add {file.name!r} again"
    if not path.is_file():
        raise ModelInvalid(f"{path}: gone; {again}")
    size = path.stat().st_size
    if size != file.size_bytes:
        raise ModelInvalid(f"{path}: {size} bytes, expected {file.size_bytes}; {again}")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ModelInvalid(f"{path}: {error.strerror}; {again}") from error
    if found != file.sha256:
        raise ModelInvalid(f"{path}: its SHA-256 changed since it was made; {again}")


def _describe(name: str, role: str, path: Path, license_: str, made: str) -> ModelFile:
    check_header(path)
    return ModelFile(name, role, path.name, sha256_of(path), path.stat().st_size, license_, made)


def made_of(n_blocks: int | None, quantisation: str) -> str:
    """How a file was made, in words: equal words, equal hidden states."""
    blocks = "whole" if n_blocks is None else f"first {n_blocks} blocks"
    return f"{blocks}, {quantisation}"


def _file_name(variant: Variant) -> str:
    depth = "" if variant.n_blocks is None else f"-L{variant.n_blocks}"
    return f"{variant.role}{depth}-{variant.quantisation}.gguf"
