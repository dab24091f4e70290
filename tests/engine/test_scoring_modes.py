"""How a scorer's worker lays out prefix and candidates: both modes, hot prefixes, and cut-off decodes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Mode, Stop, WorkerEngine, frames
from edge_reranker.engine.process import spawn
from edge_reranker.errors import InvalidArgument
from edge_reranker.types import Piece

pytestmark = pytest.mark.model

CONTEXT = "- liked Heat (1995) [Crime]\n- liked Casino (1995) [Drama]\n- liked Alien (1979) [Horror]\n"
# Mixed lengths, some with a long beginning in common, two the same.
TITLES = [
    "Star Trek: The Motion Picture",
    "Star Trek: The Wrath of Khan",
    "Star Trek: The Search for Spock",
    "Star Trek: The Voyage Home",
    "Star Trek: The Final Frontier",
    "Star Trek: The Undiscovered Country",
    "Big",
    "Fargo",
    "Twelve Monkeys",
    "The Good, the Bad and the Ugly",
    "Fargo",
    "How to Make an American Quilt",
]
TARGETS = [11, 42]


def start(path: Path, mode: Mode, n_sequences: int = 20) -> WorkerEngine:
    engine = WorkerEngine(EngineSpec(path, "scorer", mode=mode, n_sequences=n_sequences))
    assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
    return engine


@pytest.fixture(scope="module")
def isolated(scorer_path: Path) -> Iterator[WorkerEngine]:
    engine = start(scorer_path, "isolated")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def unified(scorer_path: Path) -> Iterator[WorkerEngine]:
    engine = start(scorer_path, "unified", 48)
    yield engine
    engine.close()


def tokens(engine: WorkerEngine, *texts: str) -> list[list[int]]:
    return engine.tokenize([[Piece(text)] for text in texts], Deadline())


def prompt(engine: WorkerEngine) -> tuple[list[int], list[list[int]]]:
    context, *suffixes = tokens(engine, CONTEXT, *(f" {title}:" for title in TITLES))
    return context, suffixes


def test_isolated_scores_are_those_of_full_prompts_bit_by_bit(isolated: WorkerEngine) -> None:
    context, suffixes = prompt(isolated)
    together = isolated.score(context, suffixes, TARGETS, Deadline())
    assert together.reached.all()
    for row, suffix in zip(together.logits, suffixes, strict=True):
        full = [*context, *suffix]
        alone = isolated.score(full[:-4], [full[-4:]], TARGETS, Deadline())
        assert np.array_equal(alone.logits[0], row)


def test_unified_scores_are_those_of_full_prompts_but_for_rounding(
    isolated: WorkerEngine, unified: WorkerEngine
) -> None:
    context, suffixes = prompt(isolated)
    exact = isolated.score(context, suffixes, TARGETS, Deadline()).logits
    fast = unified.score(context, suffixes, TARGETS, Deadline()).logits
    # Activations are rounded to 8 bits, so the order of sums moves a logit by some tenths.
    assert np.abs(fast - exact).max() < 1.0
    assert np.corrcoef(fast[:, 0], exact[:, 0])[0, 1] > 0.98


@pytest.mark.parametrize("mode", ["isolated", "unified"])
def test_a_permuted_request_gives_each_candidate_the_same_score(
    mode: str, request: pytest.FixtureRequest
) -> None:
    engine: WorkerEngine = request.getfixturevalue(mode)
    context, suffixes = prompt(engine)
    before = engine.score(context, suffixes, TARGETS, Deadline()).logits
    for seed in range(3):
        order = random.Random(seed).sample(range(len(suffixes)), len(suffixes))
        after = engine.score(context, [suffixes[i] for i in order], TARGETS, Deadline()).logits
        assert np.array_equal(after, before[order])


@pytest.mark.parametrize("mode", ["isolated", "unified"])
def test_a_prefix_that_was_decoded_ahead_is_not_decoded_again(
    mode: str, request: pytest.FixtureRequest
) -> None:
    engine: WorkerEngine = request.getfixturevalue(mode)
    context, suffixes = prompt(engine)
    cold = engine.score(context, suffixes, TARGETS, Deadline())
    longer = [*context, *tokens(engine, "- liked Fargo (1996) [Crime, Thriller]\n")[0]]
    ahead = [engine.prefill(longer, Deadline())]
    while ahead[-1].stop == Stop.DEADLINE:
        ahead.append(engine.prefill(longer, Deadline()))
    assert ahead[-1].stop == Stop.DONE
    new = len(longer) - len(context)
    assert new <= sum(each.prefix_tokens for each in ahead) <= new + 1
    hot = engine.score(longer, suffixes, TARGETS, Deadline())
    assert hot.prefix_tokens == 0
    engine.score(tokens(engine, "Something else")[0], suffixes[:1], TARGETS, Deadline())
    again = engine.score(longer, suffixes, TARGETS, Deadline())
    assert again.prefix_tokens == len(longer)
    if mode == "isolated":
        assert np.array_equal(again.logits, hot.logits)
    assert not np.array_equal(cold.logits, hot.logits)


def test_an_overlong_prefix_is_refused(isolated: WorkerEngine) -> None:
    with pytest.raises(InvalidArgument, match="less than 256 are allowed"):
        isolated.prefill([1] * 256, Deadline())


@pytest.mark.parametrize("mode", ["isolated", "unified"])
def test_a_saved_prefix_serves_another_worker_with_the_same_bits(
    mode: Mode, request: pytest.FixtureRequest, scorer_path: Path
) -> None:
    engine: WorkerEngine = request.getfixturevalue(mode)
    context, suffixes = prompt(engine)
    engine.score(tokens(engine, "Something else")[0], suffixes[:1], TARGETS, Deadline())
    expected = engine.score(context, suffixes, TARGETS, Deadline()).logits
    saved = engine.save_prefix(Deadline())
    assert saved is not None
    assert list(saved.ids[: len(context)]) == context
    other = start(scorer_path, mode, 20 if mode == "isolated" else 48)
    try:
        assert other.save_prefix(Deadline()) is None
        assert other.restore_prefix(saved, Deadline())
        found = other.score(context, suffixes, TARGETS, Deadline())
        assert found.prefix_tokens == 0
        assert np.array_equal(found.logits, expected)
        assert not other.restore_prefix(saved, Deadline()), "what was decoded since is newer"
    finally:
        other.close()


def test_a_state_that_is_cut_short_is_not_taken_and_harms_nothing(
    isolated: WorkerEngine, scorer_path: Path
) -> None:
    context, suffixes = prompt(isolated)
    expected = isolated.score(context, suffixes, TARGETS, Deadline()).logits
    saved = isolated.save_prefix(Deadline())
    assert saved is not None
    other = start(scorer_path, "isolated")
    try:
        assert not other.restore_prefix(type(saved)(saved.ids, saved.state[:-1000]), Deadline())
        found = other.score(context, suffixes, TARGETS, Deadline())
        assert found.prefix_tokens == len(context)
        assert np.array_equal(found.logits, expected)
    finally:
        other.close()


def test_a_cancelled_decode_ends_at_once_and_the_next_answer_is_a_fresh_workers(
    isolated: WorkerEngine, scorer_path: Path
) -> None:
    context, suffixes = prompt(isolated)
    expected = isolated.score(context, suffixes, TARGETS, Deadline()).logits
    long = [[7 + index % 90] * 25 for index in range(20)]  # one batch of 500 tokens
    # A worker spoken to directly: the service cancels only when time is up, and a worker keeps to that.
    process = spawn()
    assert process.stdin is not None
    assert process.stdout is not None
    to, fro = process.stdin.fileno(), process.stdout.fileno()

    def score(
        request_id: int, suffixes: list[list[int]], cancel_after_s: float | None = None
    ) -> list[object]:
        frames.write(to, frames.Score(request_id, context, suffixes, TARGETS, -1.0))
        if cancel_after_s is not None:
            time.sleep(cancel_after_s)
            frames.write(to, frames.Cancel(request_id))
        replies: list[object] = []
        while not isinstance(replies[-1] if replies else None, frames.Done):
            body = frames.read(fro)
            assert body is not None, "the worker died"
            replies.append(frames.response_decoder.decode(body))
        return replies

    try:
        frames.write(to, frames.Open(str(scorer_path), "scorer", 2, 20, 256, 0, "isolated", 0))
        assert isinstance(frames.response_decoder.decode(frames.read(fro) or b""), frames.Opened)
        score(1, long)
        begun = time.monotonic()
        score(2, long)
        whole_s = time.monotonic() - begun
        begun = time.monotonic()
        (done,) = score(3, long, cancel_after_s=whole_s / 5)
        assert time.monotonic() - begun < 0.6 * whole_s
        assert done == frames.Done(3, Stop.DEADLINE)
        *rows, last = score(4, suffixes)
        assert last == frames.Done(4, Stop.DONE, len(context)), "nothing of the cache was kept"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    found = np.zeros_like(expected)
    for row in rows:
        assert isinstance(row, frames.Rows)
        found[row.indices] = np.frombuffer(row.data, "<f4").reshape(len(row.indices), -1)
    assert np.array_equal(found, expected)
