"""A store that an earlier version made is brought to this one's schema, with all that is in it."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from edge_reranker.errors import StoreCorrupt
from edge_reranker.store import Store, migrations, start
from edge_reranker.store.backups import Backups
from edge_reranker.store.damage import problems_of_copy
from edge_reranker.store.open import open_database, open_still
from edge_reranker.types import Event, EventType, Item, PrefixState, Result
from tests.store.databases.make import FOLDER, KEY, steps, stored
from tests.store.parts import assert_refused, fill, fill_up

EVENTS = (
    Event(
        "e1",
        EventType.LIKE,
        1000.0,
        Item("i1", "Heat (1995)", "A heist.", ("Crime",), {"year": "1995"}),
        surface="home",
        session_id="s",
        ranking_id="r1",
        position=3,
    ),
    Event("e2", EventType.VIEW, 2000.0, Item("i2", "Casino (1995)"), dwell_s=12.5),
    Event("e3", EventType.SEARCH, 3000.0, query="crime films"),
)


def events_of(name: str) -> tuple[Event, ...]:
    """The events in the stored database ``name``."""
    first, *others = EVENTS
    told = {"network": "wifi"} if name >= "0008" else {}
    return (replace(first, context=told), *others)


def put(name: str, data_dir: Path) -> Path:
    """The stored database ``name`` as a user would have it."""
    data_dir.mkdir(mode=0o700)
    (data_dir / "key").write_text(KEY.hex)
    return Path(shutil.copy(FOLDER / f"{name}.db", data_dir / "store.db"))


def schema(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(open_still(path, KEY)) as db:
        sql = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_autoindex%' ORDER BY name"
        return [tuple(row) for row in db.conn.execute(sql).fetchall()]


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with contextlib.closing(open_still(path, KEY)) as db:
        tables = [table for table in db.table_names() if table != "_sqlite_migrations"]
        return {table: sorted(db.conn.execute(f"SELECT * FROM [{table}]").fetchall()) for table in tables}


def test_every_earlier_schema_has_a_stored_database() -> None:
    """Missing ones are made by `python -m tests.store.databases.make`, before another step comes."""
    assert set(steps()[:-1]) <= set(stored())
    assert set(stored()) <= set(steps())


@pytest.mark.parametrize("name", stored())
def test_a_stored_database_is_migrated_with_its_content(name: str, data_dir: Path, tmp_path: Path) -> None:
    path = put(name, data_dir)
    before = rows(path)
    with Store.open(data_dir, key_source="file") as store:
        had = steps()[: steps().index(name) + 1]
        assert store.context("app").events == events_of(name)
        assert [e.event_id for e in store.context("other").events] == ["e1"]
        assert store.counts("app") == {"events": 3, "items": 2, "vectors": 1, "rankings": 1}
        assert store.vectors("app", "pack", ["h1"]) == {"h1": bytes.fromhex("00112233")}
        logged = store.ranking("app", "r1")
        assert logged is not None
        assert logged.results == (Result("i1", 1), Result("i2", 0))
        if "0002_prefixes" in had:
            assert store.prefix_state() == PrefixState("app", "print", "e1", b"\1\0\0\0", b"\xff")
        if "0007_learning" in had:
            assert store.detail("app", "r1") == b"\1\2"
            assert store.choices("app") == [(1, b"\3\4")]
            assert store.muted("app") == ("crime",)
        new = Event("new", EventType.LIKE, 4000.0, ranking_id="r1")
        assert store.record("app", [*EVENTS, new], {"new": b"body"}).recorded == 1
        assert store.choices("app", 1) == [(5, b"body")]
        assert store.check() == []
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "key").write_text(KEY.hex)
    fill(tmp_path / "fresh")
    assert schema(path) == schema(tmp_path / "fresh" / "store.db")
    # Before it, a backup was made, as the old version left it.
    copies = Backups(data_dir, KEY).list()
    assert len(copies) == (0 if name == steps()[-1] else 1)
    for copy in copies:
        assert rows(copy.path) == before
        assert problems_of_copy(copy.path, KEY) == []


def with_step(step: object) -> Migrations:
    """The steps that there are, and one more."""
    more = Migrations("edge-reranker")
    with Database(memory=True, execute_plugins=False) as empty:
        for known in migrations.MIGRATIONS.pending(empty):
            more(name=known.name)(known.fn)
    more(name="9000_good")(lambda db: db.execute("CREATE TABLE good (a)"))
    more(name="9001_step")(step)
    return more


def use(monkeypatch: pytest.MonkeyPatch, steps: Migrations) -> None:
    for function in (migrations.applied, migrations.pending, migrations.migrate):
        monkeypatch.setattr(function, "__defaults__", (steps,))


@pytest.mark.parametrize("name", stored())
def test_a_migration_that_fails_leaves_the_database_as_it_was(
    name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps or none: the version that made it can still open it."""
    path = put(name, data_dir)
    before = schema(path), rows(path)

    def fail(db: Database) -> None:
        db.execute("CREATE TABLE half (a)")
        db.execute("DELETE FROM events")
        raise RuntimeError("power loss")

    with monkeypatch.context() as patch:
        use(patch, with_step(fail))
        with pytest.raises(RuntimeError):
            Store.open(data_dir, key_source="file")
    assert (schema(path), rows(path)) == before
    (copy,) = Backups(data_dir, KEY).list()
    assert (schema(copy.path), rows(copy.path)) == before
    with Store.open(data_dir, key_source="file") as store:
        assert store.context("app").events == events_of(name)


def test_a_database_from_a_newer_version_is_refused_and_not_put_aside(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(steps()[-2], data_dir)
    with monkeypatch.context() as patch:
        use(patch, with_step(lambda db: db.execute("CREATE TABLE newer (a)")))
        fill(data_dir)
    assert len(Backups(data_dir, KEY).list()) == 1
    shutil.move(data_dir / "backups", data_dir.parent / "backups")
    assert_refused(data_dir, "made by a newer version of edge-reranker; update it")
    shutil.move(data_dir.parent / "backups", data_dir / "backups")
    with pytest.raises(StoreCorrupt, match="newer version"):
        Store.open(data_dir, key_source="file")
    assert not (data_dir / "quarantine").exists()


def test_a_disk_without_room_for_a_backup_does_not_keep_a_store_from_opening(small_disk: Path) -> None:
    """Whoever must forget something to get room has to get in first."""
    data_dir = small_disk / "data"
    put(steps()[-2], data_dir)
    with Store.open(data_dir, key_source="file") as store:
        assert store.context("app").events == events_of(steps()[-2])
        assert store.backups.list() == []
        fill_up(small_disk)


def test_damage_that_a_migration_meets_is_damage(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backup before it reads every page, so a damaged store is never migrated."""
    path = put(steps()[-2], data_dir)
    copies = Backups(data_dir, KEY)
    copies.make(lambda: start.held_still(lambda: open_database(path, KEY), path))
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with Store.open(data_dir, key_source="file") as store:
        assert store.context("app").events == events_of(steps()[-2])
    assert (data_dir / "quarantine").is_dir()
