"""Whatever the umask, nobody else can open anything: not for a moment, not a temporary, not a backup."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import watched
from tests.faults.canaries import Marker, below
from tests.faults.watched import House

UMASKS = [0o000, 0o022, 0o077]


def others_may(path: Path) -> bool:
    return not path.is_symlink() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_only_the_owner_can_open_what_the_service_makes(tmp_path: Path, umask: int) -> None:
    """From the first moment on: strace tells how each thing was made, and what it was changed to."""
    house, marker = House.build(tmp_path / "h", tmp_path / "h" / "c"), Marker.new()
    with house.serving("s", "--model", "none", umask=umask, loud=False) as service:
        service.client.record(marker.events(200))
        service.client.rerank(marker.candidates(20))
        service.client.forget(event_id=f"{marker.word}-event-3")
        assert [path for path in below(house.data) if others_may(path)] == []
        names = {path.name for path in below(house.data)}
        assert {"store.db", "store.db-wal", "store.db-shm", "key", "owner.token"} <= names
    assert [path for path in below(house.data) if others_may(path)] == []
    made = watched.made([service.log], umask)
    inside = [each for each in made if each.path.startswith(str(house.data))]
    assert {"store.db.part", "store.db-wal", "key.part", "run"} <= {Path(each.path).name for each in inside}
    assert watched.wide(inside) == []


# What a device goes through in years: a backup, a database that lost its content, another key.
YEARS = """
import sys
from pathlib import Path
from edge_reranker.store import Store, rotation
from edge_reranker.types import Event, EventType, Item
data_dir = Path(sys.argv[1])
with Store.open(data_dir, key_source="file") as store:
    store.record("app", [Event("e", EventType.LIKE, 1.0, Item("i"))])
    store.back_up()
(data_dir / "store.db").write_bytes(b"")
Store.open(data_dir, key_source="file").close()
rotation.rotate(data_dir, source="file")
rotation.export_key(data_dir, data_dir / "my-key.age", "correct horse battery staple", source="file")
with Store.open(data_dir, key_source="file") as store:
    assert store.counts("app")["events"] == 1
"""


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_only_the_owner_can_open_backups_quarantine_and_keys(tmp_path: Path, umask: int) -> None:
    log, data = tmp_path / "log", tmp_path / "data"
    command = [*watched.tracer(log), sys.executable, "-c", YEARS, str(data)]
    subprocess.run(command, check=True, umask=umask)
    assert [path for path in below(data) if others_may(path)] == []
    inside = [each for each in watched.made([log], umask) if each.path.startswith(str(data))]
    names = {Path(each.path).name for each in inside}
    assert {"backups", "my-key.age.part"} <= names or {"backups", "my-key.age"} <= names, names
    assert watched.wide(inside) == []


# The controls: what would be wrong is seen.


@pytest.mark.parametrize(
    ("script", "mode"),
    [
        ("open({!r}, 'w').close()", "0666"),
        ("import os; os.close(os.open({!r}, os.O_CREAT | os.O_WRONLY, 0o640))", "0640"),
        ("import os; os.mkdir({!r})", "0777"),
        ("import socket; socket.socket(socket.AF_UNIX).bind({!r})", "0777"),
        ("import os; f = open({!r}, 'x'); os.fchmod(f.fileno(), 0o600)", "0666"),
        ("import os; p = {!r}; os.close(os.open(p, 66, 0o600)); os.unlink(p); open(p, 'w').close()", "0666"),
    ],
    ids=["open", "group", "mkdir", "socket", "for a moment", "anew"],
)
def test_a_file_that_others_could_open_is_found(tmp_path: Path, script: str, mode: str) -> None:
    log, path = tmp_path / "log", str(tmp_path / "x")
    subprocess.run([*watched.tracer(log), sys.executable, "-c", script.format(path)], check=True, umask=0)
    assert watched.wide([each for each in watched.made([log], 0) if each.path == path]) == [f"{path}: {mode}"]


def test_a_file_that_stays_open_to_others_is_found(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "x", os.O_CREAT | os.O_WRONLY)
    os.fchmod(descriptor, 0o604)
    os.close(descriptor)
    assert [path.name for path in below(tmp_path) if others_may(path)] == ["x"]
