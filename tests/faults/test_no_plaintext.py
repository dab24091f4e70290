"""10,000 events go through real services; then nothing of them is legible in any file, whatever happened."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_reranker.store import Store, rotation
from edge_reranker_client import EdgeReranker, EdgeRerankerError
from tests.faults import watched
from tests.faults.canaries import Marker, below, files_with, forms, found_in
from tests.faults.watched import House, Service
from tests.service import children

ROOT = Path(__file__).parent.parent.parent
BY_MODEL = 300
EVENTS = 10_000
BATCH = 500
# Where nothing of a user's may stand in plain but what is looked for is made: the traces tell what was read.
TRACES = "*.strace"


@dataclass
class Story:
    """What is left after it all: the house, the marker, and what was seen on the way."""

    house: House
    marker: Marker
    logs: list[Path] = field(default_factory=list)
    recorded: int = 0
    workers_killed: int = 0
    snapshots: dict[str, list[str]] = field(default_factory=dict)
    legible: list[str] = field(default_factory=list)
    first_key: bytes = b""

    def look(self, moment: str) -> None:
        """Search all there is at this moment: log, shared memory and temporaries are not there at the end."""
        files = [path for path in self.house.files() if path.suffix != ".strace"]
        self.snapshots[moment] = [path.name for path in files]
        found = files_with(files, self.marker.word.encode())
        self.legible += [f"{moment}: {each}" for each in found]

    @property
    def secrets(self) -> dict[str, bytes]:
        """What must be in one file only, by that file: the key as text and as bytes, and the tokens."""
        key = (self.house.data / "key").read_bytes().strip()
        tokens = {path.name: path.read_bytes().strip() for path in (self.house.data / "tokens").iterdir()}
        return {"key": key, "key, as bytes": bytes.fromhex(key.decode())} | tokens


def own_cache(cache_dir: Path, folder: Path) -> Path:
    """A cache to write into, whose model files are the shared ones."""
    for shared in (cache_dir / "models").iterdir():
        ours = folder / "models" / shared.name
        ours.mkdir(parents=True)
        for file in shared.iterdir():
            if file.name == "model.json":
                (ours / file.name).write_bytes(file.read_bytes())
            else:
                (ours / file.name).symlink_to(file)
    return folder


def pack_with_reader(folder: Path) -> Path:
    """The pack that ships, with weight for tier 2, whose worker keeps a state of the user's context."""
    pack = shutil.copytree(ROOT / "packs" / "movielens-minilm", folder / "pack")
    manifest = json.loads((pack / "pack.json").read_bytes())
    manifest["scorer"] |= {"weight": 0.1, "model": "smollm2-135m"}
    (pack / "pack.json").write_text(json.dumps(manifest))
    return pack


def record(story: Story, client: EdgeReranker, n: int) -> None:
    events = story.marker.events(n, story.recorded)
    for at in range(0, n, BATCH):
        story.recorded += client.record(events[at : at + BATCH], timeout_s=60).recorded


def rank(story: Story, client: EdgeReranker, n: int = 20, first: int = 0, budget_ms: int = 0) -> None:
    client.rerank(
        story.marker.candidates(n, first),
        query=story.marker.text(first, "asked"),
        surface=f"{story.marker.word}-surface",
        session_id=f"{story.marker.word}-session",
        budget_ms=budget_ms,
    )


def ask_why(story: Story, client: EdgeReranker) -> None:
    """The owner is told of titles, events and topics, and mutes one; the log must not be."""
    ranking = client.rerank(story.marker.candidates(20), query=story.marker.text(1, "asked"), budget_ms=2_000)
    told = client.explain(ranking.ranking_id, timeout_s=60)
    assert any(story.marker.word in reason.text for each in told.explanations for reason in each.reasons)
    topic = client.profile().beliefs[0].topic
    assert story.marker.word in topic
    assert client.mute(topic) == (topic,)


def ask_for_what_cannot_be(story: Story, client: EdgeReranker) -> None:
    """Bad input of every kind: the answers may name it, the log must not."""
    (twice,) = story.marker.candidates(1)
    with pytest.raises(EdgeRerankerError):
        client.rerank([twice, twice], query=story.marker.text(1, "asked"))
    with pytest.raises(EdgeRerankerError):
        client.rerank([twice], surface=story.marker.word * 40)
    with pytest.raises(EdgeRerankerError):
        client.record([{"type": "LIKE", "item": {"id": story.marker.word * 40}}])
    with pytest.raises(EdgeRerankerError):
        list(client.events(page_size=1_000_000))
    with pytest.raises(EdgeRerankerError):
        client.load_model(story.marker.word, timeout_s=20)
    with pytest.raises(EdgeRerankerError):
        client.explain(story.marker.word)
    with pytest.raises(EdgeRerankerError):
        client.mute("", namespace=story.marker.word)


def take_along(story: Story) -> None:
    """All of it goes into a file under a passphrase, which is a file of the user's own."""
    words = story.house.root / "words"
    words.write_text("correct horse battery staple\n")
    words.chmod(0o600)
    out = ["--out", str(story.house.root / "taken.age"), "--passphrase-file", str(words)]
    command = [sys.executable, "-m", "edge_reranker.cli", "export", *out]
    subprocess.run(command, check=True, env=story.house.environment, capture_output=True, timeout=120)
    assert (story.house.root / "taken.age").stat().st_size > 100_000


def kill_a_worker_at_work(story: Story, service: Service, signal_: signal.Signals) -> None:
    """It dies with texts of the user's in hand; the request gets its answer from the tiers below."""
    before = service.workers()
    asked = threading.Thread(target=rank, args=(story, service.client, 60, 5_000, 2_000))
    asked.start()
    time.sleep(0.4)
    for pid in before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_)
            story.workers_killed += 1
    asked.join()
    until = time.monotonic() + 120
    while (
        set(before) & set(children(service.pid))
        or sum(model.state == "READY" for model in service.client.models()) < 2
    ):
        assert time.monotonic() < until, "no new worker came"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Story:
    folder = tmp_path_factory.mktemp("h")
    house = House.build(folder / "h", own_cache(cache_dir, folder / "h" / "c"))
    told = Story(house, Marker.new())
    pack = pack_with_reader(folder)
    with house.serving("model", "--pack", str(pack), umask=0o000) as service:
        told.logs.append(service.log)
        record(told, service.client, BY_MODEL)
        service.client.warmup(timeout_s=200)
        rank(told, service.client, budget_ms=2_000)
        ask_why(told, service.client)
        told.look("serving with a model")
        for signal_ in (signal.SIGKILL, signal.SIGABRT):
            kill_a_worker_at_work(told, service, signal_)
        ask_for_what_cannot_be(told, service.client)
        service.client.forget(item_id=f"{told.marker.word}-item-7")
        rank(told, service.client, first=40, budget_ms=2_000)
        service.client.warmup(timeout_s=200)
    with contextlib.closing(Store.open(house.data, key_source="file")) as store:
        assert store.prefix_state() is not None, "the test's own premise: the model's state was kept"
    told.look("stopped, with the model's state")
    with house.serving("none", "--model", "none", umask=0o022) as service:
        told.logs.append(service.log)
        record(told, service.client, EVENTS - BY_MODEL)
        rank(told, service.client, 500)
        told.look("serving 10,000 events")
        assert sum(1 for _ in service.client.events(page_size=1_000)) == EVENTS - 1
        ask_for_what_cannot_be(told, service.client)
        service.client.forget(event_id=f"{told.marker.word}-event-9")
        service.end(signal.SIGSEGV)
    told.look("crashed")
    told.first_key = (house.data / "key").read_bytes().strip()
    with Store.open(house.data, key_source="file") as store:
        store.back_up()
        told.look("backed up")
    rotation.rotate(house.data, source="file")
    told.look("under another key")
    with house.serving("again", "--model", "none", umask=0o077) as service:
        told.logs.append(service.log)
        service.client.load_model("minilm")
        take_along(told)
        rank(told, service.client)
        service.client.forget(item_id=f"{told.marker.word}-item-11")
        service.end(signal.SIGKILL)
    told.look("killed")
    return told


pytestmark = pytest.mark.model


def test_nothing_of_10_000_events_is_legible_in_any_file(story: Story) -> None:
    assert story.recorded == EVENTS
    assert story.workers_killed >= 4
    assert "store.db-wal" in story.snapshots["serving 10,000 events"]
    assert "backups" in story.snapshots["backed up"]
    assert "taken.age" in story.snapshots["killed"]
    assert story.legible == []


def test_what_the_service_says_with_all_logs_on_holds_nothing_of_the_users(story: Story) -> None:
    said = sorted((story.house.root / "told").glob("*.out"))
    assert len(said) == 3
    assert all(path.stat().st_size > 1_000 for path in said), "the test's own premise: the logs are on"
    assert files_with(said, story.marker.word.encode()) == []


def test_nothing_is_written_outside_of_the_data_directory(story: Story) -> None:
    """By all its processes, whatever the end; the cache and the folder it was started in included."""
    # But for Python's own code of modules, which a worker keeps when it is the first to load one.
    paths = [path for path in watched.written(story.logs) if "/__pycache__/" not in path]
    assert f"{story.house.data}/store.db" in paths
    assert [path for path in paths if not path.startswith(f"{story.house.data}/")] == []


@pytest.mark.parametrize("place", ["key", "key, as bytes", "app.token", "owner.token"])
def test_key_and_tokens_are_in_their_own_file_only(story: Story, place: str) -> None:
    others = [
        path
        for path in story.house.files()
        if path.name != place.partition(",")[0] and path.suffix != ".strace"
    ]
    assert files_with(others, story.secrets[place]) == []


def test_a_key_that_was_changed_is_in_no_file_any_more(story: Story) -> None:
    assert story.first_key != story.secrets["key"]
    files = [path for path in story.house.files() if path.suffix != ".strace"]
    for key in (story.first_key, bytes.fromhex(story.first_key.decode())):
        assert files_with(files, key) == []


# The controls: each part of the search finds what it is there for.


def test_the_same_events_in_a_plain_database_are_found(tmp_path: Path) -> None:
    marker = Marker.new()
    with contextlib.closing(sqlite3.connect(tmp_path / "plain.db")) as db:
        db.execute("CREATE TABLE events (id TEXT, query TEXT, item TEXT)")
        rows = [(e.event_id, e.query, repr(e.item)) for e in marker.events(10)]
        db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        db.commit()
    assert files_with(below(tmp_path), marker.word.encode()) == [f"{tmp_path / 'plain.db'}: as it is"]


@pytest.mark.parametrize("form", forms(b"abc"))
@pytest.mark.parametrize("before", [b"", b"x", b"xy"])
def test_every_form_is_found_in_the_middle_of_other_bytes(tmp_path: Path, form: str, before: bytes) -> None:
    word = Marker.new().word.encode()
    data = os.urandom(5_000) + before + forms(word)[form] + os.urandom(5_000)
    assert form in found_in(data, word)
    assert found_in(data, Marker.new().word.encode()) == []


@pytest.mark.parametrize("n", range(4))
def test_a_word_inside_of_base64_is_found_wherever_it_begins(n: int) -> None:
    import base64

    word = Marker.new().word.encode()
    assert found_in(base64.b64encode(b"x" * n + word + b"more"), word)


def test_a_file_that_was_written_and_deleted_elsewhere_is_seen(tmp_path: Path) -> None:
    log, marker = tmp_path / "log", Marker.new()
    path = tmp_path / "x"
    script = f"from pathlib import Path; p = Path({str(path)!r}); p.write_text({marker.word!r}); p.unlink()"
    subprocess.run([*watched.tracer(log, writes=True), sys.executable, "-c", script], check=True)
    assert str(path) in watched.written([log])
    assert watched.told(log, list(forms(marker.word.encode()).values())) != []
