"""`export` and `import`, against a real service over a real socket."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import edge_reranker_client as api
from edge_reranker import errors
from edge_reranker.cli.app import cli
from edge_reranker.server import lines
from edge_reranker.store import passphrase
from edge_reranker.types import Event, EventType, Item
from edge_reranker_client import EdgeReranker
from tests.service import serving, surroundings

CANARY = "Zanzibar nights"
PASSPHRASE = "three words ünd more"

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def place(cache_dir: Path) -> Iterator[Path]:
    """The data directory of a service without a model."""
    with tempfile.TemporaryDirectory(prefix="er-") as name, serving(Path(name), cache_dir, "--model", "none"):
        yield Path(name)


@pytest.fixture
def owner(place: Path) -> Iterator[EdgeReranker]:
    """Its owner, who has liked three films."""
    with EdgeReranker(data_dir=place, owner=True) as client:
        client.forget(all=True)
        client.record(
            {"event_id": f"e{n}", "type": "LIKE", "item": {"id": str(n), "title": f"{CANARY} {n}"}}
            for n in range(3)
        )
        yield client


@pytest.fixture
def command(place: Path, cache_dir: Path, owner: EdgeReranker) -> Command:
    def run(*arguments: str | Path, stdin: bytes | str = b"") -> Result:
        env = surroundings(place, cache_dir)
        return CliRunner().invoke(cli, [str(each) for each in arguments], input=stdin, env=env)

    return run


def export_of(owner: EdgeReranker) -> bytes:
    return b"".join(owner.export())


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase.txt"
    file.write_text(PASSPHRASE + "\n", encoding="utf-8")
    return file


def test_a_file_is_whole_private_and_taken_back(
    command: Command, owner: EdgeReranker, tmp_path: Path
) -> None:
    out = tmp_path / "mine.jsonl"
    made = command("export", "--out", out)
    assert made.stderr == f"{out}: 3 records\n"
    assert made.stdout == ""
    assert out.read_bytes() == export_of(owner)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    owner.forget(all=True)
    assert command("import", out).stdout == "3 recorded, 0 known already\n"
    assert command("import", "-", "--json", stdin=out.read_bytes()).stdout == '{"duplicates": 3}\n'
    assert export_of(owner) == out.read_bytes()


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_file_is_for_its_owner_alone_whatever_the_umask(
    place: Path, cache_dir: Path, owner: EdgeReranker, tmp_path: Path, umask: int
) -> None:
    out = tmp_path / "mine.jsonl"
    subprocess.run(
        [sys.executable, "-m", "edge_reranker.cli", "export", "--out", str(out)],
        check=True,
        capture_output=True,
        timeout=120,
        umask=umask,
        env=surroundings(place, cache_dir),
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_file_that_is_there_is_replaced_only_by_force(
    command: Command, owner: EdgeReranker, tmp_path: Path
) -> None:
    out = tmp_path / "mine.jsonl"
    out.write_text("precious")
    refused = command("export", "--out", out)
    assert isinstance(refused.exception, errors.FailedPrecondition)
    assert "is there already; give --force" in str(refused.exception)
    assert out.read_text() == "precious"
    out.chmod(0o644)
    assert command("export", "--out", out, "--force").exit_code == 0
    assert out.read_bytes() == export_of(owner)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(out)
    refused = command("export", "--out", tmp_path / "link", "--force")
    assert isinstance(refused.exception, errors.FailedPrecondition)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine.jsonl"]


def test_without_a_file_it_goes_to_standard_output(command: Command, owner: EdgeReranker) -> None:
    assert command("export").stdout_bytes == export_of(owner)
    owner.namespaces.create("films")
    assert command("export", "--namespace", "films").stdout_bytes.count(b"\n") == 2


def test_a_file_that_failed_half_way_leaves_nothing(
    command: Command, owner: EdgeReranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: EdgeReranker, **_: object) -> Iterator[bytes]:
        yield b"half\n"
        raise api.StoreBusy("something was forgotten")

    monkeypatch.setattr(EdgeReranker, "export", broken)
    assert isinstance(command("export", "--out", tmp_path / "mine.jsonl").exception, api.StoreBusy)
    assert list(tmp_path.iterdir()) == []


def test_under_a_passphrase_it_tells_nothing_and_is_taken_back(
    command: Command, owner: EdgeReranker, tmp_path: Path, passphrase_file: Path
) -> None:
    plain, out = export_of(owner), tmp_path / "mine.age"
    assert CANARY.encode() in plain
    assert command("export", "--out", out, "--passphrase-file", passphrase_file).exit_code == 0
    assert CANARY.encode() not in out.read_bytes()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    owner.forget(all=True)
    back = command("import", out, "--passphrase-file", passphrase_file)
    assert back.stdout == "3 recorded, 0 known already\n"
    assert export_of(owner) == plain


def test_a_passphrase_is_asked_for_twice_and_once(
    command: Command, owner: EdgeReranker, tmp_path: Path
) -> None:
    out = tmp_path / "mine.age"
    made = command("export", "--out", out, "--encrypt", stdin=f"{PASSPHRASE}\n{PASSPHRASE}\n")
    assert made.exit_code == 0
    assert PASSPHRASE not in made.output
    owner.forget(all=True)
    assert command("import", out, stdin=f"{PASSPHRASE}\n").stdout.endswith("3 recorded, 0 known already\n")


@pytest.fixture(scope="module")
def locked() -> bytes:
    """An export of some chunks, under the passphrase."""
    items = [Item(f"i{n}", text="word " * 700) for n in range(60)]
    events = [Event(f"x{n}", EventType.LIKE, 1.6e9, item) for n, item in enumerate(items)]
    made = io.BytesIO()
    passphrase.encrypt(io.BytesIO(b"".join(lines.chunks([events]))), made, PASSPHRASE)
    return made.getvalue()


HARMS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a byte changed": (lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:], "is damaged or cut"),
    "cut off": (lambda data: data[:-10], "is damaged or cut off"),
    # To where a chunk ends: each is 64 KiB with 16 bytes more, after a header and 16 bytes.
    "a chunk cut off": (
        lambda data: data[: data.index(b"\n--- ") + 49 + 16 + 2 * 65_552],
        "is damaged or cut off",
    ),
    "another passphrase": (lambda data: data, "does not open this file"),
}


@pytest.mark.parametrize(("harm", "says"), HARMS.values(), ids=HARMS)
def test_a_harmed_or_locked_file_gives_nothing(
    command: Command,
    owner: EdgeReranker,
    tmp_path: Path,
    passphrase_file: Path,
    locked: bytes,
    harm: Callable[[bytes], bytes],
    says: str,
) -> None:
    owner.forget(all=True)
    out = tmp_path / "mine.age"
    out.write_bytes(harm(locked))
    if out.read_bytes() == locked:
        passphrase_file.write_text("another")
    refused = command("import", out, "--passphrase-file", passphrase_file)
    assert isinstance(refused.exception, errors.InvalidArgument), refused
    assert says in str(refused.exception)
    assert export_of(owner).count(b"\n") == 2


def test_a_bad_line_is_told_with_the_file(command: Command, owner: EdgeReranker, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(export_of(owner).replace(b'"e1"', b'"e1","eventId":"e2"'))
    owner.forget(all=True)
    refused = command("import", bad)
    assert isinstance(refused.exception, api.InvalidArgument)
    assert str(refused.exception).startswith(f'{bad}, line 3: has the name "eventId" twice in one object')
    assert export_of(owner).count(b"\n") == 2
    for empty in (b"", b"\n"):
        assert isinstance(command("import", "-", stdin=empty).exception, api.InvalidArgument)


def test_options_that_cannot_be_meant_are_refused(
    command: Command, owner: EdgeReranker, tmp_path: Path, passphrase_file: Path
) -> None:
    plain = tmp_path / "mine.jsonl"
    plain.write_bytes(export_of(owner))
    refused = command("import", plain, "--passphrase-file", passphrase_file)
    assert "is not needed" in str(refused.exception)
    passphrase_file.write_text("\n")
    refused = command("export", "--out", tmp_path / "o", "--passphrase-file", passphrase_file)
    assert "its first line is the passphrase" in str(refused.exception)
    refused = command("export", "--namespace", "../x")
    assert isinstance(refused.exception, api.InvalidArgument)


def test_a_passphrase_that_cannot_be_asked_for_is_not_read_from_the_data(
    place: Path, cache_dir: Path, locked: bytes
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_reranker.cli", "import", "-"],
        input=locked,
        capture_output=True,
        timeout=120,
        start_new_session=True,  # no terminal
        env=surroundings(place, cache_dir),
    )
    assert done.returncode == 4
    assert b"there is no terminal; give --passphrase-file" in done.stderr
