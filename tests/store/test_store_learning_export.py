"""Choices and muted topics in an export: what comes back means the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge_reranker.errors import InvalidArgument, StoreBusy
from edge_reranker.store import Store, choices
from edge_reranker.types import Event, EventType, Item, LoggedChoice, MutedTopic, Record, Selector
from tests.store.test_store_export import exported, imported
from tests.store.test_store_learning import choose, chosen, like, log

_N = 15


def learned(records: list[Record]) -> list[Record]:
    return [each for each in records if isinstance(each, LoggedChoice | MutedTopic)]


@pytest.fixture
def filled(store: Store) -> Store:
    """Events, lists between them, and choices of earlier and later lists; another namespace's in between."""
    draw = random.Random(0)
    for n in range(_N):
        log(store, f"r{n}", flush=False)
        store.record("another", [like(f"x{n}")])
        chose = like(f"c{n}", f"r{draw.randint(max(0, n - 3), n)}")
        store.record("app", [like(f"e{n}"), chose], {chose.event_id: f"choice {chose.event_id}".encode()})
    for topic in ("crime", "Straße"):
        store.mute("app", topic)
    return store


def test_choices_and_topics_come_back_as_they_were(filled: Store, tmp_path: Path) -> None:
    records = exported(filled)
    assert learned(records)[-2:] == [MutedTopic("crime"), MutedTopic("strasse")]
    assert len(learned(records)) == _N + 2
    with Store.open(tmp_path / "other", key_source="file") as other:
        assert imported(other, records) == (2 * _N, 0)
        assert exported(other) == records
        assert chosen(other) == chosen(filled)
        assert other.muted("app") == ("crime", "strasse")
        # A second time changes nothing.
        assert imported(other, records) == (0, 2 * _N)
        assert exported(other) == records


@pytest.mark.parametrize("forgotten", ["e1", "e9", "c5", "c14"])
def test_an_imported_choice_goes_with_what_it_would_have_gone_with(
    filled: Store, tmp_path: Path, forgotten: str
) -> None:
    """What was known when its list was ranked is told by event, not by the numbers of one database."""
    with Store.open(tmp_path / "other", key_source="file") as other:
        other.record("another", [like("y1"), like("y2")])
        imported(other, exported(filled))
        gone = filled.forget("app", Selector(event_id=forgotten))
        assert other.forget("app", Selector(event_id=forgotten)).choices == gone.choices
        assert 1 <= gone.choices < _N, "some, not all"
        assert learned(exported(other)) == learned(exported(filled))


def test_among_events_that_were_there_before_a_choice_goes_rather_too_early(
    filled: Store, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "other", key_source="file") as other:
        # Known already, and numbered before all others: by numbers alone, e0 would not be known to any list.
        other.record("app", [like("e14")])
        imported(other, exported(filled))
        assert chosen(other) == chosen(filled)
        other.forget("app", Selector(event_id="e0"))
        assert chosen(other) == []


@pytest.mark.parametrize("granted", [True, False])
def test_what_came_by_a_grant_is_taken_where_it_is_granted_and_goes_with_it(
    store: Store, tmp_path: Path, granted: bool
) -> None:
    log(store, "own", namespace="shop")
    log(store, "lent", namespace="shop", sources=("news",))
    choose(store, "a", "own", namespace="shop")
    choose(store, "b", "lent", namespace="shop")
    with Store.open(tmp_path / "other", key_source="file") as other:
        for name in ("news", "shop"):
            other.create_namespace(name)
        if granted:
            other.grant("news", "shop", 1.0)
        other.record("news", [like("x")])
        imported(other, exported(store, "shop"), "shop")
        assert chosen(other, "shop") == (["a", "b"] if granted else ["a"])
        other.forget("news", Selector(event_id="x"))
        assert chosen(other, "shop") == ["a"]


A = Event("a", EventType.LIKE, 1.0, Item("i"))
BAD: dict[str, tuple[list[Record], str]] = {
    "of no event": ([LoggedChoice("a", b"x")], r"^choice\.event_id: is of no event before it"),
    "before its event": ([LoggedChoice("a", b"x"), A], r"^choice\.event_id: is of no event before it"),
    "twice": (
        [A, LoggedChoice("a", b"x"), LoggedChoice("a", b"y")],
        r"^choice\.event_id: is the same as in line 3;",
    ),
    "known to nothing": ([A, LoggedChoice("a", b"x", "b")], r"^choice\.newest_event_id: is of no event"),
    "a topic twice": ([MutedTopic("t"), MutedTopic("t")], r"^muted\.topic: is the same as in line 2;"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_together_is_refused(store: Store, kind: str) -> None:
    records, message = BAD[kind]
    with pytest.raises(InvalidArgument, match=message):
        imported(store, records)
    assert exported(store) == []


def test_an_export_without_them_is_still_taken(store: Store) -> None:
    """As an earlier version wrote it."""
    store.mute("app", "crime")
    assert imported(store, [A]) == (1, 0)
    assert exported(store) == [A, MutedTopic("crime")]


@pytest.mark.parametrize("gone", [{"event_id": "e0"}, {"everything": True}])
def test_an_export_during_which_choices_or_topics_were_forgotten_is_void(
    store: Store, gone: dict[str, object]
) -> None:
    """Also when they are all that went: the event is another namespace's, or there is none."""
    for name in ("news", "app"):
        store.create_namespace(name)
    store.grant("news", "app", 1.0)
    if "event_id" in gone:
        store.record("news", [like("e0")])
        log(store, "r", sources=("news",))
        choose(store, "a", "r")
        # Else the ranking would say it.
        store._writer.submit(lambda db: db.conn.execute("DELETE FROM rankings").fetchall())
    else:
        store.mute("app", "crime")
    pages = store.export("app")
    next(pages)
    store.forget("news" if "event_id" in gone else "app", Selector(**gone))  # type: ignore[arg-type]
    with pytest.raises(StoreBusy, match="export again"):
        list(pages)
    assert learned(exported(store)) == []


def test_the_oldest_choices_may_go_during_an_export(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MOST", 5), ("LEAST", 2), ("PRUNE_EVERY", 1)):
        monkeypatch.setattr(choices, name, value)
    log(store, "r")
    for n in range(4):
        choose(store, str(n), "r")
    pages = store.export("app")
    next(pages)
    choose(store, "4", "r")
    rest = [record for page in pages for record in page]
    assert [each.event_id for each in learned(rest) if isinstance(each, LoggedChoice)] == ["3"]
