"""Export and import over a real socket, with a real store and pipeline behind it."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge_reranker_client as api
from edge_reranker.deadline import Deadline
from edge_reranker.pipeline import Pipeline
from edge_reranker.server import access
from edge_reranker.types import Event, EventType, Item, RerankQuery
from edge_reranker_client import EdgeReranker
from tests import parts
from tests.server.fixtures import Running, running
from tests.server.test_server_lines import CHANGES, changed

OWN = access.DEFAULT_NAMESPACE


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
def device_a(tmp_path: Path) -> Iterator[tuple[Pipeline, EdgeReranker, Running]]:
    with device(tmp_path / "a") as it:
        yield it


@pytest.fixture
def device_b(tmp_path: Path) -> Iterator[tuple[Pipeline, EdgeReranker, Running]]:
    with device(tmp_path / "b") as it:
        yield it


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="er-") as folder:
        yield Path(folder).resolve()


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


def shown(pipeline: Pipeline) -> list[str]:
    query = RerankQuery(parts.films(20), surface="home", session_id="s1")
    ranking = pipeline.rerank(OWN, query, Deadline.after_ms(5_000))
    pipeline._store.flush()
    return [result.id for result in ranking.results]


Device = tuple[Pipeline, EdgeReranker, Running]


def test_export_import_export_is_the_same_to_the_byte_and_so_is_the_ranking(
    device_a: Device, device_b: Device
) -> None:
    live(device_a[0])
    first = b"".join(device_a[1].export())
    assert device_b[1].import_([first]) == api.Recorded(40, 0)
    assert b"".join(device_b[1].export()) == first
    assert device_b[1].import_([first]) == api.Recorded(0, 40)
    assert b"".join(device_b[1].export()) == first
    lines = [json.loads(line) for line in first.splitlines()]
    assert [next(iter(line)) for line in lines] == ["format", *["event"] * 40, *["ranking"] * 3, "end"]
    assert shown(device_b[0]) == shown(device_a[0])


def test_an_empty_namespace_can_be_taken_along_too(device_a: Device, device_b: Device) -> None:
    first = b"".join(device_a[1].export())
    assert len(first.splitlines()) == 2
    assert device_b[1].import_([first]) == api.Recorded(0, 0)


def test_two_devices_become_one_and_what_both_have_is_counted(device_a: Device, device_b: Device) -> None:
    live(device_a[0], seed=0)
    live(device_b[0], seed=1)
    taken = b"".join(device_a[1].export())
    device_b[1].import_([taken])
    assert device_a[1].import_([b"".join(device_b[1].export())]) == api.Recorded(40, 40)


def test_another_namespace_gets_what_is_imported_into_it_alone(device_a: Device) -> None:
    pipeline, owner, _ = device_a
    live(pipeline)
    taken = b"".join(owner.export())
    assert owner.import_([taken], namespace="films") == api.Recorded(40, 0)
    assert b"".join(owner.export(namespace="films")) == taken
    pipeline.forget(OWN, everything=True)
    assert len(b"".join(owner.export()).splitlines()) == 2
    assert b"".join(owner.export(namespace="films")) == taken


def test_the_next_ranking_knows_what_was_imported(device_a: Device, device_b: Device) -> None:
    """Although the one before was made of what was known then."""
    live(device_a[0])
    before = shown(device_b[0])
    device_b[1].import_(device_a[1].export())
    assert shown(device_b[0]) != before


def test_a_bad_line_late_in_the_file_leaves_nothing(device_a: Device, device_b: Device) -> None:
    live(device_a[0])
    lines = b"".join(device_a[1].export()).splitlines(keepends=True)
    lines[30] = lines[30].replace(b"EVENT_TYPE_", b"EVENT_TYPO_")
    with pytest.raises(api.InvalidArgument, match=r'^line 31, event\.type: "EVENT_TYPO_'):
        device_b[1].import_(lines)
    lines[30] = lines[29]
    with pytest.raises(api.InvalidArgument, match=r"^line 31, eventId: is the same as in line 30;"):
        device_b[1].import_(lines)
    assert len(b"".join(device_b[1].export()).splitlines()) == 2
    assert not list((device_b[2].data_dir.parent / "store").glob("*.import"))


@given(st.lists(CHANGES, min_size=1, max_size=2), st.integers(1, 4000))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_changed_file_is_refused_or_imported_whole(
    device_a: Device, device_b: Device, made: list[tuple[str, int, int]], piece: int
) -> None:
    if not b"".join(device_a[1].export()).count(b'"event"'):
        live(device_a[0])
    data = bad = b"".join(device_a[1].export())
    for each in made:
        bad = changed(bad, each) if bad else bad
    with contextlib.suppress(api.InvalidArgument):
        device_b[1].import_(bad[at : at + piece] for at in range(0, len(bad), piece))
        assert b"".join(device_b[1].export()) == data
        device_b[0].forget(OWN, everything=True)
    assert len(b"".join(device_b[1].export()).splitlines()) == 2


def test_an_error_of_the_source_is_the_callers_and_nothing_is_imported(device_a: Device) -> None:
    """It must not look like the end of the file."""
    taken = b"".join(device_a[1].export())

    def broken() -> Iterator[bytes]:
        yield taken
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        device_a[1].import_(broken())
    for not_bytes in (b"bytes", "text", 5, ["text"]):
        with pytest.raises(api.InvalidArgument, match=r"^chunks: "):
            device_a[1].import_(not_bytes)  # type: ignore[arg-type]


def test_an_import_that_stops_half_way_leaves_nothing_and_frees_its_place(
    device_a: Device, device_b: Device
) -> None:
    live(device_a[0])
    lines = b"".join(device_a[1].export()).splitlines(keepends=True)
    folder = device_b[2].data_dir.parent / "store"
    for _ in range(6):  # more than may be under way at once

        def half() -> Iterator[bytes]:
            yield b"".join(lines[:20])
            until_s = time.monotonic() + 5
            while not list(folder.glob("*.import")):
                assert time.monotonic() < until_s
                time.sleep(0.005)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            device_b[1].import_(half())
    until_s = time.monotonic() + 5
    while list(folder.glob("*.import")):
        assert time.monotonic() < until_s
        time.sleep(0.005)
    assert len(b"".join(device_b[1].export()).splitlines()) == 2
    assert device_b[1].import_(lines) == api.Recorded(40, 0)


def test_others_record_while_an_import_waits_for_its_client(device_a: Device, device_b: Device) -> None:
    live(device_a[0])
    lines = b"".join(device_a[1].export()).splitlines(keepends=True)
    recorded = []

    def slow() -> Iterator[bytes]:
        yield b"".join(lines[:20])
        with EdgeReranker(data_dir=device_b[2].data_dir) as app:
            recorded.append(app.record([{"type": "LIKE", "item": {"id": "x"}, "event_id": "mine"}]))
        yield b"".join(lines[20:])

    assert device_b[1].import_(slow()) == api.Recorded(40, 0)
    assert recorded == [api.Recorded(1, 0)]
    assert b'"mine"' in b"".join(device_b[1].export()).splitlines()[1]


def test_a_slow_reader_of_an_export_holds_nothing_up(device_a: Device) -> None:
    """Neither memory nor the log: what it does not take is not read."""
    pipeline, owner, _ = device_a
    text = "x" * 4000
    for start in range(0, 3000, 500):
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
    assert len(reads) < 15  # of about 25; what gRPC has under way is a few chunks
    pipeline.record("another", [Event("e", EventType.LIKE, 1.6e9, Item("i"))])
    assert pipeline.forget("another", everything=True).events == 1  # it needs the log for itself
    del pipeline._store._read
    assert sum(chunk.count(b"\n") for chunk in stream) > 2500


def test_one_transfer_too_many_is_told_so_and_the_place_comes_back(device_a: Device) -> None:
    pipeline, owner, _ = device_a
    live(pipeline)
    taken = b"".join(owner.export())
    go, begun = threading.Event(), threading.Barrier(5)

    def waiting() -> Iterator[bytes]:
        yield taken[:100]
        begun.wait(5)
        go.wait(5)
        yield taken[100:]

    threads = [threading.Thread(target=owner.import_, args=(waiting(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(5)
    time.sleep(0.2)
    with pytest.raises(api.Overloaded, match="4 exports and imports are under way already"):
        owner.import_([taken])
    with pytest.raises(api.Overloaded):
        list(owner.export())
    go.set()
    for thread in threads:
        thread.join(10)
    assert owner.import_([taken]) == api.Recorded(0, 40)


def test_a_forget_during_an_export_makes_it_void(device_a: Device) -> None:
    pipeline, owner, _ = device_a
    text = "x" * 4000
    pipeline.record(
        OWN, [Event(f"e{n}", EventType.LIKE, 1.6e9, Item(f"i{n}", text=text + str(n))) for n in range(3000)]
    )
    stream = owner.export()
    next(stream)
    pipeline.forget(OWN, event_id="e2999")
    with pytest.raises(api.StoreBusy, match="forgotten while it was exported; export again"):
        list(stream)


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_what_is_taken_along(device_a: Device, device_b: Device) -> None:
    """50,000 events, 15 MB of lines, made while they are sent; the service is in this process, too."""
    n = 50_000

    def lines() -> Iterator[bytes]:
        digest = hashlib.sha256()
        for number in range(-1, n):
            line = b'{"format":"edge-reranker-export","version":1}\n'
            if number >= 0:
                body = {
                    "eventId": f"event-{number:08}",
                    "type": "EVENT_TYPE_LIKE",
                    "item": {"id": f"i{number % 20_000}", "title": f"T{number % 20_000}", "text": "w" * 150},
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

    live(device_b[0])
    list(device_b[1].export())
    device_b[1].import_(device_b[1].export())  # what is loaded once is loaded
    before, seen = rss_bytes(), [0]
    assert device_a[1].import_(during_import()) == api.Recorded(n, 0)
    assert max(seen) - before < 12e6
    assert grown(device_a[1].export()) < 12e6
