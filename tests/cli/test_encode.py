"""`encode` makes files of vectors that other programs read; llama.cpp runs a tiny model of random weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from edge_reranker.cli.app import cli
from edge_reranker.errors import InvalidArgument
from edge_reranker.models import ModelCache, pack
from edge_reranker.models.pack import Encoder, Pack
from edge_reranker.models.pull import sha256_of
from edge_reranker.prompt import content_hash
from edge_reranker.types import Item
from tests.engine import tiny_models
from tests.parts import N_DIMS, small_pack
from tests.service import Run

N_ITEMS = 600
N_MANY = 5_000  # 40 parts, two seconds' work


@dataclass(frozen=True, slots=True)
class Backend:
    """A folder with a model, a pack that reads it, and a catalogue."""

    folder: Path
    pack: Pack
    flags: tuple[str, ...]

    @property
    def items(self) -> list[Item]:
        return [film(i) for i in range(N_ITEMS)]

    def command(self, out: str, *more: str, items: str = "items.jsonl") -> tuple[str, ...]:
        return ("encode", str(self.folder / items), "--out", str(self.folder / out), *self.flags, *more)

    def left(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"items.jsonl", "cache", "pack"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    folder = tmp_path_factory.mktemp("backend")
    tiny_models.write_qwen3(folder / "tiny.gguf")
    sha256 = sha256_of(folder / "tiny.gguf")
    cache = ModelCache(folder / "cache")
    cache.add(folder / "tiny.gguf", sha256=sha256, name="tiny", role="encoder", license_="MIT", say=print)
    small = small_pack()
    n_embd = tiny_models.N_EMBD
    random = np.random.default_rng(0)
    head = replace(
        small.head,
        shift=np.zeros(n_embd, np.float16),
        scale=np.ones(n_embd, np.float16),
        project=random.standard_normal((n_embd, N_DIMS)).astype(np.float16),
    )
    encoder = Encoder("tiny", None, n_embd, sha256=sha256)
    whole = pack.make(replace(small.manifest, encoder=encoder), head)
    pack.save(whole, folder / "pack")
    (folder / "tiny.gguf").unlink()
    flags = ("--cache-dir", str(folder / "cache"), "--pack", str(folder / "pack"), "--threads", "1")
    return Backend(folder, whole, flags)


@pytest.fixture
def backend(made: Backend, tmp_path: Path) -> Backend:
    """The same model and pack, and files of this test's own."""
    own = replace(made, folder=tmp_path)
    (tmp_path / "items.jsonl").write_text("".join(map(line, own.items)))
    return own


def film(number: int) -> Item:
    return Item(f"film-{number}", f"Film {number}", tags=("Crime", "Drama"))


def line(item: Item) -> str:
    return json.dumps({"id": item.id, "title": item.title, "tags": item.tags}) + "\n"


def done(run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    found = run(*arguments)
    assert found.returncode == 0, found.stderr
    return found


def test_any_program_reads_the_parquet_file(backend: Backend, run: Run) -> None:
    """Columns of plain types, and in the schema who made them."""
    said = done(run, *backend.command("vectors.parquet"))
    assert f"vectors of {N_ITEMS} items in the space {backend.pack.id}" in said.stderr
    assert said.stdout == ""
    table = parquet.read_table(backend.folder / "vectors.parquet")
    assert {field.name: field.type for field in table.schema} == {
        "id": pyarrow.string(),
        "vector": pyarrow.list_(pyarrow.field("element", pyarrow.float32())),
        "vector_space": pyarrow.string(),
        "text_hash": pyarrow.string(),
    }
    encoder, _ = ModelCache(Path(backend.flags[1])).open("tiny", "encoder")
    assert {key.decode(): value.decode() for key, value in table.schema.metadata.items()} == {
        "edge_reranker.pack": backend.pack.id,
        "edge_reranker.encoder_sha256": encoder.sha256,
        "edge_reranker.n_dims": str(N_DIMS),
        "edge_reranker.n_items": str(N_ITEMS),
        "edge_reranker.shard": "1/1",
    }
    assert table["id"].to_pylist() == [item.id for item in backend.items]
    assert set(table["vector_space"].to_pylist()) == {backend.pack.id}
    assert table["text_hash"].to_pylist() == [content_hash(item) for item in backend.items]
    vectors = np.stack(table["vector"].to_numpy())
    assert vectors.shape == (N_ITEMS, N_DIMS)
    assert np.array_equal(vectors, vectors.astype(np.float16))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)


def test_lines_parquet_and_standard_output_hold_the_same_vectors(backend: Backend, run: Run) -> None:
    done(run, *backend.command("vectors.jsonl"))
    done(run, *backend.command("vectors.parquet"))
    lines = (backend.folder / "vectors.jsonl").read_text()
    assert (
        run("encode", "-", *backend.flags, stdin=(backend.folder / "items.jsonl").read_text()).stdout == lines
    )
    rows = parquet.read_table(backend.folder / "vectors.parquet").to_pylist()
    for row, line in zip(rows, map(json.loads, lines.splitlines()), strict=True):
        assert (row["id"], row["vector_space"]) == (line["id"], line["vectorSpace"])
        assert np.array_equal(np.float32(row["vector"]), np.float32(line["vector"]))
    assert backend.left() == {"vectors.jsonl", "vectors.parquet"}


def test_a_catalogue_in_parquet_gives_the_same_bytes(backend: Backend, run: Run) -> None:
    columns = {
        "id": [item.id for item in backend.items],
        "title": [item.title for item in backend.items],
        "tags": [list(item.tags) for item in backend.items],
    }
    parquet.write_table(pyarrow.table(columns), backend.folder / "items.parquet")
    done(run, *backend.command("a.parquet", items="items.parquet"))
    done(run, *backend.command("b.parquet"))
    assert (backend.folder / "a.parquet").read_bytes() == (backend.folder / "b.parquet").read_bytes()


def test_shards_put_together_are_the_whole(backend: Backend, run: Run) -> None:
    done(run, *backend.command("whole.parquet"))
    for index in (1, 2, 3):
        done(run, *backend.command(f"part-{index}.parquet", "--shard", f"{index}/3"))
    shards = [parquet.read_table(backend.folder / f"part-{index}.parquet") for index in (1, 2, 3)]
    assert all(160 < len(shard) < 240 for shard in shards)
    assert [shard.schema.metadata[b"edge_reranker.shard"] for shard in shards] == [b"1/3", b"2/3", b"3/3"]
    whole = parquet.read_table(backend.folder / "whole.parquet")
    together = pyarrow.concat_tables([shard.replace_schema_metadata() for shard in shards])
    assert together.sort_by("id").equals(whole.replace_schema_metadata().sort_by("id"))


def started(backend: Backend) -> subprocess.Popen[str]:
    """A run over a longer catalogue, of which some is done and much is not."""
    (backend.folder / "items.jsonl").write_text("".join(line(film(i)) for i in range(N_MANY)))
    parts = backend.folder / ".vectors.parquet.parts"
    n_before = len(list(parts.glob("??/*")))
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_reranker.cli", *backend.command("vectors.parquet")],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"EDGE_RERANKER_DATA_DIR": str(backend.folder)},
    )
    until = time.monotonic() + 60
    while len(list(parts.glob("??/*"))) < n_before + 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.001)
    return process


def test_killed_at_any_moment_the_same_command_ends_in_the_same_bytes(backend: Backend, run: Run) -> None:
    for _ in range(3):
        process = started(backend)
        process.kill()
        process.communicate()
        assert backend.left() == {".vectors.parquet.parts"}
    done(run, *backend.command("vectors.parquet"))
    done(run, *backend.command("whole.parquet"))
    assert backend.left() == {"vectors.parquet", "whole.parquet"}
    files = [(backend.folder / name).read_bytes() for name in ("vectors.parquet", "whole.parquet")]
    assert files[0] == files[1]


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_much_is_kept_and_how_to_go_on(backend: Backend, signal_: signal.Signals) -> None:
    process = started(backend)
    process.send_signal(signal_)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"of {N_MANY} items are kept in " in said
    assert said.rstrip().endswith("the same command goes on from there")
    assert "Traceback" not in said
    assert backend.left() == {".vectors.parquet.parts"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "x.csv"), "--out: 'x.csv'; must end in .parquet or .jsonl"),
        (("--out", "nowhere/x.jsonl"), "--out: nowhere is not a folder; make it first"),
        (("--shard", "0/8"), "--shard: '0/8'; must be I/N, such as 2/8"),
        (("--shard", "9/8"), "--shard: '9/8'; must be I/N"),
        (("--shard", "2"), "--shard: '2'; must be I/N"),
        (("--ray-workers", "2"), "--ray-workers: goes with --ray"),
        (("--ray",), "--ray: needs --out FILE"),
        (("--ray", "--ray-workers", "0", "--out", "x.jsonl"), "--ray-workers: 0; must be 1 or more"),
    ],
)
def test_bad_options_are_named_in_one_line(
    backend: Backend, arguments: tuple[str, ...], message: str
) -> None:
    command = ["encode", str(backend.folder / "items.jsonl"), *backend.flags, *arguments]
    refused = CliRunner().invoke(cli, command, standalone_mode=False).exception
    assert isinstance(refused, InvalidArgument)
    assert message in str(refused)


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("ray", ("--out", "x.jsonl", "--ray"), "--ray: pip install 'edge-reranker[ray]'"),
        (
            "pyarrow",
            ("--out", "x.parquet"),
            "--out x.parquet: pip install 'edge-reranker[backend]', or write",
        ),
    ],
)
def test_without_an_optional_package_its_extra_is_named_in_one_line(
    backend: Backend,
    run_process: Run,
    tmp_path: Path,
    package: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "hidden" / package).mkdir(parents=True)
    (tmp_path / "hidden" / package / "__init__.py").write_text("raise ImportError('not installed')")
    found = run_process(
        *("encode", str(backend.folder / "items.jsonl"), *backend.flags, *arguments),
        PYTHONPATH=str(tmp_path / "hidden"),
    )
    assert found.returncode == 4
    assert message in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_lines_need_no_optional_package(backend: Backend, run_process: Run, tmp_path: Path) -> None:
    for package in ("pyarrow", "ray", "pandas"):
        (tmp_path / "hidden" / package).mkdir(parents=True)
        (tmp_path / "hidden" / package / "__init__.py").write_text("raise ImportError('not installed')")
    found = run_process(*backend.command("vectors.jsonl"), PYTHONPATH=str(tmp_path / "hidden"))
    assert found.returncode == 0, found.stderr


def test_a_wrong_row_far_down_is_named_before_anything_is_encoded(backend: Backend, run: Run) -> None:
    with (backend.folder / "items.jsonl").open("a") as file:
        file.write('{"id": "film-7", "title": "Film 7 again"}\n')
    found = run(*backend.command("vectors.parquet"))
    assert found.returncode == 2
    message = f"items.jsonl, row {N_ITEMS + 1}, id: 'film-7' is that of row 8 too; leave one of them out"
    assert found.stderr == f"Error: {message}\n"
    assert backend.left() == set()


def test_a_catalogue_is_never_written_over(run: Run, tmp_path: Path) -> None:
    """Also under another name of the same file."""
    catalogue, other = tmp_path / "items.jsonl", tmp_path / "other.jsonl"
    catalogue.write_text('{"id": "1", "title": "Heat (1995)"}\n')
    other.hardlink_to(catalogue)
    before = catalogue.read_bytes()
    for out in (catalogue, other):
        found = run("encode", str(catalogue), "--out", str(out))
        assert found.returncode == 2
        assert "is the catalogue itself; give another name" in found.stderr
    assert catalogue.read_bytes() == before
