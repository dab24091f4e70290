"""A damaged store is put aside for the newest sound backup; a wrong key is never taken for damage."""

from __future__ import annotations

import random
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_reranker.errors import StoreCorrupt, StoreError
from edge_reranker.store import Store
from edge_reranker.store.recovery import mark_told, quarantined
from edge_reranker.types import Event, EventType, Item, Selector
from tests.store.cut_off import cut_off_everywhere
from tests.store.test_backups import flip, until

MakeEvent = Callable[..., Event]

N_EVENTS = 60
PAGE = 4096


@pytest.fixture
def backed_up(data_dir: Path, make_event: MakeEvent) -> Path:
    """A closed store of 40 pages, a backup with all its events but one, and its last event."""
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [make_event(n, title="x" * 1000) for n in range(N_EVENTS)])
        store.back_up()
        store.record("app", [make_event(N_EVENTS)])
    return data_dir


def n_events(data_dir: Path) -> int:
    with Store.open(data_dir, key_source="file") as store:
        assert store.check() == []
        return store.counts("app")["events"]


def meets_damage(data_dir: Path) -> str:
    """When the damage of a store is noticed, which then must be seen to: first of three moments."""
    with Store.open(data_dir, key_source="file") as store:
        if quarantined(data_dir):
            return "at the opening"
        moment = "by a read"
        try:
            store.context("app", 100)
        except StoreCorrupt:
            pass
        else:
            moment = "by the daily check"
            with pytest.raises(StoreCorrupt):
                store.back_up()
        assert until(lambda: bool(quarantined(data_dir)))
        assert until(lambda: store.counts("app")["events"] == N_EVENTS)
        return moment


def test_every_flipped_bit_leads_to_the_newest_backup(backed_up: Path, tmp_path: Path) -> None:
    """As `python -m benchmarks.flips` does 200 times."""
    rng = random.Random(11)
    moments: Counter[str] = Counter()
    size = (backed_up / "store.db").stat().st_size
    for n in range(20):
        place = shutil.copytree(backed_up, tmp_path / f"copy{n}", ignore=shutil.ignore_patterns("reserve"))
        flipped = rng.randrange(size)
        flip(place / "store.db", flipped, 1 << rng.randrange(8))
        # Only that page: a store writes a little by itself when it is opened.
        page = slice(flipped // PAGE * PAGE, (flipped // PAGE + 1) * PAGE)
        damaged = (place / "store.db").read_bytes()[page]
        moments[meets_damage(place)] += 1
        (found,) = quarantined(place)
        assert (Path(found.folder) / "store.db").read_bytes()[page] == damaged
        assert (found.n_events, n_events(place)) == (N_EVENTS, N_EVENTS)
    assert moments["by a read"]
    assert moments["by the daily check"]


def test_damage_in_any_table_leads_to_the_newest_backup(backed_up: Path, tmp_path: Path) -> None:
    """Also in those that are read before anybody asks for anything."""
    tables = "SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0"
    with Store.open(backed_up, key_source="file") as store:
        roots = store._writer.alone(lambda db: db.conn.execute(tables).fetchall())
    assert {"forgets", "grants", "namespaces", "retention", "clock", "events"} <= {name for name, _ in roots}
    for name, page in roots:
        place = shutil.copytree(backed_up, tmp_path / name, ignore=shutil.ignore_patterns("reserve"))
        flip(place / "store.db", (page - 1) * PAGE + 99)
        meets_damage(place)
        assert (len(quarantined(place)), n_events(place)) == (1, N_EVENTS), name


@pytest.mark.parametrize("place", [0, 15, 16, 100, PAGE - 1])
def test_a_flip_in_the_first_page_is_told_from_a_wrong_key(backed_up: Path, place: int) -> None:
    """The first 16 bytes are the salt: with another one, no page has a right HMAC any more."""
    flip(backed_up / "store.db", place)
    assert n_events(backed_up) == N_EVENTS
    assert len(quarantined(backed_up)) == 1


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 40 * PAGE], ids=["empty", "short", "zeros"])
def test_a_file_without_content_is_replaced(backed_up: Path, content: bytes) -> None:
    (backed_up / "store.db").write_bytes(content)
    assert n_events(backed_up) == N_EVENTS
    (found,) = quarantined(backed_up)
    assert (Path(found.folder) / "store.db").read_bytes() == content


@pytest.mark.parametrize("cut", [1, PAGE, 5 * PAGE + 7])
def test_a_file_that_was_cut_off_is_replaced(backed_up: Path, cut: int) -> None:
    path = backed_up / "store.db"
    path.write_bytes(path.read_bytes()[:-cut])
    with Store.open(backed_up, key_source="file") as store:
        if not quarantined(backed_up):
            with pytest.raises(StoreCorrupt):
                store.back_up()
            assert until(lambda: bool(quarantined(backed_up)))
    assert n_events(backed_up) == N_EVENTS


def test_a_wrong_key_puts_nothing_aside(backed_up: Path) -> None:
    (backed_up / "key").write_text("ab" * 32)
    before = (backed_up / "store.db").read_bytes()
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=r"the key is not that of .*key import"):
            Store.open(backed_up, key_source="file")
    assert (backed_up / "store.db").read_bytes() == before
    assert not (backed_up / "quarantine").exists()
    assert len(list((backed_up / "backups").iterdir())) == 1


def test_a_wrong_key_puts_nothing_aside_without_the_key_check(backed_up: Path) -> None:
    (backed_up / "key-check").unlink()
    (backed_up / "key").write_text("ab" * 32)
    with pytest.raises(StoreCorrupt, match="or its key is not the right one"):
        Store.open(backed_up, key_source="file")
    assert not (backed_up / "quarantine").exists()


def test_a_lost_key_puts_nothing_aside(backed_up: Path) -> None:
    (backed_up / "key").unlink()
    with pytest.raises(StoreCorrupt, match=r"is gone .*key import"):
        Store.open(backed_up, key_source="file")
    assert (backed_up / "store.db").exists()
    assert not (backed_up / "quarantine").exists()
    assert not (backed_up / "key").exists()


def test_a_store_of_another_key_is_not_put_aside(backed_up: Path, tmp_path: Path) -> None:
    """As after copying store.db from another machine: the key here opens the backups, but not this file."""
    with Store.open(tmp_path / "other", key_source="file") as other:
        other.record("app", [Event("precious", EventType.LIKE, 1.0, Item("i"))])
    shutil.copy(tmp_path / "other" / "store.db", backed_up / "store.db")
    with pytest.raises(StoreCorrupt, match="damaged as a whole, or its key is not the right one"):
        Store.open(backed_up, key_source="file")
    shutil.copy(tmp_path / "other" / "key", backed_up / "key")
    with Store.open(backed_up, key_source="file") as store:
        assert [e.event_id for e in store.context("app").events] == ["precious"]


def test_without_a_sound_backup_a_damaged_store_is_left_and_the_way_out_named(backed_up: Path) -> None:
    for backup in (backed_up / "backups").iterdir():
        flip(backup, 7 * PAGE + 5)
    path = backed_up / "store.db"
    flip(path, 300)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"put back the key or a backup, or move the file away"):
        Store.open(backed_up, key_source="file")
    assert path.read_bytes() == before
    assert not (backed_up / "quarantine").exists()


def test_an_older_backup_takes_the_place_of_a_damaged_newer_one(
    data_dir: Path, make_event: MakeEvent
) -> None:
    with Store.open(data_dir, key_source="file") as store:
        for n in range(3):
            store.record("app", [make_event(n)])
            store.back_up()
        newer = store.backups.list()[1:]
    for backup in newer:
        flip(backup.path, 5 * PAGE + 50)
    flip(data_dir / "store.db", 300)
    assert n_events(data_dir) == 1
    assert quarantined(data_dir)[0].backup == "000001" + quarantined(data_dir)[0].backup[6:]


def test_the_log_goes_with_the_store_that_it_belongs_to(
    data_dir: Path, tmp_path: Path, make_event: MakeEvent
) -> None:
    """Played into the backup it would spoil that."""
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [make_event(n) for n in range(20)])
        store.back_up()
        store.record("app", [make_event(n) for n in range(20, 40)])
        crashed = shutil.copytree(data_dir, tmp_path / "crashed")
    (crashed / "store.db").write_bytes(b"")
    assert (crashed / "store.db-wal").stat().st_size > 0
    assert n_events(crashed) == 20
    assert (Path(quarantined(crashed)[0].folder) / "store.db-wal").stat().st_size > 0


def test_a_page_that_only_a_crash_tore_is_mended_from_the_log(
    data_dir: Path, tmp_path: Path, make_event: MakeEvent
) -> None:
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [make_event(n) for n in range(20)])
        store.back_up()
        store.record("app", [make_event(n) for n in range(20, 40)])
        root = "SELECT rootpage FROM sqlite_master WHERE name = 'events'"
        page = store._writer.alone(lambda db: db.execute(root).fetchone()[0])
        crashed = shutil.copytree(data_dir, tmp_path / "crashed")
    flip(crashed / "store.db", (page - 1) * PAGE + 200)
    assert n_events(crashed) == 40
    assert quarantined(crashed) == []


def test_a_disk_that_does_not_answer_is_no_damage(backed_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_reranker.store import damage

    def refuse(*_: object) -> list[str]:
        raise StoreError("cannot be read in full; check the disk")

    with Store.open(backed_up, key_source="file") as store:
        monkeypatch.setattr(damage, "wrong_pages_of", refuse)
        store._care.suspect()
        store.flush()
        assert store.counts("app")["events"] == N_EVENTS + 1
    assert quarantined(backed_up) == []


def test_a_suspicion_without_damage_changes_nothing(backed_up: Path) -> None:
    with Store.open(backed_up, key_source="file") as store:
        before = store.generation("app")
        store._care.suspect()
        store.flush()
        assert store.counts("app")["events"] == N_EVENTS + 1
        assert store.generation("app") == before
    assert quarantined(backed_up) == []


def test_whoever_remembers_the_events_is_told_that_they_are_others(backed_up: Path) -> None:
    with Store.open(backed_up, key_source="file") as store:
        before = store.generation("app")
        flip(backed_up / "store.db", 20 * PAGE + 5)
        with pytest.raises(StoreCorrupt):
            store.back_up()
        assert until(lambda: store.generation("app") != before)
        assert store.record("app", [Event("new", EventType.LIKE, 1.0)]).recorded == 1


def test_everything_of_the_exchange_is_the_owners_alone(backed_up: Path) -> None:
    flip(backed_up / "store.db", 300)
    assert n_events(backed_up) == N_EVENTS
    for path in backed_up.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_happened_is_told_once_at_a_start_and_kept(backed_up: Path) -> None:
    flip(backed_up / "store.db", 300)
    n_events(backed_up)
    (told,) = mark_told(backed_up)
    assert mark_told(backed_up) == []
    assert [one.folder for one in quarantined(backed_up)] == [told.folder]
    text = str(told)
    assert told.folder in text
    assert f"{N_EVENTS} events" in text


def test_forgetting_leaves_nothing_in_quarantine(backed_up: Path) -> None:
    flip(backed_up / "store.db", 300)
    with Store.open(backed_up, key_source="file") as store:
        store.forget("app", Selector(event_id="e1"))
    assert quarantined(backed_up) == []
    assert not any(p.is_file() for p in (backed_up / "quarantine").rglob("*"))
    assert store.backups.list() == []


def test_an_exchange_that_is_cut_off_anywhere_is_carried_on(backed_up: Path, tmp_path: Path) -> None:
    flip(backed_up / "store.db", 300)
    shutil.copy(backed_up / "store.db", backed_up / "store.db-wal")
    damaged = (backed_up / "store.db").read_bytes()
    places = cut_off_everywhere("open", backed_up, tmp_path / "cut")
    assert len(places) > 8
    for place in places:
        assert n_events(place) == N_EVENTS
        (found,) = quarantined(place)
        assert (Path(found.folder) / "store.db").read_bytes() == damaged
        assert len(list((place / "quarantine").iterdir())) == 1
        assert not list(place.glob("*.part")) + list(place.glob("*.restored"))
