"""What doctor finds in the data directory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item, PrefixState
from tests.service import Run


@pytest.fixture
def filled(data_dir: Path) -> Path:
    """A data directory whose service was stopped."""
    with Store.open(data_dir, key_source="file") as store:
        store.record(
            "app", [Event(f"e{n}", EventType.LIKE, 1.0, Item("i", text="x" * 2000)) for n in range(50)]
        )
    return data_dir


def _look(run: Run) -> tuple[dict[str, dict[str, object]], str]:
    """The findings by name, and the last line of the text."""
    findings = json.loads(run("doctor", "--model", "none", "--json").stdout)
    text = run("doctor", "--model", "none").stdout
    return {finding["what"]: finding for finding in findings}, text.splitlines()[-1]


def _files(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data_dir.iterdir() if path.is_file()}


def test_a_sound_store_is_checked_and_left_as_it_is(run: Run, filled: Path) -> None:
    before = _files(filled)
    found, _ = _look(run)
    assert found["store"]["ok"] is found["key"]["ok"] is True
    assert "every page checked" in str(found["store"]["detail"])
    assert _files(filled) == before


def test_where_nothing_is_nothing_is_made(run: Run, data_dir: Path) -> None:
    found, _ = _look(run)
    assert found["store"]["ok"] is found["key"]["ok"] is True
    assert found["store"]["detail"] == "made by the first `serve`"
    assert list(data_dir.iterdir()) == []


def test_a_model_state_that_cannot_be_used_is_told(run: Run, filled: Path) -> None:
    with Store.open(filled, key_source="file") as store:
        store.put_prefix_state(PrefixState("app", "another model", "1", b"\1\0\0\0", b"state"))
    found, _ = _look(run)
    assert found["context"]["ok"] is True
    assert str(found["context"]["detail"]).startswith("saved, but of another model, pack, mode or version")


def test_a_damaged_page_is_found(run: Run, filled: Path) -> None:
    path = filled / "store.db"
    damaged = bytearray(path.read_bytes())
    page = len(damaged) // 4096 // 2
    damaged[page * 4096 + 100] ^= 1
    path.write_bytes(damaged)
    found, last = _look(run)
    assert found["store"]["ok"] is False
    assert f"page {page + 1}" in str(found["store"]["detail"])
    assert last == f"Next: run `edge-reranker backup restore`, or move {path} away to start empty"
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("content", [b"", b"no database" * 1000], ids=["empty", "garbage"])
def test_a_file_that_is_no_store_is_found(run: Run, filled: Path, content: bytes) -> None:
    (filled / "store.db").write_bytes(content)
    found, last = _look(run)
    assert found["store"]["ok"] is False
    assert str(filled / "store.db") in last
    assert last.endswith("away to start empty")
    assert (filled / "store.db").read_bytes() == content


def test_a_lost_key_is_found_and_none_is_made(run: Run, filled: Path) -> None:
    (filled / "key").unlink()
    found, last = _look(run)
    assert found["key"]["ok"] is found["store"]["ok"] is False
    way_out = f"run `edge-reranker key import FILE`, or move {filled / 'store.db'} away to start empty"
    assert last == f"Next: put back {filled / 'key'}, {way_out}"
    assert not (filled / "key").exists()


def test_a_store_that_the_service_holds_is_left_to_it(
    run: Run, data_dir: Path, service: subprocess.Popen[str]
) -> None:
    found, last = _look(run)
    assert found["store"]["ok"] is True
    assert "held by the service" in str(found["store"]["detail"])
    assert last == "Next: nothing; all is well"


def test_a_folder_that_cannot_be_written_to_is_named(run: Run, filled: Path) -> None:
    """A folder in the lock's place stops root too."""
    (filled / "serve.lock").mkdir()
    found, last = _look(run)
    assert found["store"]["ok"] is False
    assert found["store"]["detail"] == f"{filled / 'serve.lock'}: Is a directory"
    assert last == f"Next: see to it that you can write to {filled}"
