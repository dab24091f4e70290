"""LoadModel on the real thing: real service, real socket, real model, and files that only look like one."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_reranker.models import ModelCache
from edge_reranker.models.pull import sha256_of
from edge_reranker_client import (
    Candidate,
    EdgeReranker,
    Event,
    FailedPrecondition,
    Item,
    Missing,
    ModelInvalid,
    NotFound,
    Ranking,
)
from tests import gguf_files
from tests.service import Run, children, serving

pytestmark = pytest.mark.model

NAME = "minilm"
N_EMBD = 384
GENRES = ("Crime", "Comedy", "Drama")


@pytest.fixture
def own_cache(cache_dir: Path, tmp_path: Path) -> Path:
    """A cache of one's own to break: its model files are the shared ones."""
    shared, folder = cache_dir / "models" / NAME, tmp_path / "cache" / "models" / NAME
    folder.mkdir(parents=True)
    for file in json.loads((shared / "model.json").read_bytes()):
        (folder / file["file"]).symlink_to(shared / file["file"])
    (folder / "model.json").write_bytes((shared / "model.json").read_bytes())
    return tmp_path / "cache"


@contextmanager
def service(
    data_dir: Path, cache: Path, *options: str
) -> Iterator[tuple[EdgeReranker, subprocess.Popen[str]]]:
    with serving(data_dir, cache, *options) as process, EdgeReranker(data_dir=data_dir, owner=True) as client:
        client.record([Event("LIKE", Item("liked", "Heat (1995)", tags=["Crime"]))])
        client.warmup()
        yield client, process


def films(n: int, first: int = 0) -> list[Candidate]:
    return [
        Candidate(f"f{number}", f"Film number {number}", tags=[GENRES[number % 3]])
        for number in range(first, first + n)
    ]


def complete(ranking: Ranking, n: int) -> bool:
    return len(set(ranking.ids)) == n and ranking.coverage == 1.0 and not ranking.degraded_reason


def put_encoder(cache: Path, path: Path) -> None:
    """Names ``path`` as the model's encoder, with its right hash: only running it shows what it is."""
    manifest = cache / "models" / NAME / "model.json"
    files: list[dict[str, Any]] = json.loads(manifest.read_bytes())
    target = manifest.parent / path.name
    target.write_bytes(path.read_bytes())
    for file in files:
        if file["role"] == "encoder":
            file |= {"file": path.name, "sha256": sha256_of(path), "size_bytes": path.stat().st_size}
    manifest.write_text(json.dumps(files))


def test_requests_under_way_during_a_swap_all_get_complete_answers(data_dir: Path, cache_dir: Path) -> None:
    with service(data_dir, cache_dir) as (client, process):
        (old,) = children(process.pid)
        answers: list[tuple[Ranking, int]] = []
        errors: list[Exception] = []
        stop = threading.Event()

        def ask(which: int) -> None:
            with EdgeReranker(data_dir=data_dir) as app:
                for turn in range(1_000):
                    if stop.is_set():
                        return
                    n = 4 + which  # always new items, so each needs the model
                    try:
                        answer = app.rerank(
                            films(n, first=10_000 * which + 10 * turn), budget_ms=60_000, timeout_s=90
                        )
                    except Exception as error:
                        errors.append(error)
                        return
                    answers.append((answer, n))

        threads = [threading.Thread(target=ask, args=(which,)) for which in range(1, 4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        before = len(answers)
        loaded = [client.load_model(NAME) for _ in range(2)]
        after = len(answers)
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not errors
        assert before < after < len(answers), "the test's own premise: requests before, during and after"
        assert all(complete(answer, n) for answer, n in answers)
        assert process.poll() is None
        (new,) = children(process.pid)
        assert new != old
        assert not Path(f"/proc/{old}").exists()
        for model in loaded:
            assert (model.name, model.role, model.state) == (NAME, "encoder", "READY")
            assert model.tokens_per_s > 10
        assert [each.state for each in client.models() if each.name == NAME] == ["READY"]


def nan_weights(folder: Path) -> Path:
    weights = gguf_files.llama_weights(N_EMBD)
    weights["blk.0.attn_output.weight"][0, 0] = np.nan
    return gguf_files.write_llama(folder / "nan.gguf", weights)


def random_weights(folder: Path) -> Path:
    return gguf_files.write_llama(folder / "random.gguf", gguf_files.llama_weights(N_EMBD))


def other_size(folder: Path) -> Path:
    return gguf_files.write_llama(folder / "small.gguf", gguf_files.llama_weights())


def cut_off(folder: Path) -> Path:
    whole = random_weights(folder).read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.gguf"


def test_a_model_that_fails_its_self_test_is_refused_and_the_old_one_serves_on(
    data_dir: Path, own_cache: Path, tmp_path: Path
) -> None:
    with service(data_dir, own_cache) as (client, process):
        before = children(process.pid)
        for make, problem in (
            (nan_weights, f"{NAME} encoder failed its self-test: its numbers are not finite"),
            (random_weights, f"{NAME} encoder failed its self-test: it prefers "),
            (other_size, f"{NAME} encoder has hidden states of another size than the {N_EMBD}"),
            (cut_off, r"cut\.gguf: llama\.cpp cannot load it"),
        ):
            put_encoder(own_cache, make(tmp_path))
            with pytest.raises(ModelInvalid, match=problem):
                client.load_model(NAME)
            assert children(process.pid) == before, "no worker too many, and the old one is still there"
        assert complete(client.rerank(films(5, first=500), budget_ms=60_000, timeout_s=90), 5)
        assert client.models()[0].state == "READY"


def test_what_cannot_be_loaded_is_told_apart(data_dir: Path, own_cache: Path, tmp_path: Path) -> None:
    path = random_weights(tmp_path)
    ModelCache(own_cache).add(
        path, sha256=sha256_of(path), name="mine", role="scorer", license_="none", say=lambda line: None
    )
    with service(data_dir, own_cache) as (client, process):
        before = children(process.pid)
        with pytest.raises(NotFound, match="'nobody' is neither in the catalogue nor added"):
            client.load_model("nobody")
        with pytest.raises(
            FailedPrecondition, match=f"reads {NAME}, not mine; start the service with a --pack"
        ):
            client.load_model("mine")
        encoder = ModelCache(own_cache).open(NAME, "encoder")[1]
        whole = encoder.read_bytes()
        encoder.unlink()
        encoder.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ModelInvalid, match="its SHA-256 changed"):
            client.load_model(NAME)
        (own_cache / "models" / NAME / "model.json").unlink()
        with pytest.raises(Missing, match=f"model pull {NAME}"):
            client.load_model(NAME)
        assert children(process.pid) == before


def test_a_service_without_a_model_gets_one_by_command(data_dir: Path, cache_dir: Path, run: Run) -> None:
    with service(data_dir, cache_dir, "--model", "none") as (client, process):
        assert client.rerank(films(5)).degraded_reason == "NO_MODEL"
        assert children(process.pid) == []
        said = run("model", "load", NAME)
        assert said.returncode == 0, said.stderr
        assert f"{NAME} in use; its encoder reads " in said.stdout
        assert complete(client.rerank(films(5), budget_ms=60_000, timeout_s=90), 5)
        answer = json.loads(run("model", "load", NAME, "--json").stdout)["model"]
        assert (answer["name"], answer["state"]) == (NAME, "MODEL_STATE_READY")
        assert answer["tokensPerS"] > 10
        assert len(children(process.pid)) == 1
        assert run("model", "load", "nobody").returncode == 2
