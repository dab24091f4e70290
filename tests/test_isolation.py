"""One app neither sees nor influences another, unless the owner grants it, and only until it is revoked."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.models import Pack
from edge_reranker.pipeline import Pipeline
from edge_reranker.scoring import CrossScorer, public, tier2
from edge_reranker.scoring.kept import Kept
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Event, EventType, Item, RerankQuery, Selector
from tests.parts import N_DIMS, film, films, liked, small_pack

LONG = Deadline()
RUNS = itertools.count()


@contextlib.contextmanager
def service(
    folder: Path, encoder: FakeEngine | None = None, *, scorer: bool = True
) -> Iterator[tuple[Pipeline, Store]]:
    pack = small_pack(scorer_weight=3.0 if scorer else 0.0, n_learned=N_DIMS // 2)
    with Store.open(folder, key_source="file") as store:
        tiers = make_tiers(pack, store, encoder or FakeEngine(), FakeEngine() if scorer else None)
        whole = Pipeline(store, tiers, clock=lambda: 1.2e9)
        try:
            yield whole, store
        finally:
            whole.close()


def settle(whole: Pipeline) -> None:
    background = whole._current.value.tiers.background
    assert background is not None
    assert background.wait_idle(Deadline.after_ms(20_000))


@dataclasses.dataclass(frozen=True)
class Act:
    """One thing that an app does."""

    app: str
    kind: str
    numbers: tuple[int, ...]
    query: str = ""
    event: EventType = EventType.LIKE
    vectors: str = ""
    at: int = 0

    def of(self, whole: Pipeline, namespace: str, pack: Pack) -> object:
        """Does it; what the app gets for it, but for what is drawn anew each time."""
        if self.kind == "forget":
            return whole.forget(namespace, Selector(item_id=f"f{self.numbers[0]}")).events
        if self.kind == "list":
            page, token = whole.events(namespace, 3, "")
            return page, token, whole.events(namespace, 3, token)
        if self.kind == "record":
            events = [
                Event(f"e{self.at}-{n}", self.event, 1e9 + self.at, film(n), self.query, ranking_id="theirs")
                for n in self.numbers
            ]
            return whole.record(namespace, events)
        made = [self.candidate(number, pack) for number in self.numbers]
        ranking = whole.rerank(namespace, RerankQuery(tuple(made), self.query), LONG)
        return ranking.results, ranking.coverage, ranking.degraded_reason, ranking.model, ranking.pack

    def candidate(self, number: int, pack: Pack) -> Candidate:
        """A film, with a vector of the app's own where it has some, also a false one of the pack's."""
        if not self.vectors:
            return Candidate(film(number))
        space = pack.id if self.vectors == "pack" else self.vectors
        values = [
            float((number * 37 + place * place * 11 + len(self.app)) % 17 - 8) for place in range(N_DIMS)
        ]
        return Candidate(film(number), vector=tuple(values), vector_space=space)


numbers = st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True).map(tuple)
act = st.builds(
    Act,
    app=st.sampled_from(["a", "bb"]),
    kind=st.sampled_from(["record", "record", "rerank", "rerank", "rerank", "forget", "list"]),
    numbers=numbers,
    query=st.sampled_from(["", "", "film 3 comedy"]),
    event=st.sampled_from([EventType.LIKE, EventType.CLICK, EventType.HIDE]),
    vectors=st.sampled_from(["", "", "own", "pack"]),
)
acts = st.lists(act, min_size=2, max_size=8).map(
    lambda found: [dataclasses.replace(each, at=at) for at, each in enumerate(found)]
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Pipeline]]:
    """Two services that are asked the same, but for what is tested. Little is kept, so that all gives way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public, "_MAX_REMEMBERED", 6)
        # Where a window that is full begins depends on when it was last read, whatever other apps do.
        patch.setattr(tier2, "_MAX_PREFIX_TOKENS", 100_000)
        with (
            service(tmp_path_factory.mktemp("two")) as (two, _),
            service(tmp_path_factory.mktemp("one")) as (one, _),
        ):
            yield two, one


@settings(max_examples=40, deadline=None)
@given(acts=acts)
def test_an_apps_answers_have_the_same_bits_as_if_there_were_no_other(
    both: tuple[Pipeline, Pipeline], acts: list[Act]
) -> None:
    two, one = both
    pack, run = small_pack(n_learned=N_DIMS // 2), next(RUNS)
    for each in acts:
        answer = each.of(two, f"{each.app}{run}", pack)
        if each.app == "a":
            assert answer == each.of(one, f"{each.app}{run}", pack), each


@settings(max_examples=20, deadline=None)
@given(before=acts, during=acts, after=numbers)
def test_after_a_revoke_the_readers_answers_are_those_of_a_store_without_the_grant(
    both: tuple[Pipeline, Pipeline], before: list[Act], during: list[Act], after: tuple[int, ...]
) -> None:
    pack, run = small_pack(n_learned=N_DIMS // 2), next(RUNS)
    names = {app: f"{app}{run}" for app in ("a", "bb")}
    during = [dataclasses.replace(each, at=each.at + 100) for each in during]
    for whole in both:
        for name in names.values():
            whole.create_namespace(name)
        for each in before:
            each.of(whole, names[each.app], pack)
    granted = both[0]
    granted.grant(names["bb"], names["a"])
    for each in during:
        for whole in both:
            each.of(whole, names[each.app], pack)
    granted.revoke(names["bb"], names["a"])
    for each in (Act("a", "rerank", after), Act("a", "list", after), Act("bb", "rerank", after)):
        answers = [each.of(whole, names[each.app], pack) for whole in both]
        assert answers[0] == answers[1]


def test_a_grant_lets_the_readers_order_go_by_the_sources_events(tmp_path: Path) -> None:
    with service(tmp_path) as (whole, store):
        for name in ("shop", "news"):
            whole.create_namespace(name)
        whole.record("news", liked(7))
        before = whole.rerank("shop", RerankQuery(films(12)), LONG)
        whole.grant("news", "shop")
        granted = whole.rerank("shop", RerankQuery(films(12)), LONG)
        whole.record("news", liked(3, at_s=1.1e9))
        renewed = whole.rerank("shop", RerankQuery(films(12)), LONG)
        store.flush()
        assert [result.id for result in before.results] == [f"f{n}" for n in range(12)]
        assert granted.results != before.results
        assert renewed.results != granted.results
        # What follows from the source's events alone is the source's, so that it goes with those.
        assert whole.events("shop", 10, "") == ([], "")
        assert whole.rerank("news", RerankQuery(films(12)), LONG).results == renewed.results
        whole.forget("news", Selector(everything=True))
        after = whole.rerank("shop", RerankQuery(films(12)), LONG)
        store.flush()
        assert after.results == before.results
        assert [store.ranking("shop", each.ranking_id) is None for each in (before, granted, renewed)] == [
            False,
            True,
            True,
        ]


def test_vectors_of_what_a_grant_showed_are_kept_with_the_source(tmp_path: Path) -> None:
    with service(tmp_path) as (whole, store):
        for name in ("shop", "news"):
            whole.create_namespace(name)
        whole.grant("news", "shop")
        whole.record("news", liked(7))
        whole.rerank("shop", RerankQuery(films(3)), LONG)
        settle(whole)
        store.flush()
        assert store.counts("shop")["vectors"] == 3
        assert store.counts("news")["vectors"] == 1


def test_nothing_of_the_source_is_in_memory_for_the_reader_after_a_revoke(tmp_path: Path) -> None:
    with service(tmp_path) as (whole, _):
        for name in ("shop", "news"):
            whole.create_namespace(name)
        whole.grant("news", "shop")
        whole.record("news", [Event("e", EventType.LIKE, 1e9, Item("n", "A canary of the news"))])
        settle(whole)
        whole.rerank("shop", RerankQuery(films(3)), LONG)
        tiers = whole._current.value.tiers
        reader = tiers.tier2
        assert isinstance(reader, CrossScorer)
        assert reader.last is not None
        assert reader.last.owner.namespace == "shop"
        assert b"canary" in bytes(reader.last.ids)
        whole.revoke("news", "shop")
        whole.rerank("shop", RerankQuery(films(3), query="film"), LONG)
        settle(whole)
        assert whole._users.now(tiers, "shop").context.events == ()
        assert b"canary" not in bytes(reader.last.ids)


def test_a_forget_in_the_source_equals_a_source_that_never_knew(tmp_path: Path) -> None:
    orders = []
    for knew in (True, False):
        with service(tmp_path / str(knew)) as (whole, _):
            for name in ("shop", "news"):
                whole.create_namespace(name)
            whole.grant("news", "shop")
            whole.record("shop", liked(2))
            whole.record("news", liked(5, 7) if knew else liked(5))
            whole.rerank("shop", RerankQuery(films(12)), LONG)
            whole.forget("news", Selector(event_id="e7"))
            orders.append(whole.rerank("shop", RerankQuery(films(12)), LONG).results)
    assert orders[0] == orders[1]


def test_what_is_under_way_in_a_deleted_namespace_leaves_nothing(tmp_path: Path) -> None:
    with service(tmp_path) as (whole, store):
        whole.create_namespace("news")
        whole.record("news", liked(1))
        stream = whole.rerank_stream("news", RerankQuery(films(9)), LONG)
        next(stream)
        whole.delete_namespace("news")
        list(stream)
        whole.rerank("news", RerankQuery(films(9), query="film"), LONG)  # admitted just before
        settle(whole)
        store.flush()
        assert not any(store.counts("news").values())
        whole.create_namespace("news")
        whole.rerank("news", RerankQuery(films(9)), LONG)
        settle(whole)
        store.flush()
        assert store.counts("news") == {"events": 0, "items": 0, "vectors": 9, "rankings": 1}


def test_what_another_app_has_cached_saves_an_app_no_work(tmp_path: Path) -> None:
    """Else the time of an answer would tell which items the other has seen."""
    encoded = []
    for other in (False, True):
        engine = FakeEngine()
        with service(tmp_path / str(other), engine, scorer=False) as (whole, _):
            if other:
                whole.record("b", liked(1, 2))
                whole.rerank("b", RerankQuery(films(20)), LONG)
                settle(whole)
            before = engine.encoded
            whole.record("a", liked(3))
            settle(whole)
            whole.rerank("a", RerankQuery(films(20)), LONG)
            settle(whole)
            encoded.append(engine.encoded - before)
    assert encoded == [20, 20]


def test_a_long_queue_of_one_app_keeps_none_of_another_waiting(tmp_path: Path) -> None:
    engine = FakeEngine(ms_per_sequence=2.0)
    with service(tmp_path, engine, scorer=False) as (whole, store):
        for first in range(0, 2_000, 500):
            whole.rerank("b", RerankQuery(films(500, first)), LONG)  # nobody is known: all is left for later
        whole.record("a", liked(1, 2, 3))
        until = time.monotonic() + 20
        while store.counts("a")["vectors"] < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert engine.encoded < 500, "not behind the 2,000"


def test_threads_of_two_apps_at_once_get_each_their_own(tmp_path: Path) -> None:
    with service(tmp_path) as (whole, _):
        whole.record("a", liked(1))
        whole.record("b", liked(2))
        expected = {app: whole.rerank(app, RerankQuery(films(9)), LONG).results for app in "ab"}
        wrong: list[str] = []

        def ask(app: str) -> None:
            for _ in range(20):
                if whole.rerank(app, RerankQuery(films(9)), LONG).results != expected[app]:
                    wrong.append(app)

        threads = [threading.Thread(target=ask, args=(app,)) for app in "abab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_lists_of_one_app_push_out_none_of_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the backend's vectors say of an item that is picked later would be lost with them."""
    monkeypatch.setattr(public, "_MAX_REMEMBERED", 6)
    with service(tmp_path) as (whole, _):
        for app in ("a", "b"):
            listed = [c._replace(vector=(1.0, float(n)), vector_space="own") for n, c in enumerate(films(6))]
            whole.rerank(app, RerankQuery(tuple(listed)), LONG)
        whole.record("a", liked(*range(6)))
        tiers = whole._current.value.tiers
        assert tiers.public is not None
        user = whole._users.now(tiers, "a")
        assert len(tiers.public.history(user.owner, frozenset({"own"}), user.profile)["own"]) == 6


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60), st.integers(1, 12))
def test_an_equal_share_of_the_room_is_never_taken(puts: list[tuple[str, int]], most: int) -> None:
    shared, own = Kept[int, int](most), Kept[int, int](most, each=True)
    newest: dict[str, list[int]] = {}
    for app, key in puts:
        newest[app] = [each for each in newest.get(app, []) if each != key] + [key]
        for kept in (shared, own):
            kept.put(app, key, key)
        assert len(shared) <= most
        for each, keys in newest.items():
            assert [key for key, _ in own.items(each)] == keys[-most:]
            left = [key for key, _ in shared.items(each)]
            assert left == keys[len(keys) - len(left) :], "the oldest go first"
            assert len(left) >= min(len(keys), most // len(newest))
    assert len(shared) == sum(len(shared.items(app)) for app in newest)
