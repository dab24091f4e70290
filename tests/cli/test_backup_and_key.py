"""``backup`` and ``key``, as a user meets them; and what ``doctor`` and ``serve`` say of damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item
from edge_reranker_client import EdgeReranker
from tests.service import Run, serving, surroundings

PAGE = 4096


@pytest.fixture
def filled(data_dir: Path) -> Path:
    """A closed store with 50 events and a backup with 40 of them."""
    with Store.open(data_dir, key_source="file") as store:
        events = [Event(f"e{n}", EventType.LIKE, 1.0 + n, Item("i", text=f"{n}" * 1000)) for n in range(50)]
        store.record("default", events[:40])
        store.back_up()
        store.record("default", events[40:])
    return data_dir


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 1
    path.write_bytes(data)


def findings(run: Run) -> dict[str, dict[str, object]]:
    return {f["what"]: f for f in json.loads(run("doctor", "--model", "none", "--json").stdout)}


def n_events(data_dir: Path) -> int:
    with Store.open(data_dir, key_source="file") as store:
        return store.counts("default")["events"]


def test_a_backup_is_made_listed_and_restored(run: Run, filled: Path) -> None:
    assert run("backup", "now").returncode == 0
    rows = json.loads(run("backup", "list", "--json").stdout)
    assert [row["events"] for row in rows] == [40, 50]
    assert "50 events" in run("backup", "list").stdout.splitlines()[-1]
    done = run("backup", "restore", rows[0]["name"], "--yes")
    assert done.returncode == 0, done.stderr
    assert "with 40 events" in done.stdout
    assert n_events(filled) == 40
    assert run("backup", "restore", "--yes").returncode == 0
    assert n_events(filled) == 50
    odd = run("backup", "restore", "other.db", "--yes")
    assert (odd.returncode, odd.stdout) == (2, "")
    assert "backup list" in odd.stderr


def test_nothing_is_restored_without_a_yes(run: Run, filled: Path) -> None:
    assert run("backup", "restore", stdin="n\n").returncode == 130
    assert n_events(filled) == 50


def test_while_a_service_runs_backups_are_made_but_not_restored(
    run: Run, data_dir: Path, service: subprocess.Popen[str]
) -> None:
    with EdgeReranker(data_dir=data_dir) as client:
        from edge_reranker_client import Event as Recorded

        client.record([Recorded("SEARCH", query="words")])
    made = run("backup", "now")
    assert made.returncode == 0, made.stderr
    assert "1 events" in run("backup", "list").stdout
    for command in (["backup", "restore", "--yes"], ["key", "rotate"]):
        refused = run(*command)
        assert refused.returncode == 4
        assert "another edge-reranker serves" in refused.stderr


def test_where_there_is_nothing_the_commands_say_so(run: Run, data_dir: Path) -> None:
    assert run("backup", "list").stdout == "none yet; the service makes one a day\n"
    for command in (["backup", "now"], ["key", "rotate"]):
        refused = run(*command)
        assert refused.returncode == 4
        assert "there is no store" in refused.stderr
    assert [p.name for p in data_dir.iterdir()] == []


def test_damage_is_repaired_at_the_start_and_told_once_there_and_by_doctor(
    run: Run, filled: Path, cache_dir: Path
) -> None:
    flip(filled / "store.db", 300)
    told = []
    for _ in range(2):
        with serving(filled, cache_dir, "--model", "none") as process:
            with EdgeReranker(data_dir=filled) as client:
                assert len(list(client.events())) == 40
            process.terminate()
            process.wait(20)
            told.append([line for line in process.stderr or () if "was put aside" in line])
    assert [len(lines) for lines in told] == [1, 0]
    found = findings(run)
    assert found["store"]["ok"] is True
    assert found["quarantine"]["ok"] is False
    detail = str(found["quarantine"]["detail"])
    assert str(filled / "quarantine") in detail
    assert "with 40 events took its place; what was recorded in between is not in it" in detail
    assert "40 events" in str(found["backups"]["detail"])


def test_damage_that_a_running_service_meets_is_repaired_within_seconds(
    filled: Path, cache_dir: Path
) -> None:
    with serving(filled, cache_dir, "--model", "none"), EdgeReranker(data_dir=filled) as client:
        # All at once: the service may meet the first and put another file in its place.
        flip(filled / "store.db", *range(3 * PAGE + 99, (filled / "store.db").stat().st_size, PAGE))
        start = time.monotonic()
        while True:
            try:
                n = len(list(client.events()))
            except Exception:
                n = 0
            if n == 40:
                break
            assert time.monotonic() - start < 20
            time.sleep(0.05)
    assert n_events(filled) == 40


def test_doctor_names_the_way_out_of_damage(run: Run, filled: Path) -> None:
    flip(filled / "store.db", 20 * PAGE + 5)
    found = findings(run)
    assert found["store"]["ok"] is False
    assert "edge-reranker backup restore" in str(found["store"]["next"])
    assert run("backup", "restore", "--yes").returncode == 0
    assert findings(run)["store"]["ok"] is True


def test_a_key_is_exported_lost_and_imported(run: Run, filled: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("four words are better\nand this is another line\n")
    out = tmp_path / "key.age"
    exported = run("key", "export", "--out", str(out), "--passphrase-file", str(words))
    assert exported.returncode == 0, exported.stderr
    secret = (filled / "key").read_text()
    assert secret not in exported.stdout + exported.stderr + out.read_bytes().decode("latin-1")
    (filled / "key").unlink()
    found = findings(run)
    assert found["key"]["ok"] is False
    assert "edge-reranker key import FILE" in str(found["key"]["next"])
    lost = run("serve", "--model", "none")
    assert lost.returncode == 6
    assert "edge-reranker key import FILE" in lost.stderr
    wrong = tmp_path / "wrong"
    wrong.write_text("other words\n")
    refused = run("key", "import", str(out), "--passphrase-file", str(wrong))
    assert refused.returncode == 2
    assert "passphrase: does not open" in refused.stderr
    done = run("key", "import", str(out), "--passphrase-file", str(words))
    assert done.returncode == 0, done.stderr
    assert (filled / "key").read_text() == secret
    assert n_events(filled) == 50


def test_a_passphrase_is_taken_from_a_descriptor(filled: Path, tmp_path: Path, cache_dir: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"words\n")
    os.close(write_end)
    command = ["key", "export", "--out", str(tmp_path / "k"), "--passphrase-file", f"/dev/fd/{read_end}"]
    done = subprocess.run(
        [sys.executable, "-m", "edge_reranker.cli", *command],
        env=surroundings(filled, cache_dir),
        pass_fds=[read_end],
        capture_output=True,
        check=False,
    )
    os.close(read_end)
    assert done.returncode == 0, done.stderr


def test_a_key_is_changed_and_shown_nowhere(run: Run, filled: Path) -> None:
    before = (filled / "key").read_text()
    done = run("key", "rotate")
    assert done.returncode == 0, done.stderr
    after = (filled / "key").read_text()
    assert before != after
    assert n_events(filled) == 50
    assert "1 backups" in done.stdout
    everything = done.stdout + done.stderr + json.dumps(findings(run))
    for path in filled.rglob("*"):
        if path.is_file() and path.name != "key":
            everything += path.read_bytes().decode("latin-1")
    assert before not in everything
    assert after not in everything
