"""Packs: what was learned offline, small enough to ship: a head, a prior over fusion weights, and settings.

A pack is a folder:

    pack.json     the manifest: encoder, settings, priors, the weights' hash
    weights.npz   the head's arrays, half precision; and what it knows of items that the same people like
    CARD.md       data, licence, honest metrics and the command that made it; for people
    *.gguf        LoRA adapters, where the manifest names some
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reranker.errors import PackInvalid
from edge_reranker.models import item_to_item as maps
from edge_reranker.models.item_to_item import ItemToItem
from edge_reranker.types import EventType, Pooling

FORMAT = 2
MANIFEST_FILE = "pack.json"
WEIGHTS_FILE = "weights.npz"
CARD_FILE = "CARD.md"

# A pack may come from anywhere; nothing larger is read into memory.
MAX_BYTES = 16 * 1024 * 1024
MAX_INSTRUCTION_CHARS = 240
MAX_PREFIX_CHARS = 240
_ABSENT_WHEN_EMPTY = {"adapter", "prefix", "normalise", "sha256"}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

_PROBES = "probe_vectors"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Float16 = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA adapter in GGUF beside the manifest, in effect whenever the pack's model runs."""

    file: str
    sha256: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Encoder:
    """Which hidden states the head reads.

    ``template`` is an item's text, without the parts that the item lacks. ``gguf_type`` is the type whose
    hidden states it was trained on: a coarser one gives states that this head misreads. ``n_blocks`` None
    means all; ``prefix`` stands before each text; ``normalise`` is to length 1; ``sha256`` pins a model that
    is in no catalogue. What is empty of these three is not in the manifest, so it changes no pack's id.
    """

    model: str
    n_blocks: int | None
    n_embd: int
    pooling: Pooling = "mean"
    template: str = "{title}. {tags}. {text}"
    gguf_type: str = "Q8_0"
    adapter: AdapterFile | None = None
    prefix: str = ""
    normalise: bool = False
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class TasteSettings:
    """How much an event counts, by type name and age."""

    event_weights: dict[str, float]
    half_life_days: float
    max_events: int
    fresh_half_life_days: float


@dataclass(frozen=True, slots=True)
class Prior:
    """A Gaussian over fusion weights: one mean and one row of covariance per column name."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """Tier 2: the template it renders, and the weight it starts with.

    ``model`` is the one that reads, if not the service's own; ``instruction`` says what it looks for, if not
    what the template does. What is not set is not in the manifest, so it changes no pack's id.
    """

    template: str = "default"
    weight: float = 0.0
    model: str | msgspec.UnsetType = msgspec.UNSET
    instruction: str | msgspec.UnsetType = msgspec.UNSET
    adapter: AdapterFile | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything in a pack but its arrays.

    ``fusion`` is the prior when vectors take part, ``without_model`` the one for tier 0 alone. ``centred``
    says from whose mean the content part is taken, see ``ranking.affinity``; ``probe_texts``: see ``Pack``.
    """

    name: str
    version: str
    encoder: Encoder
    taste: TasteSettings
    fusion: Prior
    without_model: Prior
    scorer: ScorerSettings = ScorerSettings()
    named_features: tuple[str, ...] = ()
    weights_sha256: str = ""
    centred: Literal["pack", "list"] = "pack"
    probe_texts: tuple[str, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Head:
    """The two towers' arrays: ``shift``, ``scale`` [n_embd], ``project`` [n_embd, n_dims], ``bias``
    [n_dims], ``turn`` [n_learned, n_learned], all finite, half precision. The first ``n_learned`` of an item
    vector's numbers are learned; the others, if there are more, are the content part.
    """

    shift: Float16
    scale: Float16
    project: Float16
    bias: Float16
    turn: Float16


@dataclass(frozen=True, slots=True)
class Probes:
    """Texts, and the item vectors [n_texts, n_dims] that the pack's encoder made of them in training."""

    texts: tuple[str, ...]
    vectors: Float16


@dataclass(frozen=True)
class Pack:
    """A manifest and the arrays that its hash names. Make one with ``make`` or ``load``.

    ``folder`` is where its adapters are; None when it has none. An encoder on another device that makes other
    vectors than ``probe_vectors`` of the manifest's ``probe_texts`` is not the one that the head reads.
    """

    manifest: Manifest
    head: Head
    folder: Path | None = None
    item_to_item: ItemToItem | None = None
    probe_vectors: Float16 | None = None

    @property
    def probes(self) -> Probes | None:
        """What the encoder can be tried by; None for a pack without."""
        if self.probe_vectors is None:
            return None
        return Probes(self.manifest.probe_texts, self.probe_vectors)

    @cached_property
    def id(self) -> str:
        """Name and content: the vector space of the vectors that this pack's head makes."""
        digest = hashlib.sha256(_canonical(self.manifest)).hexdigest()
        return f"{self.manifest.name}-{digest[:12]}"

    @property
    def n_dims(self) -> int:
        """Numbers in an item vector."""
        return int(self.head.project.shape[1])


def make(
    manifest: Manifest,
    head: Head,
    *,
    folder: Path | None = None,
    item_to_item: ItemToItem | None = None,
    probes: Probes | None = None,
) -> Pack:
    """A pack of these arrays with their hash in the manifest; ``folder`` holds its adapters, if it has any.

    Raises ``PackInvalid`` as ``load`` does.
    """
    vectors = None if probes is None else probes.vectors
    digest = hashlib.sha256(_weights_bytes(head, item_to_item, vectors)).hexdigest()
    texts = () if probes is None else probes.texts
    manifest = replace(manifest, weights_sha256=digest, probe_texts=texts)
    pack = Pack(manifest, head, folder, item_to_item, vectors)
    _check(pack)
    return pack


def save(pack: Pack, path: Path, card: str = "") -> None:
    """Write the pack's files into the folder ``path``, making it where needed."""
    path.mkdir(parents=True, exist_ok=True)
    for adapter in _adapters(pack.manifest):
        if pack.folder is not None and pack.folder.resolve() != path.resolve():
            shutil.copyfile(pack.folder / adapter.file, path / adapter.file)
    (path / WEIGHTS_FILE).write_bytes(_weights_bytes(pack.head, pack.item_to_item, pack.probe_vectors))
    text = msgspec.json.format(_canonical(pack.manifest), indent=1)
    (path / MANIFEST_FILE).write_bytes(text + b"\n")
    if card:
        (path / CARD_FILE).write_text(card, encoding="utf-8")


def load(path: Path) -> Pack:
    """Read a pack and check names, shapes, finiteness and hash.

    Raises ``PackInvalid`` saying which file is wrong and how.
    """
    manifest_bytes = _read(path / MANIFEST_FILE)
    weights_bytes = _read(path / WEIGHTS_FILE)
    try:
        manifest = msgspec.json.decode(manifest_bytes, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise _invalid(path, f"{MANIFEST_FILE}: {error}") from error
    if manifest.format != FORMAT:
        raise _invalid(path, f"{MANIFEST_FILE}: format {manifest.format}, this version reads {FORMAT}")
    if hashlib.sha256(weights_bytes).hexdigest() != manifest.weights_sha256:
        raise _invalid(path, f"{WEIGHTS_FILE} is not the file that {MANIFEST_FILE} names (sha256 differs)")
    pack = Pack(manifest, *_arrays(path, weights_bytes, path))
    _check(pack, path)
    return pack


def _canonical(manifest: Manifest) -> bytes:
    plain = msgspec.to_builtins(manifest)
    for section in (plain["encoder"], plain["scorer"]):
        for name in _ABSENT_WHEN_EMPTY & section.keys():
            if not section[name]:
                del section[name]  # a pack without one keeps the id it has always had
    return msgspec.json.encode(plain, order="sorted")


def _adapters(manifest: Manifest) -> list[AdapterFile]:
    return [used for used in (manifest.encoder.adapter, manifest.scorer.adapter) if used is not None]


def _weights_bytes(head: Head, item_to_item: ItemToItem | None, probe_vectors: Float16 | None) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {field.name: getattr(head, field.name) for field in fields(head)}
    if item_to_item is not None:
        arrays |= item_to_item.named()
    if probe_vectors is not None:
        arrays[_PROBES] = probe_vectors
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise _invalid(file.parent, f"{file.name} is larger than {MAX_BYTES} bytes")
        return file.read_bytes()
    except OSError as error:
        raise _invalid(file.parent, f"{file.name} cannot be read: {error.strerror}") from error


def _arrays(path: Path, content: bytes, folder: Path) -> tuple[Head, Path, ItemToItem | None, Float16 | None]:
    names = [f.name for f in fields(Head)]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise _invalid(path, f"{WEIGHTS_FILE} unpacks to more than {MAX_BYTES} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            missing = [name for name in names if name not in arrays]
            if missing:
                raise _invalid(path, f"{WEIGHTS_FILE} has no array {missing[0]}")
            head = Head(**{name: arrays[name] for name in names})
            return head, folder, maps.read(arrays), arrays.get(_PROBES)
    except KeyError as error:
        raise _invalid(path, f"{WEIGHTS_FILE}: {error.args[0]}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"{WEIGHTS_FILE} is not an archive of plain arrays") from error


def _check(pack: Pack, path: Path | None = None) -> None:
    manifest, head = pack.manifest, pack.head
    where = path or Path(manifest.name)
    if not _NAME.fullmatch(manifest.name):
        raise _invalid(where, "name must be lower-case letters, digits and dashes, 64 at most")
    n_embd = manifest.encoder.n_embd
    n_dims = head.project.shape[-1] if head.project.ndim == 2 else 0
    if n_dims == 0:
        raise _invalid(where, f"project has shape {head.project.shape}, not (n_embd, n_dims)")
    n_learned = len(head.turn) if head.turn.ndim else 0
    if n_learned > n_dims:
        raise _invalid(where, f"turn has {n_learned} rows, more than the {n_dims} of an item vector")
    shapes: Mapping[str, tuple[int, ...]] = {
        "shift": (n_embd,),
        "scale": (n_embd,),
        "project": (n_embd, n_dims),
        "bias": (n_dims,),
        "turn": (n_learned, n_learned),
    }
    for name, shape in shapes.items():
        array = getattr(head, name)
        if array.dtype != np.float16:
            raise _invalid(where, f"{name} is {array.dtype}, not float16")
        if array.shape != shape:
            raise _invalid(where, f"{name} has shape {array.shape}, not {shape}")
        if not np.isfinite(array).all():
            raise _invalid(where, f"{name} has values that are not finite")
    if pack.item_to_item is not None and pack.item_to_item.problem:
        raise _invalid(where, pack.item_to_item.problem)
    _check_probes(pack, where)
    _check_settings(manifest, where)
    for adapter in _adapters(manifest):
        _check_adapter(adapter, pack.folder, where)
    _check_prior(manifest.fusion, "fusion", where)
    _check_prior(manifest.without_model, "without_model", where)


def _check_probes(pack: Pack, where: Path) -> None:
    vectors, n = pack.probe_vectors, len(pack.manifest.probe_texts)
    if vectors is None and not n:
        return
    wanted = (n, pack.n_dims)
    if vectors is None or vectors.dtype != np.float16 or vectors.shape != wanted:
        found = "missing" if vectors is None else f"{vectors.dtype} {vectors.shape}"
        raise _invalid(where, f"{_PROBES} is {found}, not float16 {wanted}")
    if not np.isfinite(vectors).all():
        raise _invalid(where, f"{_PROBES} has values that are not finite")


def _check_adapter(adapter: AdapterFile, folder: Path | None, where: Path) -> None:
    if not _FILE.fullmatch(adapter.file):
        raise _invalid(where, f"adapter {adapter.file!r} must be the name of a file in the pack's folder")
    if not np.isfinite(adapter.scale):
        raise _invalid(where, f"{adapter.file}: scale {adapter.scale} is not finite")
    if folder is None:
        raise _invalid(where, f"{adapter.file}: no folder was given to find it in")
    try:
        with (folder / adapter.file).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _invalid(where, f"{adapter.file} cannot be read: {error.strerror}") from error
    if found != adapter.sha256:
        raise _invalid(where, f"{adapter.file} is not the file that {MANIFEST_FILE} names (sha256 differs)")


def _check_settings(manifest: Manifest, where: Path) -> None:
    taste = manifest.taste
    if len(manifest.encoder.prefix) > MAX_PREFIX_CHARS:
        raise _invalid(where, f"encoder.prefix may have {MAX_PREFIX_CHARS} characters")
    unknown = [name for name in taste.event_weights if name not in EventType.__members__]
    if unknown:
        raise _invalid(where, f"event_weights: no event type is called {unknown[0]}")
    weights = [*taste.event_weights.values(), manifest.scorer.weight]
    if not np.isfinite(weights).all() or min(taste.event_weights.values(), default=0.0) < 0:
        raise _invalid(where, "event_weights and scorer.weight must be finite, event_weights not negative")
    instruction = manifest.scorer.instruction
    if instruction is not msgspec.UNSET and not 0 < len(instruction.strip()) <= MAX_INSTRUCTION_CHARS:
        raise _invalid(where, f"scorer.instruction must have 1 to {MAX_INSTRUCTION_CHARS} characters")
    if not (taste.half_life_days > 0 and taste.fresh_half_life_days > 0 and taste.max_events > 0):
        raise _invalid(where, "half_life_days, fresh_half_life_days and max_events must be above 0")


def _check_prior(prior: Prior, field: str, where: Path) -> None:
    k = len(prior.names)
    if len(set(prior.names)) != k or "server_rank" not in prior.names:
        raise _invalid(where, f"{field}.names must be distinct and have server_rank")
    if len(prior.mean) != k or len(prior.covariance) != k or any(len(r) != k for r in prior.covariance):
        raise _invalid(where, f"{field} must have {k} means and {k} x {k} covariances, as it has names")
    covariance = np.array(prior.covariance)
    if not (np.isfinite(prior.mean).all() and np.isfinite(covariance).all()):
        raise _invalid(where, f"{field} has values that are not finite")
    if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance).min() <= 0:
        raise _invalid(where, f"{field}.covariance must be symmetric and positive definite")


def _invalid(path: Path, problem: str) -> PackInvalid:
    return PackInvalid(f"pack {path.name}: {problem}; see `edge-reranker pack list`, or train it again")
