"""Packs: what is saved comes back, and what is damaged is refused with a reason."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_reranker.errors import PackInvalid
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import AdapterFile, Encoder, Head, Manifest, Pack, Prior, TasteSettings

N_EMBD, N_DIMS = 6, 3
SHIPPED = Path(__file__).parents[2] / "packs" / "movielens-minilm"
PRIOR = Prior(("server_rank", "towers"), (-0.5, 2.0), ((1.0, 0.1), (0.1, 2.0)))
MANIFEST = Manifest(
    name="a-pack",
    version="1",
    encoder=Encoder("smollm2-135m", 10, N_EMBD),
    taste=TasteSettings({"LIKE": 1.0, "VIEW": 0.3}, 30.0, 50, 7.0),
    fusion=PRIOR,
    without_model=Prior(("server_rank",), (-0.2,), ((1.0,),)),
)


def head(seed: int = 0, **changes: np.ndarray) -> Head:
    rng = np.random.default_rng(seed)
    shapes = {
        "shift": (N_EMBD,),
        "scale": (N_EMBD,),
        "project": (N_EMBD, N_DIMS),
        "bias": (N_DIMS,),
        "turn": (N_DIMS, N_DIMS),
    }
    arrays = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    return Head(**{**arrays, **changes})


@pytest.fixture
def pack() -> Pack:
    return packs.make(MANIFEST, head())


@pytest.fixture
def saved(pack: Pack, tmp_path: Path) -> Path:
    packs.save(pack, tmp_path / "p", "# A card\n")
    return tmp_path / "p"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest on disk."""
    file = folder / packs.MANIFEST_FILE
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_a_pack_comes_back_as_it_was_saved(pack: Pack, saved: Path) -> None:
    found = packs.load(saved)
    assert found.manifest == pack.manifest
    assert found.id == pack.id
    for f in fields(Head):
        np.testing.assert_array_equal(getattr(found.head, f.name), getattr(pack.head, f.name))
    assert (saved / packs.CARD_FILE).read_text() == "# A card\n"


def test_saving_twice_writes_the_same_bytes(pack: Pack, saved: Path, tmp_path: Path) -> None:
    packs.save(packs.load(saved), tmp_path / "again", "# A card\n")
    for name in (packs.MANIFEST_FILE, packs.WEIGHTS_FILE, packs.CARD_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_the_id_names_pack_and_content(pack: Pack) -> None:
    assert pack.id.startswith("a-pack-")
    assert len(pack.id) == len("a-pack-") + 12
    assert packs.make(MANIFEST, head(seed=1)).id != pack.id
    assert packs.make(replace(MANIFEST, version="2"), head()).id != pack.id
    assert packs.make(MANIFEST, head()).id == pack.id


def test_the_layout_of_the_json_does_not_change_the_id(pack: Pack, saved: Path) -> None:
    edit(saved, lambda manifest: None)
    assert packs.load(saved).id == pack.id


@pytest.mark.parametrize("name", [packs.MANIFEST_FILE, packs.WEIGHTS_FILE])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(PackInvalid, match=f"{name} cannot be read"):
        packs.load(saved)


def test_a_folder_that_is_not_there_is_an_invalid_pack(tmp_path: Path) -> None:
    with pytest.raises(PackInvalid, match="nowhere"):
        packs.load(tmp_path / "nowhere")


@pytest.mark.parametrize("at", [0, 40, -1])
def test_one_flipped_bit_in_the_weights_is_noticed(saved: Path, at: int) -> None:
    file = saved / packs.WEIGHTS_FILE
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(PackInvalid, match="sha256 differs"):
        packs.load(saved)


def test_weights_cut_in_half_are_noticed(saved: Path) -> None:
    file = saved / packs.WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(PackInvalid, match="sha256 differs"):
        packs.load(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": 3}', b"[" * 100_000])
def test_a_manifest_that_is_not_one_is_refused(saved: Path, content: bytes) -> None:
    (saved / packs.MANIFEST_FILE).write_bytes(content)
    with pytest.raises(PackInvalid, match=packs.MANIFEST_FILE):
        packs.load(saved)


def test_a_huge_file_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MAX_BYTES", 100)
    with pytest.raises(PackInvalid, match="larger than"):
        packs.load(saved)


def replaced(saved: Path, content: bytes) -> None:
    """Puts other weights into the pack, under their right hash."""
    (saved / packs.WEIGHTS_FILE).write_bytes(content)
    edit(saved, lambda m: m.update(weights_sha256=hashlib.sha256(content).hexdigest()))


def test_weights_that_are_no_archive_are_refused(saved: Path) -> None:
    replaced(saved, b"not a zip file")
    with pytest.raises(PackInvalid, match="not an archive of plain arrays"):
        packs.load(saved)


def test_pickled_objects_are_never_loaded(saved: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "attacked"), "w"))

    objects = np.empty(1, object)
    objects[0] = Attack()
    np.savez(tmp_path / "evil.npz", **{f.name: objects for f in fields(Head)}, allow_pickle=True)
    replaced(saved, (tmp_path / "evil.npz").read_bytes())
    with pytest.raises(PackInvalid, match="not an archive of plain arrays"):
        packs.load(saved)
    assert not (tmp_path / "attacked").exists()


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(saved: Path, tmp_path: Path) -> None:
    big = np.zeros(packs.MAX_BYTES // 2 + 1, np.float16)
    np.savez_compressed(tmp_path / "bomb.npz", shift=big)
    replaced(saved, (tmp_path / "bomb.npz").read_bytes())
    with pytest.raises(PackInvalid, match="unpacks to more"):
        packs.load(saved)


def test_a_missing_array_is_named(saved: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", shift=np.zeros(N_EMBD, np.float16))
    replaced(saved, (tmp_path / "w.npz").read_bytes())
    with pytest.raises(PackInvalid, match="no array scale"):
        packs.load(saved)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"shift": np.zeros(N_EMBD + 1, np.float16)}, "shift has shape"),
        ({"project": np.zeros((N_EMBD, 0), np.float16)}, "project has shape"),
        ({"turn": np.zeros((N_DIMS, N_DIMS + 1), np.float16)}, "turn has shape"),
        ({"bias": np.array([0, np.nan, 0], np.float16)}, "bias has values that are not finite"),
        ({"scale": np.full(N_EMBD, np.inf, np.float16)}, "scale has values that are not finite"),
        ({"scale": np.zeros(N_EMBD, np.float32)}, "scale is float32"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(PackInvalid, match=problem):
        packs.make(MANIFEST, head(**changes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "../up"}, "name must be"),
        ({"taste": TasteSettings({"LOVE": 1.0}, 30.0, 50, 7.0)}, "no event type is called LOVE"),
        ({"taste": TasteSettings({"LIKE": -1.0}, 30.0, 50, 7.0)}, "not negative"),
        ({"taste": TasteSettings({"LIKE": 1.0}, 0.0, 50, 7.0)}, "must be above 0"),
        ({"fusion": replace(PRIOR, mean=(1.0,))}, "fusion must have 2 means"),
        ({"fusion": replace(PRIOR, names=("towers", "towers"))}, "names must be distinct"),
        ({"without_model": replace(PRIOR, mean=(float("nan"), 0.0))}, "not finite"),
        ({"fusion": replace(PRIOR, covariance=((1.0, 2.0), (2.0, 1.0)))}, "positive definite"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(PackInvalid, match=problem):
        packs.make(replace(MANIFEST, **changes), head())


@pytest.mark.parametrize("other", [packs.FORMAT - 1, packs.FORMAT + 1])
def test_a_pack_of_another_format_says_so(saved: Path, other: int) -> None:
    edit(saved, lambda manifest: manifest.update(format=other))
    with pytest.raises(PackInvalid, match=f"format {other}, this version reads {packs.FORMAT}"):
        packs.load(saved)


def test_a_scorers_model_and_instruction_come_back_and_are_part_of_the_id(tmp_path: Path) -> None:
    scorer = packs.ScorerSettings("qwen3-reranker", 2.0, model="mine", instruction="Find what is funny")
    pack = packs.make(replace(MANIFEST, scorer=scorer), head())
    packs.save(pack, tmp_path / "p")
    assert packs.load(tmp_path / "p").manifest.scorer == scorer
    other = replace(scorer, instruction="Find what is sad")
    assert packs.make(replace(MANIFEST, scorer=other), head()).id != pack.id


def test_what_a_pack_does_not_say_of_its_scorer_is_not_in_its_manifest(saved: Path) -> None:
    manifest = json.loads((saved / packs.MANIFEST_FILE).read_text())
    assert manifest["scorer"] == {"template": "default", "weight": 0.0}
    assert not packs.load(saved).manifest.scorer.instruction


@pytest.mark.parametrize("instruction", ["", "  ", "x" * 241])
def test_an_instruction_that_says_nothing_or_too_much_is_refused(instruction: str) -> None:
    scorer = packs.ScorerSettings(instruction=instruction)
    with pytest.raises(PackInvalid, match=r"scorer\.instruction must have 1 to 240 characters"):
        packs.make(replace(MANIFEST, scorer=scorer), head())


SCORER_ADAPTER, ENCODER_ADAPTER = b"as if it were for the scorer", b"and this for the encoder"


def with_adapters(folder: Path, **changes: Any) -> Pack:
    """A pack with an adapter for each role, whose files are in ``folder``."""
    (folder / "s.gguf").write_bytes(SCORER_ADAPTER)
    (folder / "e.gguf").write_bytes(ENCODER_ADAPTER)
    scorer = AdapterFile("s.gguf", hashlib.sha256(SCORER_ADAPTER).hexdigest(), 0.5)
    encoder = AdapterFile("e.gguf", hashlib.sha256(ENCODER_ADAPTER).hexdigest())
    manifest = replace(
        MANIFEST,
        scorer=replace(MANIFEST.scorer, adapter=replace(scorer, **changes)),
        encoder=replace(MANIFEST.encoder, adapter=encoder),
    )
    return packs.make(manifest, head(), folder=folder)


def test_adapters_are_saved_and_loaded_with_their_pack(tmp_path: Path) -> None:
    pack = with_adapters(tmp_path)
    packs.save(pack, tmp_path / "p")
    found = packs.load(tmp_path / "p")
    assert (found.id, found.manifest) == (pack.id, pack.manifest)
    assert (tmp_path / "p" / "s.gguf").read_bytes() == SCORER_ADAPTER
    assert (tmp_path / "p" / "e.gguf").read_bytes() == ENCODER_ADAPTER
    packs.save(found, tmp_path / "p")  # onto itself
    assert packs.load(tmp_path / "p").id == pack.id


def test_the_id_names_the_adapters_and_their_scale(tmp_path: Path, pack: Pack) -> None:
    ids = {pack.id, with_adapters(tmp_path).id, with_adapters(tmp_path, scale=0.25).id}
    assert len(ids) == 3


def test_a_pack_without_adapters_keeps_the_id_it_had_before_there_were_any(pack: Pack, saved: Path) -> None:
    manifest = json.loads((saved / packs.MANIFEST_FILE).read_text())
    assert "adapter" not in manifest["encoder"] | manifest["scorer"]
    compact = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    assert pack.id == f"a-pack-{hashlib.sha256(compact).hexdigest()[:12]}"


def test_what_an_encoder_is_told_comes_back_and_is_in_the_id(pack: Pack, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"n_blocks": None}, {"pooling": "cls"}, {"prefix": "query: "}, {"normalise": True}, {"sha256": "ab"}
    ]  # fmt: skip
    ids = {pack.id}
    for change in changes:
        changed = packs.make(replace(MANIFEST, encoder=replace(MANIFEST.encoder, **change)), head())
        packs.save(changed, tmp_path)
        assert packs.load(tmp_path).manifest == changed.manifest
        ids.add(changed.id)
    assert len(ids) == 1 + len(changes)


def test_the_pack_that_ships_keeps_its_id() -> None:
    card = (SHIPPED / packs.CARD_FILE).read_text()
    assert f"`{packs.load(SHIPPED).id}`" in card


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"pooling": "max"}, r"encoder\.pooling"), ({"prefix": "x" * 241}, "prefix may have 240 characters")],
)
def test_what_no_encoder_can_do_is_refused(saved: Path, changes: dict[str, str], problem: str) -> None:
    edit(saved, lambda manifest: manifest["encoder"].update(changes))
    with pytest.raises(PackInvalid, match=problem):
        packs.load(saved)


def test_a_missing_or_changed_adapter_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    packs.save(with_adapters(tmp_path), folder)
    (folder / "e.gguf").write_bytes(ENCODER_ADAPTER[:-1] + b"?")
    with pytest.raises(PackInvalid, match=r"e\.gguf is not the file that pack\.json names"):
        packs.load(folder)
    (folder / "e.gguf").unlink()
    with pytest.raises(PackInvalid, match=r"e\.gguf cannot be read: No such file"):
        packs.load(folder)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file": "../s.gguf"}, "must be the name of a file in the pack's folder"),
        ({"file": ""}, "must be the name of a file"),
        ({"scale": float("inf")}, "scale inf is not finite"),
    ],
)
def test_an_adapter_that_cannot_be_meant_is_refused(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PackInvalid, match=problem):
        with_adapters(tmp_path, **changes)
