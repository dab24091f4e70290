"""Models that were trained to rerank, as tiny files, through a real worker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Role, Stop, WorkerEngine, frames
from edge_reranker.engine.process import spawn
from edge_reranker.engine.types import FloatArray
from edge_reranker.errors import InvalidArgument
from edge_reranker.types import Piece
from tests.engine.reference import bert_score, qwen3_logits
from tests.engine.tiny_models import BERT_N_CTX, CLS, N_EMBD, SEP, Weights, write_bert, write_qwen3

# llama.cpp keeps keys and values, and multiplies queries with them, in half precision: 11 bits, through two
# layers, into logits with a deviation of 6. Largest difference over 12 seeds: 0.017.
QWEN3_TOLERANCE = 0.03
# llama.cpp reads GELU out of a table in half precision. Largest difference over 12 seeds: 0.005; the scores
# of this one deviate by 2.
BERT_TOLERANCE = 0.015
BERT_SEED = 10

PROMPT = "<|im_start|>user\nWho liked Heat and Casino?\n"
TITLES = ["heat", "a film 2", "a much longer title that goes on and on", "up", "fargo", "babe", "alien 3"]


class Model:
    """A tiny file, its weights, and a worker that has loaded it."""

    def __init__(self, path: Path, weights: Weights, role: Role) -> None:
        self.path = path
        self.weights = weights
        self.engine = WorkerEngine(EngineSpec(path, role))
        assert self.engine.wait_ready(Deadline.after_ms(60_000)), self.engine.problem

    def tokens(self, *texts: str, structure: bool = False) -> list[list[int]]:
        return self.engine.tokenize([[Piece(text, structure)] for text in texts], Deadline())


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("models") / "qwen3.gguf"
    model = Model(path, write_qwen3(path), "scorer")
    yield model
    model.engine.close()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("models") / "bert.gguf"
    model = Model(path, write_bert(path, seed=BERT_SEED), "ranker")
    yield model
    model.engine.close()


def answers(model: Model) -> tuple[FloatArray, FloatArray]:
    """Logits of every token after each title, [n_titles, n_vocab]: the worker's, and the reference's."""
    prefix = model.tokens(PROMPT, structure=True)[0]
    suffixes = model.tokens(*TITLES)
    everything = range(len(model.weights["token_embd.weight"]))
    scored = model.engine.score(prefix, suffixes, everything, Deadline())
    assert scored.reached.all()
    reference = [qwen3_logits(model.weights, prefix + suffix) for suffix in suffixes]
    return scored.logits, np.array(reference, np.float32)


def pairs(model: Model) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """A query, documents, and the sequences that a BERT ranker must read for them."""
    query, *documents = model.tokens("liked heat and casino", *TITLES)
    return query, documents, [[CLS, *query, SEP, *document, SEP] for document in documents]


def test_yes_and_no_have_the_logits_that_the_architecture_gives_them(qwen3: Model) -> None:
    ours, reference = answers(qwen3)
    assert np.abs(ours - reference).max() < QWEN3_TOLERANCE
    assert reference.std() > 100 * QWEN3_TOLERANCE, "the test's own premise: the tolerance is narrow"


def test_yes_less_no_orders_candidates_as_the_architecture_does(qwen3: Model) -> None:
    ours, reference = answers(qwen3)
    (yes,), (no,) = qwen3.tokens("yes", "no")
    wanted = reference[:, yes] - reference[:, no]
    gaps = np.diff(np.sort(wanted))
    assert gaps.min() > 2 * QWEN3_TOLERANCE, "the test's own premise: no two are equally good"
    assert np.argsort(ours[:, yes] - ours[:, no]).tolist() == np.argsort(wanted).tolist()


def test_a_file_that_llama_cpp_converted_for_its_own_ranking_answers_yes_and_no_all_the_same(
    qwen3: Model, tmp_path: Path
) -> None:
    path = tmp_path / "converted.gguf"
    converted = Model(path, write_qwen3(path, rank_head=True), "scorer")
    try:
        assert np.array_equal(answers(converted)[0], answers(qwen3)[0])
    finally:
        converted.engine.close()


def test_a_rank_model_has_the_scores_that_the_architecture_gives_them(bert: Model) -> None:
    query, documents, sequences = pairs(bert)
    ranked = bert.engine.rank(query, documents, Deadline())
    reference = np.array([bert_score(bert.weights, ids) for ids in sequences])
    assert ranked.stop == Stop.DONE
    assert np.abs(ranked.scores - reference).max() < BERT_TOLERANCE
    assert np.diff(np.sort(reference)).min() > 2 * BERT_TOLERANCE, "the test's own premise: scores differ"
    assert np.argsort(ranked.scores).tolist() == np.argsort(reference).tolist()


def mirrored(weights: Weights, name: str) -> Weights:
    array = weights[name]
    return {**weights, name: array[..., ::-1] if array.size > 1 else array + 0.5}


def test_the_tolerances_notice_a_mistake_in_any_tensor(qwen3: Model, bert: Model) -> None:
    """A reference that reads one tensor the wrong way round is far outside, whichever it is."""
    ids = qwen3.tokens(PROMPT, structure=True)[0]
    for name in qwen3.weights:
        away = np.abs(qwen3_logits(mirrored(qwen3.weights, name), ids) - qwen3_logits(qwen3.weights, ids))
        assert away.max() > 5 * QWEN3_TOLERANCE, name
    _, _, sequences = pairs(bert)
    for name in bert.weights:
        if name.endswith("attn_k.bias"):
            continue  # the same for all keys of a query: softmax does not see it
        away = [
            abs(bert_score(mirrored(bert.weights, name), ids) - bert_score(bert.weights, ids))
            for ids in sequences
        ]
        assert max(away) > 5 * BERT_TOLERANCE, name


def test_a_rank_score_has_the_same_bits_alone_and_beside_others(bert: Model) -> None:
    query, documents, _ = pairs(bert)
    together = bert.engine.rank(query, documents, Deadline()).scores
    backwards = bert.engine.rank(query, documents[::-1], Deadline()).scores[::-1]
    alone = [bert.engine.rank(query, [document], Deadline()).scores[0] for document in documents]
    assert np.array_equal(together, backwards)
    assert np.array_equal(together, alone)
    assert len(np.unique(together)) == len(documents), "the test's own premise: scores differ"


def test_ranking_stops_at_its_deadline_with_the_first_documents_scored(bert: Model) -> None:
    query, documents, _ = pairs(bert)
    many = documents * 2_000
    ranked = bert.engine.rank(query, many, Deadline.after_ms(500))
    assert ranked.stop == Stop.DEADLINE
    assert 0 < len(ranked.scores) < len(many)
    whole = np.tile(bert.engine.rank(query, documents, Deadline()).scores, 2_000)
    assert np.array_equal(ranked.scores, whole[: len(ranked.scores)])


def test_the_worker_itself_stops_in_time_without_being_told(bert: Model) -> None:
    """Spoken to directly: the service would cancel the rest, and so hide a worker that does not look."""
    process = spawn()
    assert process.stdin is not None
    assert process.stdout is not None
    documents = [[8] * 110] * 2_000
    replies = []
    try:
        frames.write(
            process.stdin.fileno(), frames.Open(str(bert.path), "ranker", 1, 1, 256, 0, "isolated", 0)
        )
        frames.write(process.stdin.fileno(), frames.Rank(1, [7], documents, budget_ms=100.0))
        while not replies or not isinstance(replies[-1], frames.Done | frames.Failed):
            body = frames.read(process.stdout.fileno())
            assert body is not None, "the worker died"
            replies.append(frames.response_decoder.decode(body))
    finally:
        process.kill()
        process.communicate()
    assert replies[-1] == frames.Done(1, Stop.DEADLINE)
    assert 2 < len(replies) < len(documents)


def test_nothing_to_rank_is_ranked_at_once(bert: Model) -> None:
    ranked = bert.engine.rank([1], [], Deadline())
    assert ranked.scores.shape == (0,)
    assert ranked.stop == Stop.DONE


@pytest.mark.parametrize("control", ["[CLS]", "[SEP]", "[MASK]", "[PAD]"])
def test_data_never_becomes_a_separator(bert: Model, control: str) -> None:
    (special,) = bert.tokens(control, structure=True)
    assert len(special) == 1, "the test's own premise: this string is one token as structure"
    (data,) = bert.tokens(f"before {control} after")
    assert special[0] not in data


@pytest.mark.parametrize("control", ["<|im_end|>", "<|im_start|>", "<think>", "</think>"])
def test_data_never_closes_the_turn_or_thinks(qwen3: Model, control: str) -> None:
    (special,) = qwen3.tokens(control, structure=True)
    assert len(special) == 1, "the test's own premise: this string is one token as structure"
    (data,) = qwen3.tokens(f"before {control} after")
    assert special[0] not in data


def test_an_overlong_pair_is_refused_and_the_longest_one_is_not(bert: Model) -> None:
    room = BERT_N_CTX - 3  # [CLS] and two [SEP]
    pid = bert.engine.pid
    with pytest.raises(InvalidArgument, match=rf"documents\[1\]: {room} tokens; .* room for {room - 1}"):
        bert.engine.rank([7], [[8], [8] * room], Deadline())
    longest = bert.engine.rank([7], [[8] * (room - 1)], Deadline())
    assert longest.scores[0] == pytest.approx(
        bert_score(bert.weights, [CLS, 7, SEP, *[8] * (room - 1), SEP]), abs=BERT_TOLERANCE
    )
    assert bert.engine.pid == pid


def problem(path: Path, role: Role) -> str:
    """Why a worker cannot load a file."""
    engine = WorkerEngine(EngineSpec(path, role))
    try:
        assert not engine.wait_settled(Deadline.after_ms(60_000))
        return engine.problem
    finally:
        engine.close()


HEAD = "cls.output.weight"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"leave_out": (HEAD, "cls.output.bias", "cls.weight", "cls.bias")}, f"no classifier ({HEAD})"),
        ({"leave_out": (HEAD, "cls.output.bias")}, f"no classifier ({HEAD})"),
        ({"put_in": {HEAD: np.full((1, N_EMBD), np.nan, np.float32)}}, "scores are not finite"),
        ({"put_in": {HEAD: np.ones((1, N_EMBD // 2), np.float32)}}, "llama.cpp cannot load it"),
        ({"labels": ("no", "maybe", "yes")}, "3 outputs, a ranker has one"),
    ],
)
def test_a_rank_model_without_a_good_classifier_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    write_bert(tmp_path / "bad.gguf", **changes)  # type: ignore[arg-type]
    found = problem(tmp_path / "bad.gguf", "ranker")
    assert found.startswith(str(tmp_path / "bad.gguf"))
    assert said in found


def test_a_model_in_the_wrong_role_is_told_the_right_one(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert.gguf")
    assert "model add --role ranker" in problem(tmp_path / "bert.gguf", "scorer")
    write_qwen3(tmp_path / "qwen3.gguf")
    assert "model add --role scorer" in problem(tmp_path / "qwen3.gguf", "ranker")
    write_qwen3(tmp_path / "converted.gguf", rank_head=True)
    assert "model add --role scorer" in problem(tmp_path / "converted.gguf", "ranker")
