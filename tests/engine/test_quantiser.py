"""Files made of other files, in a process of its own: what they hold, what is refused, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from edge_reranker.engine.quantiser import COPY, NEED_IMPORTANCE, QUANTISATIONS, Progress, derive
from edge_reranker.errors import FailedPrecondition, InvalidArgument, ModelInvalid
from tests import gguf_files

N_TENSORS, N_MATRICES = 20, 15


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 and 128 columns: the types with blocks of 256 do not fit."""
    return gguf_files.write_llama(tmp_path_factory.mktemp("narrow") / "a.gguf", gguf_files.llama_weights())


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 columns, but for the 128 of ffn_down."""
    path = tmp_path_factory.mktemp("wide") / "a.gguf"
    return gguf_files.write_llama(path, gguf_files.llama_weights(256))


def tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values(path: Path, name: str) -> np.ndarray:
    found = tensors(path)[name]
    return gguf.dequantize(found.data, found.tensor_type)


def children() -> list[int]:
    """Processes of ours that run still, but for those that are only waited for."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(folder.name))
    return found


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def test_types_are_those_of_the_binding() -> None:
    assert {"F32", "F16", "BF16", "Q8_0", "Q4_K_M", "IQ4_NL", "IQ1_S", "TQ1_0"} <= set(QUANTISATIONS)
    assert not {"GUESSED", COPY} & set(QUANTISATIONS)
    assert set(QUANTISATIONS) > NEED_IMPORTANCE


@pytest.mark.parametrize("quantisation", ["IQ3_XS", "IQ2_M", "IQ1_M", "Q2_K_S", "Q2_K", "IQ4_XS"])
def test_just_the_types_that_need_importance_are_refused_without(
    quantisation: str, wide: Path, tmp_path: Path
) -> None:
    target = tmp_path / "b.gguf"
    if quantisation in NEED_IMPORTANCE:
        with pytest.raises(ModelInvalid, match=f"{quantisation} cannot be made .* quantize importance"):
            derive(wide, target, quantisation=quantisation)
    else:
        derive(wide, target, quantisation=quantisation)
        assert len(tensors(target)) == N_TENSORS


def test_progress_counts_tensors_and_those_that_fell_back(narrow: Path, tmp_path: Path) -> None:
    """Of the narrow model no matrix takes blocks of 256; the tied embeddings become Q8_0 as it is."""
    seen: list[Progress] = []
    derive(narrow, tmp_path / "b.gguf", quantisation="Q4_K_M", progress=seen.append)
    assert [each.n_done for each in seen] == list(range(N_TENSORS + 1))
    assert {(each.n_tensors, each.n_fallback) for each in seen} == {(N_TENSORS, N_MATRICES - 1)}
    assert {tensor.tensor_type.name for tensor in tensors(tmp_path / "b.gguf").values()} == {
        *("F32", "Q5_0", "Q8_0")
    }
    seen.clear()
    derive(narrow, tmp_path / "b.gguf", quantisation="Q8_0", progress=seen.append)
    assert seen[-1] == Progress(N_TENSORS, N_TENSORS, 0)


def test_a_dropped_block_is_gone_and_those_behind_move_up(narrow: Path, tmp_path: Path) -> None:
    derive(narrow, tmp_path / "b.gguf", quantisation="F32", blocks={0})
    derive(narrow, tmp_path / "copy.gguf", quantisation=COPY, blocks=[0])
    for name, tensor in tensors(tmp_path / "b.gguf").items():
        source = tensors(narrow)[name.replace("blk.0.", "blk.1.")]
        assert np.array_equal(tensor.data, source.data)
        assert np.array_equal(tensor.data, tensors(tmp_path / "copy.gguf")[name].data)
    reader = gguf.GGUFReader(tmp_path / "b.gguf")
    assert reader.fields["llama.block_count"].contents() == 1


def test_dropping_the_tail_by_name_or_by_number_gives_the_same_bytes(narrow: Path, tmp_path: Path) -> None:
    derive(narrow, tmp_path / "b.gguf", quantisation="Q8_0", n_blocks=1)
    derive(narrow, tmp_path / "c.gguf", quantisation="Q8_0", blocks={1}, n_threads=1)
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "c.gguf").read_bytes()


def test_a_copy_leaves_every_tensor_and_its_type(narrow: Path, tmp_path: Path) -> None:
    derive(narrow, tmp_path / "mixed.gguf", quantisation="Q4_K_M")
    derive(tmp_path / "mixed.gguf", tmp_path / "copy.gguf", quantisation=COPY)
    before, after = tensors(tmp_path / "mixed.gguf"), tensors(tmp_path / "copy.gguf")
    assert {n: t.tensor_type for n, t in before.items()} == {n: t.tensor_type for n, t in after.items()}
    assert all(np.array_equal(before[name].data, after[name].data) for name in before)


def test_overrides_and_pure_choose_the_types_of_tensors(narrow: Path, tmp_path: Path) -> None:
    derive(narrow, tmp_path / "b.gguf", quantisation="Q4_0", overrides={r"blk\.1\.attn_v": "Q8_0"})
    found = tensors(tmp_path / "b.gguf")
    assert found["blk.1.attn_v.weight"].tensor_type.name == "Q8_0"
    assert found["blk.0.attn_v.weight"].tensor_type.name == "Q4_0"
    assert found["token_embd.weight"].tensor_type.name == "Q8_0"
    derive(narrow, tmp_path / "b.gguf", quantisation="Q4_0", pure=True)
    assert tensors(tmp_path / "b.gguf")["token_embd.weight"].tensor_type.name == "Q4_0"


def test_columns_of_importance_are_kept_more_exactly(narrow: Path, tmp_path: Path) -> None:
    name = "blk.1.attn_k.weight"
    weight = np.ones(64, np.float32)
    weight[::8] = 100.0
    given = {each: weight for each in tensors(narrow) if each != "blk.1.ffn_down.weight"}
    given["blk.0.ffn_down.weight"] = given["blk.1.ffn_down.weight"] = np.ones(128, np.float32)
    derive(narrow, tmp_path / "without.gguf", quantisation="IQ4_NL")
    derive(narrow, tmp_path / "with.gguf", quantisation="IQ4_NL", importance=given)
    true = values(narrow, name)
    without, with_ = (
        (((values(tmp_path / f"{each}.gguf", name) - true) ** 2)[:, ::8]).mean()
        for each in ("without", "with")
    )
    assert with_ < 0.7 * without


def test_bad_requests_are_told_apart_and_leave_the_source(narrow: Path, tmp_path: Path) -> None:
    before = (narrow.read_bytes(), narrow.stat().st_mtime_ns)
    target = tmp_path / "b.gguf"
    with pytest.raises(InvalidArgument, match="quantisation: 'Q9'; there are BF16"):
        derive(narrow, target, quantisation="Q9")
    with pytest.raises(InvalidArgument, match="is the source"):
        derive(narrow, narrow, quantisation="Q8_0")
    with pytest.raises(InvalidArgument, match=r"blocks: \[2\]; the model has 0 to 1"):
        derive(narrow, target, quantisation="Q8_0", blocks={2})
    with pytest.raises(InvalidArgument, match="at least one has to stay"):
        derive(narrow, target, quantisation="Q8_0", blocks={0, 1})
    with pytest.raises(InvalidArgument, match="n_blocks: 0"):
        derive(narrow, target, quantisation="Q8_0", n_blocks=0)
    with pytest.raises(InvalidArgument, match="leave one out"):
        derive(narrow, target, quantisation="Q8_0", n_blocks=1, blocks={1})
    with pytest.raises(InvalidArgument, match="no regular expression"):
        derive(narrow, target, quantisation="Q8_0", overrides={"(": "Q8_0"})
    with pytest.raises(InvalidArgument, match="overrides: 'Q8_1'"):
        derive(narrow, target, quantisation="Q8_0", overrides={"attn": "Q8_1"})
    with pytest.raises(InvalidArgument, match="has none for F16"):
        derive(narrow, target, quantisation="F16", overrides={"attn": "Q8_0"})
    with pytest.raises(ModelInvalid, match="NVFP4 cannot be made of it"):
        derive(narrow, target, quantisation="NVFP4")
    with pytest.raises(FileNotFoundError, match=r"b\.gguf"):
        derive(narrow, tmp_path / "nowhere" / "b.gguf", quantisation="Q8_0")
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ModelInvalid, match=r"text\.gguf"):
        derive(tmp_path / "text.gguf", target, quantisation="Q8_0")
    (tmp_path / "short.gguf").write_bytes(narrow.read_bytes()[:100_000])
    with pytest.raises(ModelInvalid, match=r"short\.gguf"):
        derive(tmp_path / "short.gguf", target, quantisation="Q8_0")
    assert before == (narrow.read_bytes(), narrow.stat().st_mtime_ns)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file gets larger than 1 MB, of ours and of what we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_will_not_fit_is_told_before_anything_is_written(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The source is sparse: it says that it has four times what is free here. What is begun all the same
    meets a limit, rather than the end of the disk.
    """
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    n_rows = shutil.disk_usage(tmp_path).free // 64
    gguf_files.write_llama(source, gguf_files.llama_weights())
    writer = gguf.GGUFWriter(tmp_path / "large.gguf", "llama")
    for name, field in gguf.GGUFReader(source).fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    writer.add_tensor_info("blk.0.ffn_up.weight", (n_rows, 64), np.dtype(np.float32), n_rows * 256)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(tmp_path / "large.gguf", (tmp_path / "large.gguf").stat().st_size + n_rows * 256 + 64)
    request.getfixturevalue("small_files")
    with pytest.raises(
        FailedPrecondition, match=r"b\.gguf: [\d,]+ MB are needed and [\d,]+ MB free; make room"
    ):
        derive(tmp_path / "large.gguf", target, quantisation="F16")
    assert target.stat().st_size == 0


@pytest.mark.usefixtures("small_files")
def test_a_file_that_cannot_be_written_to_its_end_is_told(wide: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"b\.gguf: could not be written to its end"):
        derive(wide, tmp_path / "b.gguf", quantisation="F16")


def test_a_crash_of_llama_cpp_is_an_error(wide: Path, tmp_path: Path) -> None:
    def crash(_: Progress) -> None:
        for pid in set(children()) - before:
            os.kill(pid, signal.SIGABRT)

    before = set(children())
    with pytest.raises(ModelInvalid, match=r"broke off \(signal 6\)"):
        derive(wide, tmp_path / "b.gguf", quantisation="IQ3_S", n_threads=1, progress=crash)


def test_ctrl_c_ends_it_at_once(wide: Path, tmp_path: Path) -> None:
    def ctrl_c(_: Progress) -> None:
        raise KeyboardInterrupt

    before = children()
    target = tmp_path / "b.gguf"
    with pytest.raises(KeyboardInterrupt):
        derive(wide, target, quantisation="IQ3_S", n_threads=1, progress=ctrl_c)
    assert children() == before
    assert target.read_bytes()[:4] != b"GGUF"  # the header comes last, so it was cut off


def test_it_ends_with_the_process_that_asked(wide: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from edge_reranker.engine.quantiser import derive
def die(_):
    print(open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
derive(Path(sys.argv[1]), Path(sys.argv[2]), quantisation="IQ3_S", n_threads=1, progress=die)
"""
    target = str(tmp_path / "b.gguf")
    asked = subprocess.run(
        [sys.executable, "-c", code, str(wide), target], stdout=subprocess.PIPE, check=False
    )
    assert asked.returncode == -signal.SIGKILL
    (child,) = map(int, asked.stdout.split())
    while state(child) not in ("", "Z"):
        time.sleep(0.01)
    assert Path(target).read_bytes()[:4] != b"GGUF"  # the header comes last, so it was cut off


def test_asked_by_a_process_that_is_gone_already_it_writes_nothing(narrow: Path, tmp_path: Path) -> None:
    """The next one to make that file has cleaned up by then."""
    target = tmp_path / "b.gguf"
    job = {
        "source": os.fsencode(narrow).hex(), "target": os.fsencode(target).hex(), "copy": True, "ftype": 0,
        "n_blocks": None, "blocks": [], "overrides": [], "pure": False, "n_threads": 1, "importance": [],
    }  # fmt: skip
    command = [sys.executable, "-I", "-m", "edge_reranker.engine.quantiser"]
    subprocess.run(command, input=json.dumps(job).encode() + b"\n", timeout=60, check=False)
    assert not target.exists()
