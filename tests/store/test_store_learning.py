"""What learning needs of the store: what was shown, what was chosen, and what is muted."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument, NotFound, StoreError
from edge_reranker.store import Store, choices, forget
from edge_reranker.types import (
    Event,
    EventType,
    Forgotten,
    Item,
    LoggedChoice,
    Ranking,
    Recorded,
    Result,
    Retention,
    Selector,
    Span,
    TypeRetention,
)
from tests.store.parts import removed


def log(
    store: Store, *ranking_ids: str, namespace: str = "app", sources: tuple[str, ...] = (), flush: bool = True
) -> None:
    for ranking_id in ranking_ids:
        ranking = Ranking(ranking_id, (Result("shown", 1),), 1.0)
        detail = f"detail of {ranking_id}".encode()
        store.put_ranking(
            namespace, ranking, surface="", session_id="", created_at=1.0, sources=sources, detail=detail
        )
    # Whatever is recorded next comes behind them.
    if flush:
        store.flush()


def like(name: str, ranking_id: str = "", at: float = 1.0, item_id: str = "") -> Event:
    return Event(name, EventType.LIKE, at, Item(item_id or f"i-{name}"), ranking_id=ranking_id)


def choose(store: Store, name: str, ranking_id: str, at: float = 1.0, namespace: str = "app") -> None:
    """Record an event that chose from a list."""
    store.record(namespace, [like(name, ranking_id, at)], {name: f"choice {name}".encode()})


def chosen(store: Store, namespace: str = "app") -> list[str]:
    return [body.decode().removeprefix("choice ") for _, body in store.choices(namespace)]


@pytest.fixture
def two(store: Store) -> Store:
    """Two namespaces; the shop goes by what happens in the news."""
    for name in ("news", "shop"):
        store.create_namespace(name)
    store.grant("news", "shop", 1.0)
    return store


# What was shown.


def test_a_detail_comes_back_and_is_kept_of_the_newest_200_rankings(store: Store) -> None:
    log(store, *(f"r{n}" for n in range(225)))
    log(store, "other", namespace="another")
    assert store.detail("app", "r224") == b"detail of r224"
    assert store.detail("another", "other") == b"detail of other"
    assert store.detail("app", "unknown") is None
    # At the last prune, with ranking 224, 25 were over; none of the rankings themselves has gone.
    kept = [n for n in range(225) if store.detail("app", f"r{n}") is not None]
    assert kept == list(range(25, 225))
    assert store.counts("app")["rankings"] == 225


def test_a_ranking_without_a_detail_has_none(store: Store) -> None:
    ranking = Ranking("r", (Result("shown", 1),), 1.0)
    store.put_ranking("app", ranking, surface="", session_id="", created_at=1.0)
    store.flush()
    assert store.detail("app", "r") is None
    assert store.ranking("app", "r") == ranking


# What was chosen.


def test_choices_come_back_in_the_order_of_arrival(store: Store) -> None:
    log(store, "r")
    log(store, "r", namespace="another")
    events = [like("a", "r"), Event("view", EventType.VIEW, 1.0), like("b", "r")]
    assert store.record("app", events, {"b": b"B", "a": b"A"}) == Recorded(3, 0)
    store.record("another", [like("a", "r")], {"a": b"another's"})
    choose(store, "c", "r")
    first, second, third = store.choices("app")
    assert [body for _, body in (first, second, third)] == [b"A", b"B", b"choice c"]
    assert first[0] < second[0] < third[0]
    assert store.choices("app", first[0]) == [second, third]
    assert store.choices("app", third[0]) == []
    assert store.choices_state("app") == (3, first[0], third[0])
    assert store.choices_state("nobody") == (0, 0, 0)


def test_only_a_new_event_that_names_a_known_ranking_of_its_namespace_has_a_choice(store: Store) -> None:
    log(store, "r")
    log(store, "foreign", namespace="another")
    choose(store, "a", "r")
    store.record("app", [like("a", "r")], {"a": b"again"})
    store.record("app", [like("twice", "r"), like("twice", "r")], {"twice": b"choice twice"})
    for name, ranking_id in (("unknown", "?"), ("foreign", "foreign"), ("none", "")):
        choose(store, name, ranking_id)
    store.record("app", [like("other", "r")], {"somebody else's": b"x"})
    assert chosen(store) == ["a", "twice"]
    assert store.counts("app")["events"] == 6


def test_a_batch_that_is_refused_leaves_no_choice(store: Store) -> None:
    log(store, "r")
    with pytest.raises(InvalidArgument):
        store.record("app", [like("a", "r"), like("", "r")], {"a": b"A"})
    assert store.choices("app") == []


def test_at_most_the_newest_5000_choices_of_a_namespace_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (choices.MOST, choices.LEAST, choices.PRUNE_EVERY) == (5_000, 4_500, 32)
    for name, value in (("MOST", 20), ("LEAST", 15), ("PRUNE_EVERY", 4)):
        monkeypatch.setattr(choices, name, value)
    log(store, "r")
    log(store, "r", namespace="another")
    choose(store, "another", "r", namespace="another")
    most = 0
    for n in range(60):
        choose(store, str(n), "r")
        kept = chosen(store)
        assert kept == [str(each) for each in range(n + 1 - len(kept), n + 1)], "the newest"
        assert min(n + 1, 15) <= len(kept) <= 20
        most = max(most, len(kept))
    assert most > 20 - 4, "not before they must"
    assert chosen(store, "another") == ["another"]
    assert store.counts("app")["events"] == 60


def test_the_state_of_choices_is_known_whatever_changes_them(
    two: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept in memory, so every way in which a choice comes or goes has to say so."""

    def agrees() -> tuple[int, int, int]:
        seqs = [seq for seq, _ in two.choices("shop")]
        state = two.choices_state("shop")
        assert state == (len(seqs), min(seqs, default=0), max(seqs, default=0))
        return state

    assert agrees() == (0, 0, 0)
    log(two, "own", "more", namespace="shop")
    two.record("news", [like("x")])
    log(two, "lent", namespace="shop", sources=("news",))
    for n in range(6):
        choose(two, f"own{n}", "own", namespace="shop", at=float(n))
        choose(two, f"lent{n}", "lent", namespace="shop", at=-1.0)
        two.record("shop", [like("without"), like(f"own{n}", "own")], {f"own{n}": b"known"})
        assert agrees()[0] == 2 * n + 2
    taken = two.importing("shop")
    for line, record in enumerate((like("i", at=9.0), LoggedChoice("i", b"x")), start=2):
        taken.add(line, record)
    taken.finish()
    taken.close()
    assert agrees()[0] == 13
    two.forget("shop", Selector(event_id="own0"))
    assert agrees()[0] == 12
    two.set_retention("shop", Retention(max_events=10))
    assert sum(step.forgotten.choices for step in two.sweep("shop"))
    before = agrees()[0]
    two.forget("news", Selector(event_id="x"))
    assert 0 < agrees()[0] < before
    log(two, "again", namespace="shop", sources=("news",))
    choose(two, "again", "again", namespace="shop")
    before = agrees()[0]
    two.revoke("news", "shop")
    assert agrees()[0] == before - 1
    monkeypatch.setattr(choices, "LEAST", 1)
    monkeypatch.setattr(choices, "MOST", 1)
    for n in range(33):
        choose(two, f"pruned{n}", "own", namespace="shop")
        agrees()
    assert agrees()[0] < 33
    two.forget("shop", Selector(all_namespaces=True))
    assert agrees() == (0, 0, 0)


def test_foreign_keys_are_on_so_no_choice_is_without_its_event(store: Store) -> None:
    log(store, "r")
    choose(store, "a", "r")
    orphan = "INSERT INTO choices VALUES (99, 'app', 0, '[]', x'00')"
    with pytest.raises(StoreError, match="SQLITE_CONSTRAINT"):
        store._writer.alone(lambda db: db.conn.execute(orphan).fetchall())
    store._writer.submit(lambda db: db.conn.execute("DELETE FROM events").fetchall())
    assert store.choices("app") == []


# Forgetting.


def test_a_choice_goes_with_its_event_and_with_what_was_known_when_it_was_ranked(store: Store) -> None:
    log(store, "before")
    store.record("app", [like("x")])
    log(store, "after")
    choose(store, "a", "before")
    choose(store, "b", "after")
    choose(store, "c", "before")
    told = store.forget("app", Selector(event_id="c"), dry_run=True)
    gone = store.forget("app", Selector(event_id="c"))
    assert gone == told
    # The list behind "b" was ranked before "c" happened.
    assert removed(gone) == Forgotten(events=1, items=1, choices=1)
    assert chosen(store) == ["a", "b"]
    gone = store.forget("app", Selector(event_id="x"))
    assert removed(gone) == Forgotten(events=1, items=1, rankings=1, choices=1)
    assert chosen(store) == ["a"]


def test_a_choice_goes_as_its_ranking_does_though_that_has_gone_before(store: Store) -> None:
    store.record("app", [like("x")])
    log(store, "r")
    choose(store, "a", "r")
    store._writer.submit(lambda db: db.conn.execute("DELETE FROM rankings").fetchall())
    assert store.forget("app", Selector(event_id="x")).choices == 1
    assert chosen(store) == []


SELECTORS = (
    Selector(event_id="x"),
    Selector(item_id="i-x"),
    Selector(type=EventType.LIKE),
    Selector(span=Span(from_s=0.0)),
    Selector(everything=True),
    Selector(all_namespaces=True),
)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("n_rows", [-1, 1, 3])
def test_every_selector_takes_the_choices_also_in_parts(
    store: Store, selector: Selector, n_rows: int
) -> None:
    """In parts as on a full disk: what says that a choice goes must not go before it."""
    log(store, "early")
    store.record(
        "app", [Event("stays", EventType.VIEW, -1.0, Item("s"), ranking_id="early")], {"stays": b"S"}
    )
    store.record("app", [like("x", at=2.0)])
    log(store, "late")
    for n in range(4):
        view = Event(f"v{n}", EventType.VIEW, -1.0, Item("v"), ranking_id="late")
        store.record("app", [view], {view.event_id: b"derived"})
    counted = store.forget("app", selector, dry_run=True)

    def run(db: Database) -> Forgotten:
        sums = dict.fromkeys(("events", "choices", "rankings"), 0)
        while (found := forget.remove(db, "app", selector, n_rows=n_rows)) != Forgotten():
            for kind in sums:
                sums[kind] += getattr(found, kind)
        return Forgotten(**sums)

    total = store._writer.submit(run)
    assert (total.events, total.choices, total.rankings) == (
        counted.events,
        counted.choices,
        counted.rankings,
    )
    whole = selector.everything or selector.all_namespaces
    assert total.choices == (5 if whole else 4)
    assert [body for _, body in store.choices("app")] == ([] if whole else [b"S"])


def test_forgetting_in_the_source_takes_what_its_readers_chose_since(two: Store) -> None:
    log(two, "own", namespace="shop")
    two.record("news", [like("x")])
    log(two, "lent", namespace="shop", sources=("news",))
    choose(two, "a", "own", namespace="shop")
    choose(two, "b", "lent", namespace="shop")
    told = two.forget("news", Selector(event_id="x"), dry_run=True)
    assert two.forget("news", Selector(event_id="x")) == told
    assert told.choices == 1
    assert chosen(two, "shop") == ["a"]


@pytest.mark.parametrize("end", ["revoke", "delete"])
def test_the_end_of_a_grant_takes_what_was_chosen_by_it(two: Store, end: str) -> None:
    log(two, "own", namespace="shop")
    log(two, "lent", namespace="shop", sources=("news",))
    choose(two, "a", "own", namespace="shop")
    choose(two, "b", "lent", namespace="shop")
    if end == "revoke":
        two.revoke("news", "shop")
    else:
        two.delete_namespace("news")
    assert chosen(two, "shop") == ["a"]


def test_the_digest_tells_choices_and_muted_topics_apart(store: Store, tmp_path: Path) -> None:
    nothing = Selector(event_id="none")

    def digest(of: Store) -> str:
        return of.forget("app", nothing, dry_run=True).remaining_digest

    log(store, "r")
    seen = [digest(store)]
    choose(store, "a", "r")
    seen.append(digest(store))
    store.mute("app", "crime")
    seen.append(digest(store))
    store._writer.submit(lambda db: db.conn.execute("DELETE FROM choices").fetchall())
    seen.append(digest(store))
    assert len(set(seen)) == 4
    with Store.open(tmp_path / "another", key_source="file") as another:
        another.mute("app", "Crime")
        store.forget("app", Selector(everything=True))
        assert digest(store) != digest(another)
        store.mute("app", "CRIME")
        assert digest(store) == digest(another)


# Retention.


def test_a_sweep_takes_the_choices_of_what_goes_and_says_how_many(store: Store) -> None:
    now = store.now()
    log(store, "r")
    for n in range(6):
        choose(store, str(n), "r", now - n * 86_400.0)
    store.set_retention("app", Retention(0, 4, (TypeRetention(EventType.VIEW, 0, 1),)))
    gone = [step.forgotten for step in store.sweep("app")]
    assert (sum(each.events for each in gone), sum(each.choices for each in gone)) == (2, 2)
    assert chosen(store) == ["0", "1", "2", "3"]


# Muted topics.


def test_a_topic_is_muted_in_whatever_case_until_it_is_unmuted(store: Store, data_dir: Path) -> None:
    assert store.muted("app") == ()
    for topic in ("Straße", "STRASSE", "crime"):
        store.mute("app", topic)
    assert store.muted("app") == ("crime", "strasse")
    assert store.muted("other") == ()
    store.unmute("app", "Strasse")
    store.unmute("app", "unknown")
    assert store.muted("app") == ("crime",)
    store.close()
    with Store.open(data_dir, key_source="file") as again:
        assert again.muted("app") == ("crime",)


@pytest.mark.parametrize("topic", ["", "\ud800"])
def test_what_is_no_topic_is_refused(store: Store, topic: str) -> None:
    for change in (store.mute, store.unmute):
        with pytest.raises(InvalidArgument, match=r"^topic: "):
            change("app", topic)


def test_muted_topics_go_with_everything_and_with_the_namespace_only(two: Store) -> None:
    two.record("news", [like("a"), like("b")])
    for namespace in ("news", "shop"):
        two.mute(namespace, "crime")
    two.forget("news", Selector(event_id="a"))
    two.forget("news", Selector(everything=True), dry_run=True)
    assert two.muted("news") == ("crime",)
    two.forget("news", Selector(everything=True))
    assert two.muted("news") == ()
    # Also when there is nothing else: the receipt counts what was recorded.
    two.mute("news", "crime")
    assert removed(two.forget("news", Selector(everything=True))) == Forgotten()
    assert two.muted("news") == ()
    two.mute("news", "crime")
    two.delete_namespace("news")
    assert two.muted("news") == ()
    with pytest.raises(NotFound):
        two.mute("news", "crime")
    assert two.muted("shop") == ("crime",)
    two.forget("any", Selector(all_namespaces=True))
    assert two.muted("shop") == ()


def test_after_the_first_look_nothing_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.mute("app", "crime")
    assert store.muted("app") == ("crime",)

    def no_more(query: object) -> None:
        raise AssertionError("the database was asked")

    log(store, "r")
    assert store.choices_state("app") == (0, 0, 0)
    monkeypatch.setattr(store._learning, "_read", no_more)
    store.record("app", [like("a", "r")], {"a": b"A"})
    assert store.muted("app") == ("crime",)
    assert store.choices_state("app") == (1, 1, 1)
