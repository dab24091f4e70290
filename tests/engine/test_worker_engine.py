"""The real engine: a worker process with the real model."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Stop, WorkerEngine
from edge_reranker.errors import EngineBusy, EngineDied, InvalidArgument
from edge_reranker.types import ModelState, Piece
from tests.service import environment, open_files

pytestmark = pytest.mark.model

TITLES = ["Toy Story (1995). Animation", "Heat (1995). Crime, Thriller", "Casino (1995). Drama"]
CONTROL = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<repo_name>", "<file_sep>", "<jupyter_code>")


@pytest.fixture(scope="module")
def encoder(encoder_path: Path) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder"))
    assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def scorer(scorer_path: Path) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(EngineSpec(scorer_path, "scorer"))
    assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
    yield engine
    engine.close()


def tokens(engine: WorkerEngine, *texts: str) -> list[list[int]]:
    return engine.tokenize([[Piece(text)] for text in texts], Deadline())


@pytest.mark.parametrize("control", CONTROL)
def test_data_never_becomes_a_control_token(encoder: WorkerEngine, control: str) -> None:
    (special,) = encoder.tokenize([[Piece(control, structure=True)]], Deadline())
    assert len(special) == 1, "the test's own premise: this string is one token as structure"
    (data,) = tokens(encoder, f"before {control} after")
    assert special[0] not in data


def test_vectors_do_not_depend_on_what_is_encoded_before_or_beside(encoder: WorkerEngine) -> None:
    ids = tokens(encoder, *TITLES)
    together = encoder.encode(ids, Deadline()).vectors
    alone = np.concatenate([encoder.encode([one], Deadline()).vectors for one in reversed(ids)])[::-1]
    assert np.array_equal(together, alone)
    assert np.isfinite(together).all()
    assert together.shape == (3, 576)


def test_encoding_stops_before_its_deadline_and_keeps_what_is_done(encoder: WorkerEngine) -> None:
    ids = tokens(encoder, *TITLES) * 60
    encoder.encode(ids[:6], Deadline())
    start = time.monotonic()
    result = encoder.encode(ids, Deadline.after_ms(300))
    took_ms = (time.monotonic() - start) * 1000
    assert result.stop == Stop.DEADLINE
    assert 0 < len(result.vectors) < len(ids)
    assert took_ms < 400


def test_a_foreground_call_gets_its_turn_while_background_work_goes_on(encoder: WorkerEngine) -> None:
    ids = tokens(encoder, *TITLES)
    stop = threading.Event()

    def background() -> None:
        while not stop.is_set():
            encoder.encode(ids[:1], Deadline.after_ms(5_000), background=True)

    thread = threading.Thread(target=background)
    thread.start()
    try:
        results = [encoder.encode(ids[:1], Deadline.after_ms(1_000)) for _ in range(10)]
    finally:
        stop.set()
        thread.join(10)
    assert all(result.stop == Stop.DONE for result in results)


LISTED = [
    *TITLES,
    "Up",
    "A much longer title that goes on: the sequel (1999). Drama",
    "? Fargo:",
    "? Fargo Two:",
]
CONTEXT = "This person liked Casino, Heat and Goodfellas. " * 5


def test_a_score_has_the_same_bits_alone_in_any_order_and_beside_any_others(scorer: WorkerEngine) -> None:
    (prefix,) = tokens(scorer, CONTEXT)
    suffixes = tokens(scorer, *LISTED)
    answers = [ids[0] for ids in tokens(scorer, "Yes", "No")]
    together = scorer.score(prefix, suffixes, answers, Deadline())
    assert together.reached.all()
    assert len(np.unique(together.logits)) > len(suffixes), "the test's own premise: scores differ"
    backwards = scorer.score(prefix, suffixes[::-1], answers, Deadline())
    assert np.array_equal(backwards.logits[::-1], together.logits)
    for some in ([0], [1], [2], [3], [4], [5, 6], [0, 3], [2, 4, 6]):
        # What a few have in common is decoded once, and so is part of another batch.
        few = scorer.score(prefix, [suffixes[index] for index in some], answers, Deadline())
        assert np.array_equal(few.logits, together.logits[some])


def test_the_shared_prefix_gives_the_full_prompts_scores(scorer: WorkerEngine) -> None:
    (prefix,) = tokens(scorer, CONTEXT)
    suffixes = tokens(scorer, *LISTED)
    answers = [ids[0] for ids in tokens(scorer, "Yes", "No")]
    shared = scorer.score(prefix, suffixes, answers, Deadline())
    for index, suffix in enumerate(suffixes):
        full = scorer.score([], [prefix + suffix], answers, Deadline())
        assert np.array_equal(full.logits[0], shared.logits[index])


def test_a_context_that_grew_gives_the_same_scores_as_one_read_at_once(scorer: WorkerEngine) -> None:
    (prefix,) = tokens(scorer, CONTEXT)
    suffixes = tokens(scorer, *LISTED)
    at_once = scorer.score(prefix, suffixes, [1], Deadline())
    scorer.score([7, 8, 9], suffixes, [1], Deadline())
    for length in (30, 31, 33, len(prefix) - 1):
        scorer.score(prefix[:length], suffixes[5:], [1], Deadline())
    assert np.array_equal(scorer.score(prefix, suffixes, [1], Deadline()).logits, at_once.logits)


def test_scoring_stops_at_its_deadline_with_the_first_candidates_reached(scorer: WorkerEngine) -> None:
    (prefix,) = tokens(scorer, "This person liked Casino. " * 10)
    suffixes = tokens(scorer, *(f"{number} {title}" for number in range(60) for title in TITLES))
    scorer.score(prefix, suffixes[:20], [1], Deadline())
    result = scorer.score(prefix, suffixes, [1], Deadline.after_ms(500))
    assert result.stop == Stop.DEADLINE
    n = int(result.reached.sum())
    assert 0 < n < len(suffixes)
    assert result.reached[0], "what matters most is in the first batch"
    assert not result.reached[len(suffixes) // 2 :].any(), "half a second is for the head of the request"


def test_an_overlong_or_empty_suffix_is_refused(scorer: WorkerEngine) -> None:
    with pytest.raises(InvalidArgument, match=r"suffixes\[1\]: 600 tokens"):
        scorer.score([1, 2], [[3], [4] * 600], [1], Deadline())
    with pytest.raises(InvalidArgument, match=r"suffixes\[0\]: 0 tokens"):
        scorer.score([1, 2], [[]], [1], Deadline())


def test_a_killed_worker_is_reported_at_once_and_comes_back(encoder_path: Path) -> None:
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder"))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000))
        ids = tokens(engine, *TITLES)
        pid = engine.pid
        assert pid is not None
        threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
        start = time.monotonic()
        result = engine.encode(ids * 100, Deadline())
        assert result.stop == Stop.DIED
        assert time.monotonic() - start < 2
        assert engine.wait_ready(Deadline.after_ms(5_000))
        assert engine.pid != pid
        assert engine.encode(ids, Deadline()).stop == Stop.DONE
        assert engine.restarts == 1
    finally:
        engine.close()


def test_a_frozen_worker_holds_nobody_past_the_deadline_and_is_replaced(encoder_path: Path) -> None:
    """Stopped in the middle, as a device short of memory may do: the pipe fills up and nothing answers."""
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder"))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000))
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        texts = [[Piece("a film with a title " * 40)]] * 200  # more than a pipe holds
        for _ in range(4):
            start = time.monotonic()
            with pytest.raises((EngineBusy, EngineDied)):
                engine.tokenize(texts, Deadline.after_ms(200))
            assert time.monotonic() - start < 1.5
        until = time.monotonic() + 30
        while engine.pid == pid or not engine.wait_ready(Deadline.after_ms(100)):
            assert time.monotonic() < until, "the frozen worker was not replaced"
            time.sleep(0.05)
        assert engine.tokenize([[Piece("x")]], Deadline.after_ms(5_000))
    finally:
        engine.close()


def test_a_worker_that_ignores_a_cancel_is_replaced(encoder_path: Path) -> None:
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder"))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000))
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert engine.encode([[1, 2, 3]], Deadline.after_ms(100)).stop == Stop.DEADLINE
        until = time.monotonic() + 15
        while engine.pid in (pid, None):
            assert time.monotonic() < until, "the frozen worker was not replaced"
            time.sleep(0.05)
        assert engine.wait_ready(Deadline.after_ms(5_000))
    finally:
        engine.close()


def test_requests_that_run_out_of_time_never_get_the_worker_killed(encoder: WorkerEngine) -> None:
    pid, ids = encoder.pid, tokens(encoder, *TITLES)
    until = time.monotonic() + 7  # longer than a worker may be stuck
    while time.monotonic() < until:
        encoder.encode(ids, Deadline.after_ms(0.2))
        time.sleep(0.002)
    assert encoder.encode(ids, Deadline()).stop == Stop.DONE
    assert encoder.pid == pid


def test_an_overlong_text_is_refused_and_the_worker_lives(encoder: WorkerEngine) -> None:
    pid = encoder.pid
    for bad in ([], [1] * 3_000):
        with pytest.raises(InvalidArgument, match=r"sequences\[0\]"):
            encoder.encode([bad], Deadline())
    assert encoder.pid == pid


def test_a_broken_file_fails_the_worker_not_the_service(tmp_path: Path, encoder_path: Path) -> None:
    half = tmp_path / "half.gguf"
    data = encoder_path.read_bytes()
    half.write_bytes(data[: len(data) // 2])
    engine = WorkerEngine(EngineSpec(half, "encoder"))
    try:
        assert not engine.wait_ready(Deadline.after_ms(3_000))
        assert engine.state in (ModelState.FAILED, ModelState.LOADING)
        assert "half.gguf" in engine.problem
        with pytest.raises(EngineDied):
            engine.tokenize([[Piece("x")]], Deadline.after_ms(100))
    finally:
        engine.close()


def test_too_little_memory_fails_the_worker_not_the_service(encoder_path: Path) -> None:
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder", memory_limit_bytes=64 * 1024 * 1024))
    try:
        assert not engine.wait_ready(Deadline.after_ms(3_000))
        assert engine.encode([[1]], Deadline.after_ms(50)).stop == Stop.DIED
    finally:
        engine.close()


def test_closing_leaves_no_process(encoder_path: Path) -> None:
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder"))
    assert engine.wait_ready(Deadline.after_ms(60_000))
    pid = engine.pid
    assert pid is not None
    engine.close()
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_engine_that_has_nothing_to_do_wakes_up_nobody(encoder_path: Path) -> None:
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder"))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000))
        assert engine.encode([[1, 2, 3]], Deadline()).stop == Stop.DONE
        supervisors = [each.native_id for each in threading.enumerate() if each.name == "engine-supervisor"]
        tasks = [Path(f"/proc/self/task/{native_id}/status") for native_id in supervisors]
        tasks += [task / "status" for task in Path(f"/proc/{engine.pid}/task").iterdir()]
        time.sleep(0.2)
        before = sum(sleeps(task) for task in tasks)
        time.sleep(2.5)
        assert sum(sleeps(task) for task in tasks) == before
    finally:
        engine.close()


def sleeps(status: Path) -> int:
    """How often a thread went to sleep of its own will: as often it woke up."""
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("voluntary")]
    return int(line.split()[1])


def test_the_whole_worker_has_the_niceness_it_was_given(encoder_path: Path) -> None:
    engine = WorkerEngine(EngineSpec(encoder_path, "encoder", nice=7))
    try:
        assert engine.wait_ready(Deadline.after_ms(60_000))
        tasks = [int(task.name) for task in Path(f"/proc/{engine.pid}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, task) for task in tasks} == {7}
        assert len(tasks) > 2, "the test's own premise: the model has threads"
        assert os.getpriority(os.PRIO_PROCESS, 0) < 7, "the service keeps its own"
    finally:
        engine.close()


def test_the_worker_inherits_neither_environment_nor_sockets(encoder: WorkerEngine) -> None:
    assert encoder.pid is not None
    assert b"HOME=" not in environment(encoder.pid)
    assert not [link for link in open_files(encoder.pid) if link.startswith("socket:")]
