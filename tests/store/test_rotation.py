"""The key: changed, written under a passphrase, taken back; and never anywhere else."""

from __future__ import annotations

import io
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_reranker.errors import FailedPrecondition, InvalidArgument, StoreCorrupt
from edge_reranker.store import Store, passphrase, rotation
from edge_reranker.store.backups import Backups
from edge_reranker.types import Event
from tests.store.cut_off import cut_off_everywhere
from tests.store.test_backups import event_ids, flip, key_of
from tests.store.test_store_keys import MemoryKeyring, memory_keyring  # noqa: F401 (a fixture)

MakeEvent = Callable[..., Event]
PAGE = 4096


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_LOG_N", 4)


@pytest.fixture
def filled(data_dir: Path, make_event: MakeEvent) -> Path:
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [make_event(n) for n in range(30)])
        store.back_up()
        store.record("app", [make_event(30)])
    return data_dir


def n_events(data_dir: Path, source: str = "file") -> int:
    with Store.open(data_dir, key_source=source) as store:
        assert store.check() == []
        return store.counts("app")["events"]


def test_a_new_key_opens_everything_and_the_old_one_nothing(filled: Path) -> None:
    old = key_of(filled)
    gone = rotation.rotate(filled, source="file")
    new = key_of(filled)
    assert old.hex != new.hex
    assert gone == rotation.Rotated(1, 0)
    assert not rotation.belongs(filled / "store.db", old)
    (backup,) = Backups(filled, new).list()
    assert len(event_ids(backup.path, new)) == 31
    assert Backups(filled, old).n_events(backup) is None
    assert n_events(filled) == 31
    names = {p.name for p in filled.iterdir()}
    assert names == {"key", "key-check", "store.db", "backups", "reserve"}
    assert all(stat.S_IMODE(p.stat().st_mode) == (0o700 if p.is_dir() else 0o600) for p in filled.rglob("*"))


def test_a_change_that_is_cut_off_anywhere_leaves_one_key_that_opens_all(
    filled: Path, tmp_path: Path
) -> None:
    old = key_of(filled)
    places = cut_off_everywhere("rotate", filled, tmp_path / "cut")
    assert len(places) > 8
    changed = []
    for place in places:
        assert n_events(place) == 31
        key = key_of(place)
        changed.append(key.hex != old.hex)
        assert not list(place.glob("key*.new")) + list(place.glob("*.part"))
        for backup in Backups(place, key).list():
            assert Backups(place, key).n_events(backup) in (30, 31)
    # Once it is through it stays so: never back to the old one after the new.
    assert changed == sorted(changed)
    assert changed[0] is False
    assert changed[-1] is True


def test_damage_between_the_two_keys_costs_neither_key_nor_backup(filled: Path, tmp_path: Path) -> None:
    refused = 0
    for place in cut_off_everywhere("rotate", filled, tmp_path / "cut")[::3]:
        flip(place / "store.db", 200)
        try:
            assert n_events(place) in (30, 31)
        except StoreCorrupt as error:
            assert "was damaged while its key was being changed" in str(error)  # noqa: PT017
            refused += 1
            old = Backups(place, key_of(place))
            for name in ("store.db", "key.new"):
                (place / name).unlink()
            assert [old.n_events(b) for b in old.list()] == [30]
    assert refused <= 3


def test_a_damaged_store_gets_no_new_key(filled: Path) -> None:
    flip(filled / "store.db", 12 * PAGE + 5)
    before = (filled / "store.db").read_bytes(), (filled / "key").read_bytes()
    with pytest.raises(StoreCorrupt, match="backup restore"):
        rotation.rotate(filled, source="file")
    assert ((filled / "store.db").read_bytes(), (filled / "key").read_bytes()) == before
    assert not list(filled.glob("*.new")) + list(filled.glob("*.part"))


def test_where_there_is_no_store_no_key_is_changed(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no store"):
        rotation.rotate(tmp_path, source="file")
    assert list(tmp_path.iterdir()) == []


def test_a_key_in_the_keyring_is_changed_there(
    data_dir: Path,
    make_event: MakeEvent,
    ring: MemoryKeyring,
) -> None:
    with Store.open(data_dir) as store:
        store.record("app", [make_event(1)])
    ((_, old),) = ring.entries.items()
    rotation.rotate(data_dir, source="auto")
    ((_, new),) = ring.entries.items()
    assert old != new
    assert n_events(data_dir, "auto") == 1
    assert not (data_dir / "key").exists()


def test_a_keyring_that_refuses_changes_nothing(
    data_dir: Path,
    make_event: MakeEvent,
    ring: MemoryKeyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Store.open(data_dir) as store:
        store.record("app", [make_event(1)])

    def refuse(*_: str) -> None:
        raise RuntimeError("read-only")

    monkeypatch.setattr(ring, "set_password", refuse)
    with pytest.raises(Exception, match="keyring did not take"):
        rotation.rotate(data_dir, source="auto")
    assert n_events(data_dir, "auto") == 1
    assert {p.name for p in data_dir.iterdir()} == {"key-check", "key-id", "reserve", "store.db"}


def test_an_exported_key_opens_the_store_again(filled: Path, tmp_path: Path) -> None:
    out = tmp_path / "key.age"
    secret = (filled / "key").read_text()
    rotation.export_key(filled, out, "four words are better", source="file")
    assert secret.encode() not in out.read_bytes()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    (filled / "key").unlink()
    with pytest.raises(StoreCorrupt, match="key import"):
        Store.open(filled, key_source="file")
    rotation.import_key(filled, out, "four words are better", source="file")
    assert (filled / "key").read_text() == secret
    assert n_events(filled) == 31


def test_a_wrong_key_is_replaced_by_the_exported_one(filled: Path, tmp_path: Path) -> None:
    rotation.export_key(filled, tmp_path / "out", "words", source="file")
    (filled / "key").write_text("ab" * 32)
    rotation.import_key(filled, tmp_path / "out", "words", source="file")
    assert n_events(filled) == 31


def test_a_key_comes_before_a_store_that_is_put_back_later(filled: Path, tmp_path: Path) -> None:
    rotation.export_key(filled, tmp_path / "out", "words", source="file")
    rotation.import_key(tmp_path / "new", tmp_path / "out", "words", source="file")
    shutil.copy(filled / "store.db", tmp_path / "new" / "store.db")
    assert n_events(tmp_path / "new") == 31


def test_what_cannot_be_imported_changes_nothing(filled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rotation.export_key(filled, out, "words", source="file")
    with pytest.raises(FailedPrecondition, match="exists; choose another name"):
        rotation.export_key(filled, out, "words", source="file")
    with pytest.raises(InvalidArgument, match="passphrase: does not open"):
        rotation.import_key(filled, out, "other words", source="file")
    with pytest.raises(FailedPrecondition, match="has this key already"):
        rotation.import_key(filled, out, "words", source="file")
    rotation.rotate(filled, source="file")
    before = (filled / "key").read_bytes()
    with pytest.raises(FailedPrecondition, match="is not that of"):
        rotation.import_key(filled, out, "words", source="file")
    odd = io.BytesIO()
    passphrase.encrypt(io.BytesIO(json.dumps({"format": "other", "key": "ab" * 32}).encode()), odd, "words")
    (tmp_path / "odd").write_bytes(odd.getvalue())
    with pytest.raises(InvalidArgument, match="holds no key"):
        rotation.import_key(filled, tmp_path / "odd", "words", source="file")
    assert (filled / "key").read_bytes() == before
    assert n_events(filled) == 31
