"""Doctor looks whether what docs/privacy.md promises is kept on this machine."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker.cli import doctor_privacy, doctor_store
from edge_reranker.cli.finding import Finding
from edge_reranker.config import Config
from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item
from tests.faults.test_private_files import YEARS
from tests.service import serving


@pytest.fixture
def filled(data_dir: Path) -> Path:
    """A data directory with a store in it."""
    with Store.open(data_dir, key_source="file") as store:
        store.record("app", [Event("e", EventType.LIKE, 1.0, Item("i", text="x" * 2000))])
    (data_dir / "tokens").mkdir(mode=0o700)
    return data_dir


def config_of(data_dir: Path) -> Config:
    return Config(data_dir, data_dir / "run" / "edge-reranker.sock", data_dir / "cache", "none")


def found(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_a_store_as_it_was_made_is_all_right(filled: Path) -> None:
    assert doctor_privacy.files(filled).ok
    looked_at = found(doctor_privacy.encrypted(filled))
    assert looked_at["encryption"].detail.startswith("SQLCipher 4")
    assert looked_at["encryption"].ok is looked_at["leftovers"].ok is True


def test_nothing_is_wrong_where_nothing_is_yet(data_dir: Path) -> None:
    nowhere = data_dir / "nowhere"
    assert doctor_privacy.files(nowhere).ok
    assert all(finding.ok for finding in doctor_privacy.encrypted(nowhere))
    assert list(doctor_privacy.service(config_of(nowhere))) == []


def test_backups_quarantine_and_a_changed_key_are_all_right_too(data_dir: Path) -> None:
    folder = data_dir / "data"
    subprocess.run([sys.executable, "-c", YEARS, str(folder)], check=True)
    assert doctor_privacy.files(folder).ok
    assert [finding for finding in doctor_privacy.encrypted(folder) if not finding.ok] == []


@pytest.mark.parametrize("name", ["store.db", "reserve", "tokens"])
def test_what_others_can_open_is_named(filled: Path, name: str) -> None:
    (filled / name).chmod(0o750)
    finding = doctor_privacy.files(filled)
    assert not finding.ok
    assert f"{filled / name} (mode 0750" in finding.detail
    assert finding.next == f"run `chmod -R go-rwx {filled}`"
    subprocess.run(["/bin/sh", "-c", finding.next.split("`")[1]], check=True)
    assert doctor_privacy.files(filled).ok


def test_a_key_file_that_others_can_read_is_named(filled: Path) -> None:
    assert doctor_store.key(filled).ok
    (filled / "key").chmod(0o644)
    finding = doctor_store.key(filled)
    assert not finding.ok
    assert finding.next == f"run `chmod 600 {filled / 'key'}`"


def test_a_database_in_plain_text_is_found_under_any_name(filled: Path) -> None:
    with contextlib.closing(sqlite3.connect(filled / "store.db.old")) as db:
        db.execute("CREATE TABLE events (a)")
    finding = found(doctor_privacy.encrypted(filled))["encryption"]
    assert not finding.ok
    assert finding.next == f"delete or move {filled / 'store.db.old'}"


@pytest.mark.parametrize("text", ["{}\n", '{"title": "' + "ж" * 5_000 + '"}\n'], ids=["short", "long"])
def test_an_export_in_plain_text_is_found(filled: Path, text: str) -> None:
    (filled / "events.jsonl").write_text(text, encoding="utf-8")
    finding = found(doctor_privacy.encrypted(filled))["leftovers"]
    assert not finding.ok
    assert finding.next.startswith(f"delete {filled / 'events.jsonl'}")


@pytest.mark.model
def test_a_running_service_keeps_all_promises(data_dir: Path, cache_dir: Path) -> None:
    with serving(data_dir, cache_dir):
        looked_at = found(doctor_privacy.service(config_of(data_dir)))
    assert all(finding.ok for finding in looked_at.values())
    assert looked_at["crashes"].detail == "leave no core file: its limit is 0 in 2 processes"
    if os.geteuid() == 0:
        assert looked_at["sockets"].detail.endswith("none of the network")
        assert looked_at["open files"].ok
    else:
        assert "sudo edge-reranker doctor" in looked_at["sockets"].detail


@contextlib.contextmanager
def something_else(socket: Path, script: str) -> Iterator[None]:
    """A program that answers at the socket and keeps no promise."""
    socket.parent.mkdir(parents=True)
    whole = (
        "import os, resource, socket\n"
        f"s = socket.socket(socket.AF_UNIX); s.bind({str(socket)!r}); s.listen()\n"
        f"{script}\nprint(flush=True); input()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", whole], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("what", "script"),
    [
        ("crashes", "hard = resource.getrlimit(4)[1]; resource.setrlimit(4, (hard, hard))"),
        ("sockets", "t = socket.socket(); t.bind(('127.0.0.1', 0)); t.listen()"),
        ("sockets", "u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(('::', 0))"),
        ("open files", "os.umask(0); f = open({folder!r} + '/wide', 'w')"),
    ],
    ids=["core", "tcp", "udp6", "wide"],
)
def test_a_service_that_does_not_is_told_of(data_dir: Path, what: str, script: str) -> None:
    if what == "crashes" and resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no core may be written here at all")
    config = config_of(data_dir)
    with something_else(config.socket, script.replace("{folder!r}", repr(str(data_dir)))):
        finding = found(doctor_privacy.service(config))[what]
    assert not finding.ok
    assert finding.next
