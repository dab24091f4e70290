"""Export and import over a real socket, with a real store and pipeline behind it."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge_reranker_client as api
from edge_reranker.deadline import Deadline
from edge_reranker.pipeline import Pipeline
from edge_reranker.server import access
from edge_reranker.types import Event, EventType, Item, RerankQuery, Selector
from edge_reranker_client import EdgeReranker
from tests import parts
from tests.server.fixtures import Running, running
from tests.server.test_server_lines import CHANGES, changed

OWN = access.DEFAULT_NAMESPACE

Device = tuple[Pipeline, EdgeReranker, Running]


@contextlib.contextmanager
def device(folder: Path) -> Iterator[tuple[Pipeline, EdgeReranker, Running]]:
    folder.mkdir()
    with (
        parts.pipeline(folder / "store") as pipeline,
        running(folder / "data", core=pipeline) as served,  # type: ignore[arg-type]
        EdgeReranker(data_dir=served.data_dir, owner=True) as owner,
    ):
        yield pipeline, owner, served


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Device]:
    """A device that knows nobody yet."""
    with device(tmp_path / "b") as it:
        yield it


class Taken(NamedTuple):
    data: bytes
    lines: list[bytes]
    order: list[str]


@pytest.fixture(scope="module")
def taken() -> Taken:
    """What was taken along from a device before, and the order that it gave.

    One server at a time: gRPC for asyncio serves one event loop in a process.
    """
    with (
        tempfile.TemporaryDirectory(prefix="er-") as folder,
        device(Path(folder).resolve() / "a") as (pipeline, owner, _),
    ):
        live(pipeline)
        data = b"".join(owner.export())
        return Taken(data, data.splitlines(keepends=True), shown(pipeline))


def live(pipeline: Pipeline, n: int = 40, seed: int = 0) -> None:
    """Some evenings of a user: likes of one moment in any order, searches, lists that were shown."""
    rng = random.Random(seed)
    events = []
    for number in range(n):
        kind = rng.choice([EventType.LIKE, EventType.CLICK, EventType.DISLIKE, EventType.SEARCH])
        item = None if kind is EventType.SEARCH else parts.film(rng.randrange(12))
        query = "a crime film" if kind is EventType.SEARCH else ""
        at_s = 1.6e9 + rng.randrange(4) + rng.random() * rng.choice([0, 0, 1])
        events.append(Event(f"e{seed}-{number}", kind, at_s, item, query, session_id=f"s{number % 3}"))
    pipeline.record(OWN, events)
    for _ in range(3):
        shown(pipeline)


def left_aside(served: Running) -> list[Path]:
    return list((served.data_dir.parent / "store").glob("*.import"))


def wait_until(true: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 5
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def shown(pipeline: Pipeline) -> list[str]:
    query = RerankQuery(parts.films(20), surface="home", session_id="s1")
    ranking = pipeline.rerank(OWN, query, Deadline.after_ms(5_000))
    pipeline._store.flush()
    return [result.id for result in ranking.results]


def test_export_import_export_is_the_same_to_the_byte_and_so_is_the_ranking(
    empty: Device, taken: Taken
) -> None:
    pipeline, owner, _ = empty
    assert owner.import_([taken.data]) == api.Recorded(40, 0)
    assert b"".join(owner.export()) == taken.data
    assert owner.import_([taken.data]) == api.Recorded(0, 40)
    assert b"".join(owner.export()) == taken.data
    lines = [json.loads(line) for line in taken.lines]
    assert [next(iter(line)) for line in lines] == ["format", *["event"] * 40, *["ranking"] * 3, "end"]
    assert shown(pipeline) == taken.order


def test_an_empty_namespace_can_be_taken_along_too(empty: Device) -> None:
    data = b"".join(empty[1].export())
    assert len(data.splitlines()) == 2
    assert empty[1].import_([data]) == api.Recorded(0, 0)


def test_two_devices_become_one_and_what_both_have_is_counted(empty: Device, taken: Taken) -> None:
    pipeline, owner, _ = empty
    live(pipeline, seed=1)
    assert owner.import_([taken.data]) == api.Recorded(40, 0)
    pipeline.forget(OWN, Selector(event_id="e0-7"))
    assert owner.import_([taken.data]) == api.Recorded(1, 39)
    assert b"".join(owner.export()).count(b'{"event"') == 80


def test_another_namespace_gets_what_is_imported_into_it_alone(empty: Device, taken: Taken) -> None:
    owner = empty[1]
    owner.namespaces.create("films")
    assert owner.import_([taken.data], namespace="films") == api.Recorded(40, 0)
    assert b"".join(owner.export(namespace="films")) == taken.data
    assert len(b"".join(owner.export()).splitlines()) == 2


def test_the_next_ranking_knows_what_was_imported(empty: Device, taken: Taken) -> None:
    """Although the one before was made of what was known then."""
    pipeline, owner, _ = empty
    before = shown(pipeline)
    owner.import_([taken.data])
    assert shown(pipeline) == taken.order != before


def test_a_bad_line_late_in_the_file_leaves_nothing(empty: Device, taken: Taken) -> None:
    _, owner, served = empty
    lines = list(taken.lines)
    lines[30] = lines[30].replace(b"EVENT_TYPE_", b"EVENT_TYPO_")
    with pytest.raises(api.InvalidArgument, match=r'^line 31, event\.type: "EVENT_TYPO_'):
        owner.import_(lines)
    lines[30] = lines[29]
    with pytest.raises(api.InvalidArgument, match=r"^line 31, event\.eventId: is the same as in line 30;"):
        owner.import_(lines)
    assert len(b"".join(owner.export()).splitlines()) == 2
    assert left_aside(served) == []


@given(made=st.lists(CHANGES, min_size=1, max_size=2), piece=st.integers(20, 4000))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_file_is_refused_or_imported_whole(
    empty: Device, taken: Taken, made: list[tuple[str, int, int]], piece: int
) -> None:
    pipeline, owner, _ = empty
    bad = taken.data
    for each in made:
        bad = changed(bad, each) if bad else bad
    try:
        owner.import_(bad[at : at + piece] for at in range(0, len(bad), piece))
    except api.InvalidArgument:
        assert pipeline._store.counts(OWN) == {"events": 0, "items": 0, "vectors": 0, "rankings": 0}
    else:
        assert b"".join(owner.export()) == taken.data
        pipeline.forget(OWN, Selector(everything=True))


def test_an_error_of_the_source_is_the_callers_and_nothing_is_imported(empty: Device, taken: Taken) -> None:
    """It must not look like the end of the file."""

    def broken() -> Iterator[bytes]:
        yield taken.data
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        empty[1].import_(broken())
    for not_bytes in (b"bytes", "text", 5, ["text"]):
        with pytest.raises(api.InvalidArgument, match=r"^chunks: "):
            empty[1].import_(not_bytes)  # type: ignore[arg-type]
    assert empty[0]._store.counts(OWN)["events"] == 0


def test_imports_that_stop_half_way_leave_nothing_and_free_their_place(empty: Device, taken: Taken) -> None:
    _, owner, served = empty
    for _ in range(6):  # more than may be under way at once

        def half() -> Iterator[bytes]:
            yield b"".join(taken.lines[:20])
            wait_until(lambda: bool(left_aside(served)))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            owner.import_(half())
        wait_until(lambda: not left_aside(served))
    assert len(b"".join(owner.export()).splitlines()) == 2
    assert owner.import_(taken.lines) == api.Recorded(40, 0)


def test_others_record_while_an_import_waits_for_its_client(empty: Device, taken: Taken) -> None:
    _, owner, served = empty
    recorded = []

    def slow() -> Iterator[bytes]:
        yield b"".join(taken.lines[:20])
        wait_until(lambda: bool(left_aside(served)))
        with EdgeReranker(data_dir=served.data_dir) as app:
            recorded.append(app.record([{"type": "LIKE", "item": {"id": "x"}, "event_id": "mine"}]))
        yield b"".join(taken.lines[20:])

    assert owner.import_(slow()) == api.Recorded(40, 0)
    assert recorded == [api.Recorded(1, 0)]
    assert b'"mine"' in b"".join(owner.export()).splitlines()[1]


def test_a_slow_reader_of_an_export_holds_nothing_up(empty: Device) -> None:
    """Neither memory nor the log: what it does not take is not read."""
    pipeline, owner, _ = empty
    text = "x" * 4000
    for start in range(0, 6000, 500):
        pipeline.record(
            OWN,
            [
                Event(f"e{n}", EventType.LIKE, 1.6e9, Item(f"i{n}", text=text + str(n)))
                for n in range(start, start + 500)
            ],
        )
    reads = []
    read = pipeline._store._read
    pipeline._store._read = lambda query: (reads.append(query), read(query))[1]  # type: ignore[method-assign]
    stream = owner.export()
    next(stream)
    time.sleep(0.5)
    before = len(reads)
    time.sleep(0.5)
    assert len(reads) == before, "gRPC takes some chunks in advance, and then no more"
    pipeline.record("another", [Event("e", EventType.LIKE, 1.6e9, Item("i"))])
    assert pipeline.forget("another", Selector(everything=True)).events == 1  # it needs the log for itself
    assert sum(chunk.count(b"\n") for chunk in stream) > 5000
    assert len(reads) > before + 5
    del pipeline._store._read


def test_one_transfer_too_many_is_told_so_and_the_place_comes_back(empty: Device, taken: Taken) -> None:
    owner = empty[1]
    go, begun = threading.Event(), threading.Barrier(5)

    def waiting() -> Iterator[bytes]:
        yield taken.data[:100]
        begun.wait(5)
        go.wait(5)
        yield taken.data[100:]

    threads = [threading.Thread(target=owner.import_, args=(waiting(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(5)
    time.sleep(0.2)
    with pytest.raises(api.Overloaded, match="4 exports and imports are under way already"):
        owner.import_([taken.data])
    with pytest.raises(api.Overloaded):
        list(owner.export())
    go.set()
    for thread in threads:
        thread.join(10)
    assert owner.import_([taken.data]) == api.Recorded(0, 40)


def test_a_forget_during_an_export_makes_it_void(empty: Device) -> None:
    pipeline, owner, _ = empty
    text = "x" * 4000
    pipeline.record(
        OWN, [Event(f"e{n}", EventType.LIKE, 1.6e9, Item(f"i{n}", text=text + str(n))) for n in range(3000)]
    )
    stream = owner.export()
    next(stream)
    pipeline.forget(OWN, Selector(event_id="e2999"))
    with pytest.raises(api.StoreBusy, match="forgotten while it was exported; export again"):
        list(stream)


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_what_is_taken_along(empty: Device, taken: Taken) -> None:
    """Lines of 22 MB, made while they are sent; the service is in this process, too.

    benchmarks/take_along.py measures the service alone.
    """
    n = 20_000

    def lines() -> Iterator[bytes]:
        digest = hashlib.sha256()
        for number in range(-1, n):
            line = b'{"format":"edge-reranker-export","version":1}\n'
            if number >= 0:
                body = {
                    "eventId": f"event-{number:08}",
                    "type": "EVENT_TYPE_LIKE",
                    "item": {"id": f"i{number % 9_000}", "title": f"T{number % 9_000}", "text": "w" * 900},
                    "occurredAt": "2020-01-01T00:00:00Z",
                }
                line = json.dumps({"event": body}).encode() + b"\n"
            digest.update(line)
            yield line
        yield json.dumps({"end": {"records": n, "sha256": digest.hexdigest()}}).encode()

    def pieces() -> Iterator[bytes]:
        held = b""
        for line in lines():
            held += line
            if len(held) > 256 * 1024:
                yield held
                held = b""
        yield held

    def grown(work: Iterator[bytes]) -> int:
        gc.collect()
        before = most = rss_bytes()
        for _ in work:
            most = max(most, rss_bytes())
        return most - before

    def during_import() -> Iterator[bytes]:
        for piece in pieces():
            seen.append(rss_bytes())
            yield piece

    owner = empty[1]
    owner.namespaces.create("another")
    owner.import_([taken.data], namespace="another")  # what is loaded once is loaded
    list(owner.export(namespace="another"))
    before, seen = rss_bytes(), [0]
    assert owner.import_(during_import()) == api.Recorded(n, 0)
    assert max(seen) - before < 16e6
    assert grown(owner.export()) < 16e6
