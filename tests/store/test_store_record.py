"""Recording and reading back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument, StoreBusy, StoreError
from edge_reranker.store import Store, vectors
from edge_reranker.store.writer import Writer, _Job
from edge_reranker.types import Context, Event, EventType, Item, Recorded, Selector

MakeEvent = Callable[..., Event]


def test_an_event_sent_again_changes_nothing(store: Store, make_event: MakeEvent) -> None:
    assert store.record("app", [make_event(1)]) == Recorded(1, 0)
    again = dataclasses.replace(make_event(1, title="Another title"), query="other")
    assert store.record("app", [again]) == Recorded(0, 1)
    assert store.context("app").events == (make_event(1),)
    assert store.counts("app")["items"] == 1


def test_the_first_of_two_events_with_one_id_in_a_batch_counts(store: Store, make_event: MakeEvent) -> None:
    second = dataclasses.replace(make_event(1), query="second")
    assert store.record("app", [make_event(1), second]) == Recorded(1, 1)
    assert store.context("app").events == (make_event(1),)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"occurred_at": math.nan}, "events[1].occurred_at"),
        ({"dwell_s": math.inf}, "events[1].dwell_s"),
        ({"event_id": ""}, "events[1].event_id"),
        ({"position": -1}, "events[1].position"),
        ({"position": 2**63}, "events[1].position"),
        ({"query": "\ud800"}, "events[1]"),
        ({"item": Item("\udfff")}, "events[1]"),
        ({"item": Item("i", tags=("\udfff",))}, "events[1]"),
    ],
)
def test_one_bad_event_rejects_the_whole_batch(
    store: Store, make_event: MakeEvent, change: dict[str, object], field: str
) -> None:
    bad = dataclasses.replace(make_event(2), **change)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument) as caught:
        store.record("app", [make_event(1), bad, make_event(3)])
    assert caught.value.field == field
    str(caught.value).encode()
    assert not any(store.counts("app").values())


def test_an_empty_batch_is_no_write(store: Store) -> None:
    assert store.record("app", []) == Recorded(0, 0)
    assert store.commits == 0


def test_namespaces_see_nothing_of_each_other(store: Store, make_event: MakeEvent) -> None:
    store.record("a", [make_event(1)])
    store.record("b", [make_event(1, title="B's own"), make_event(2)])
    assert store.context("a").events == (make_event(1),)
    assert len(store.context("b").events) == 2
    assert store.context("c") == Context()
    store.forget("b", Selector(everything=True))
    assert store.context("a").events == (make_event(1),)


def test_the_context_is_the_newest_events_oldest_first(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(n) for n in (5, 1, 4, 2, 3)])
    assert [e.event_id for e in store.context("app", 3).events] == ["e3", "e4", "e5"]
    assert store.context("app", 0) == Context()


def test_events_of_one_moment_keep_the_order_they_came_in(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(n, at=7.0) for n in (3, 1, 2)])
    store.record("app", [make_event(0, at=7.0)])
    assert [e.event_id for e in store.context("app").events] == ["e3", "e1", "e2", "e0"]


def test_an_item_that_changes_later_stays_as_each_event_saw_it(store: Store, make_event: MakeEvent) -> None:
    seen = [make_event(1, "x", "Old"), make_event(2, "x", "New"), make_event(3, "x", "Old")]
    store.record("app", seen)
    assert store.context("app").events == tuple(seen)
    assert store.counts("app")["items"] == 2


def test_a_reopened_store_has_everything(data_dir: Path, make_event: MakeEvent) -> None:
    with Store.open(data_dir, key_source="file") as first:
        first.record("app", [make_event(1)])
    with Store.open(data_dir, key_source="file") as second:
        assert second.context("app").events == (make_event(1),)
        assert second.check() == []


def test_the_generation_moves_only_when_events_change(store: Store, make_event: MakeEvent) -> None:
    seen = [store.generation("app")]
    store.record("app", [make_event(1)])
    seen.append(store.generation("app"))
    store.record("app", [make_event(1)])
    assert store.generation("app") == seen[-1]
    store.forget("app", Selector(event_id="unknown"))
    assert store.generation("app") == seen[-1]
    store.forget("app", Selector(event_id="e1"))
    seen.append(store.generation("app"))
    assert len(set(seen)) == 3
    assert store.generation("other") == seen[0]


def test_concurrent_callers_share_commits(store: Store, make_event: MakeEvent) -> None:
    n_threads, n_calls = 16, 10
    start = threading.Barrier(n_threads)

    def call(thread: int) -> None:
        start.wait()
        for i in range(n_calls):
            assert store.record("app", [make_event(thread * 100 + i)]) == Recorded(1, 0)

    threads = [threading.Thread(target=call, args=(t,)) for t in range(n_threads)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert store.counts("app")["events"] == n_threads * n_calls
    assert store.commits < n_threads * n_calls / 2


def _occupied(store: Store) -> tuple[threading.Event, threading.Thread]:
    """The writer busy until the event is set."""
    running, release = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        running.set()
        release.wait(10)

    thread = threading.Thread(target=store._writer.alone, args=(hold,))
    thread.start()
    running.wait(10)
    return release, thread


def test_a_bad_batch_fails_alone_in_a_shared_commit(store: Store, make_event: MakeEvent) -> None:
    release, holder = _occupied(store)
    results: dict[str, object] = {}

    def call(name: str, batch: list[Event]) -> None:
        try:
            results[name] = store.record("app", batch)
        except StoreError as e:
            results[name] = e

    # Past validation on purpose: SQLite itself refuses a number as large as this one.
    bad = dataclasses.replace(make_event(2), type=2**70)  # type: ignore[arg-type]
    batches = {"first": [make_event(1)], "bad": [make_event(4), bad], "last": [make_event(3)]}
    threads = [threading.Thread(target=call, args=pair) for pair in batches.items()]
    for t in threads:
        t.start()
    while store._writer._queue.qsize() < 3:
        pass
    release.set()
    for t in [*threads, holder]:
        t.join(10)
    assert results["first"] == results["last"] == Recorded(1, 0)
    assert isinstance(results["bad"], StoreError)
    assert store.commits == 1
    assert [e.event_id for e in store.context("app").events] == ["e1", "e3"]


def test_a_batch_that_takes_the_transaction_down_does_not_take_the_others(store: Store) -> None:
    """A full disk may end the whole transaction; the others are run again in another one."""

    def put(name: str, db: Database) -> str:
        vectors.put(db, "app", "pack", [(name, name, b"v")])
        return name

    def ruin(db: Database) -> str:
        put("ruin", db)
        db.conn.execute("ROLLBACK")
        raise RuntimeError

    jobs = [_Job(functools.partial(put, "first")), _Job(ruin), _Job(functools.partial(put, "last"))]
    before = store.commits
    store._writer.alone(lambda db: store._writer._run_group(jobs))
    assert (jobs[0].future.result(0), jobs[2].future.result(0)) == ("first", "last")
    assert isinstance(jobs[1].future.exception(0), StoreError)
    assert store.commits - before == 1
    assert set(store.vectors("app", "pack", ["first", "ruin", "last"])) == {"first", "last"}


def test_too_many_waiting_writers_are_refused(store: Store, make_event: MakeEvent) -> None:
    small = Writer(store._writer._connect, store.path, queue_jobs=1)
    running, release = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        running.set()
        release.wait(10)

    holder = threading.Thread(target=small.alone, args=(hold,))
    holder.start()
    running.wait(10)
    small.post(lambda db: None)
    with pytest.raises(StoreBusy):
        small.submit(lambda db: None)
    small.post(lambda db: None)
    release.set()
    holder.join(10)
    small.close()
    assert small.dropped == 1


def test_readers_do_not_wait_for_the_writer(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1)])
    release, holder = _occupied(store)
    try:
        assert store.context("app").events == (make_event(1),)
        assert holder.is_alive()
    finally:
        release.set()
        holder.join(10)


def test_close_stores_what_waits_and_may_be_called_twice(data_dir: Path, make_event: MakeEvent) -> None:
    store = Store.open(data_dir, key_source="file")
    store.put_vectors("app", "pack", [("h", "i1", b"1")])
    store.close()
    store.close()
    for call in (lambda: store.record("app", [make_event(1)]), lambda: store.context("app"), store.flush):
        with pytest.raises(StoreError, match="closed"):
            call()
    with Store.open(data_dir, key_source="file") as again:
        assert again.vectors("app", "pack", ["h"]) == {"h": b"1"}
    assert not (data_dir / "store.db-wal").exists()


def test_pages_hold_every_event_once_while_new_ones_arrive(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(n, at=float(n // 3)) for n in range(20)])
    seen, token = store.events("app", 7)
    store.record("app", [make_event(100 + n) for n in range(5)])
    while token:
        more, token = store.events("app", 7, token)
        seen += more
    assert [e.event_id for e in seen] == [f"e{n}" for n in reversed(range(20))]


def test_a_last_page_that_is_full_has_no_next(store: Store, make_event: MakeEvent) -> None:
    store.record("app", [make_event(1), make_event(2)])
    assert store.events("app", 2)[1] == ""
    assert store.events("empty", 2) == ([], "")


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "f_gAAAAAAAAAAAAAAAAAAQ==", "A" * 24, " " * 24])
def test_a_page_token_nobody_gave_is_refused(store: Store, token: str) -> None:
    if token == "A" * 24:
        token = "A" * 25
    with pytest.raises(InvalidArgument) as caught:
        store.events("app", 5, token)
    assert caught.value.field == "page_token"


def test_a_page_of_nothing_is_refused(store: Store) -> None:
    with pytest.raises(InvalidArgument):
        store.events("app", 0)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_items = st.builds(
    Item,
    id=_ids,
    title=_texts,
    text=_texts,
    tags=st.lists(_texts, max_size=4).map(tuple),
    attributes=st.dictionaries(_texts, _texts, max_size=4),
)
_finite = st.floats(allow_nan=False, allow_infinity=False)
_events = st.builds(
    Event,
    event_id=_ids,
    type=st.sampled_from(EventType),
    occurred_at=_finite,
    item=st.none() | _items,
    query=_texts,
    dwell_s=_finite,
    surface=_texts,
    session_id=_texts,
    ranking_id=_texts,
    position=st.none() | st.integers(0, 2**32 - 1),
    context=st.dictionaries(_texts, _texts, max_size=3),
)


@pytest.fixture(scope="module")
def shared_store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as d, Store.open(Path(d) / "data", key_source="file") as opened:
        yield opened


_fresh = itertools.count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_events, max_size=5, unique_by=lambda e: e.event_id))
def test_events_come_back_exactly_as_they_went_in(shared_store: Store, events: list[Event]) -> None:
    """Any Unicode, NUL included: nothing is cut, folded or normalised."""
    namespace = f"app{next(_fresh)}"
    assert shared_store.record(namespace, events) == Recorded(len(events), 0)
    expected = sorted(events, key=lambda e: e.occurred_at)
    assert list(shared_store.context(namespace).events) == expected
    if events:
        assert shared_store.events(namespace, 10) == (expected[::-1], "")
    shared_store.forget(namespace, Selector(everything=True))
    assert not any(shared_store.counts(namespace).values())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.booleans(), st.integers(0, 3)), max_size=8
    ),
    st.sampled_from(["", "a", "b"]),
)
def test_after_forgetting_the_store_is_as_if_it_never_saw(
    shared_store: Store, drawn: list[tuple[str, str, bool, int]], item_gone: str
) -> None:
    seen, never = f"seen{next(_fresh)}", f"never{next(_fresh)}"
    kept = []
    for n, (item_id, title, stays, at) in enumerate(drawn):
        event = Event(f"e{n}", EventType.CLICK, float(at), Item(item_id, title))
        shared_store.record(seen, [event])
        if stays and item_id != item_gone:
            kept.append(event)
    shared_store.record(never, kept)
    for n, (_, _, stays, _) in enumerate(drawn):
        if not stays:
            shared_store.forget(seen, Selector(event_id=f"e{n}"))
    if item_gone:
        shared_store.forget(seen, Selector(item_id=item_gone))
    assert shared_store.context(seen) == shared_store.context(never)
    assert shared_store.counts(seen) == shared_store.counts(never)
    for namespace in (seen, never):
        shared_store.forget(namespace, Selector(everything=True))


def test_a_store_leaves_no_thread_and_no_file_open(data_dir: Path, make_event: MakeEvent) -> None:
    def open_files() -> set[str]:
        names = set()
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                names.add(os.readlink(f"/proc/self/fd/{fd}"))
        return names

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    threads = threading.active_count()
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [make_event(1)])
        store.context("app")
        assert str(store.path) in open_files()
    assert not [name for name in open_files() if name.startswith(str(data_dir))]
    assert threading.active_count() == threads
