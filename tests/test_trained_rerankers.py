"""Tier 2 with models trained to rerank: from a file of the user's own to an order."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.cli.wiring import open_device
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import EngineSpec, Role, Stop, WorkerEngine
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.models import pack as packs
from edge_reranker.prompt import TEMPLATES, item_pieces, plain
from edge_reranker.ranking.profile import Taste, profile
from edge_reranker.scoring import CrossScorer, Epochs, RankScorer, Scorer, TierScores, User
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Context, DegradedReason, Item, ModelState, Piece, RerankQuery
from tests.engine.reference import bert_score, qwen3_logits
from tests.engine.test_rerankers import BERT_SEED, BERT_TOLERANCE, QWEN3_TOLERANCE
from tests.engine.tiny_models import BERT_N_CTX, CLS, SEP, Weights, write_bert, write_qwen3
from tests.parts import films, liked, small_pack
from tests.service import Run

CANDIDATES = films(7, first=20)
QUERY = RerankQuery(CANDIDATES)
ORDER = [4, 0, 6, 2, 1, 3, 5]


@pytest.fixture
def bert(tmp_path: Path) -> Iterator[tuple[WorkerEngine, Weights]]:
    weights = write_bert(tmp_path / "bert.gguf", seed=BERT_SEED)
    engine = WorkerEngine(EngineSpec(tmp_path / "bert.gguf", "ranker"))
    assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
    yield engine, weights
    engine.close()


def user(*numbers: int) -> User:
    context = Context(tuple(liked(*numbers)))
    return User(Epochs().owner("a"), 1, context, profile(context, Taste()))


def scored(scorer: Scorer, query: RerankQuery = QUERY, *, deadline: Deadline | None = None) -> TierScores:
    (found,) = scorer.score(user(1, 2), query, ORDER[: len(query.candidates)], deadline or Deadline())
    return found


def test_a_rank_model_scores_each_candidate_as_the_architecture_does(
    bert: tuple[WorkerEngine, Weights],
) -> None:
    engine, weights = bert
    found = scored(RankScorer(engine))
    texts = [plain(user(1, 2).context, "", 12), *(item_pieces(each.item) for each in CANDIDATES)]
    query, *documents = engine.tokenize(texts, Deadline())
    wanted = [bert_score(weights, [CLS, *query, SEP, *ids, SEP]) for ids in documents]
    assert found.reached.all()
    assert not found.reason
    assert np.abs(found.scores - wanted).max() < BERT_TOLERANCE
    assert np.ptp(wanted) > 10 * BERT_TOLERANCE, "the test's own premise: scores differ"


def test_what_is_too_long_for_a_rank_model_keeps_the_newest_events_and_the_documents_beginning(
    bert: tuple[WorkerEngine, Weights],
) -> None:
    engine, weights = bert
    item = Item("long", "a title that goes on " * 7, text="and more of it " * 20)
    query = RerankQuery((Candidate(item),), "the newest words of all")
    (found,) = RankScorer(engine).score(user(*range(1, 13)), query, [0], Deadline())
    asked, document = engine.tokenize(
        [plain(user(*range(1, 13)).context, query.query, 12), item_pieces(item)], Deadline()
    )
    room = BERT_N_CTX - 3
    assert len(asked) > room, "the test's own premise: neither fits"
    assert len(document) > room
    half = room // 2
    wanted = bert_score(weights, [CLS, *asked[-(room - half) :], SEP, *document[:half], SEP])
    assert found.scores[0] == pytest.approx(wanted, abs=BERT_TOLERANCE)


def test_with_little_time_a_rank_model_reaches_the_best_so_far(tmp_path: Path) -> None:
    slow = FakeEngine(ms_per_sequence=50.0)
    found = scored(RankScorer(slow), deadline=Deadline.after_ms(175))
    n = int(found.reached.sum())
    assert 1 <= n < len(CANDIDATES)
    assert found.reached[ORDER[:n]].all()
    assert found.reason == DegradedReason.DEADLINE
    assert scored(RankScorer(FakeEngine(), top_k=3)).reached.nonzero()[0].tolist() == [0, 4, 6]


@pytest.mark.parametrize(
    ("stop", "reason"),
    [(Stop.BUSY, DegradedReason.MODEL_BUSY), (Stop.DIED, DegradedReason.MODEL_UNAVAILABLE)],
)
def test_a_rank_model_that_does_not_answer_scores_nothing_and_says_why(
    stop: Stop, reason: DegradedReason
) -> None:
    found = scored(RankScorer(FakeEngine(fail_with=stop)))
    assert not found.reached.any()
    assert found.reason == reason


def test_a_rank_model_whose_worker_cannot_start_scores_nothing_and_says_why(tmp_path: Path) -> None:
    write_bert(tmp_path / "bad.gguf", leave_out=("cls.output.weight", "cls.output.bias"))
    engine = WorkerEngine(EngineSpec(tmp_path / "bad.gguf", "ranker"))
    try:
        found = scored(RankScorer(engine), deadline=Deadline.after_ms(60_000))
        assert not found.reached.any()
        assert found.reason == DegradedReason.MODEL_UNAVAILABLE
    finally:
        engine.close()


@pytest.fixture
def qwen3(tmp_path: Path) -> Iterator[tuple[WorkerEngine, Weights]]:
    weights = write_qwen3(tmp_path / "qwen3.gguf")
    engine = WorkerEngine(EngineSpec(tmp_path / "qwen3.gguf", "scorer"))
    assert engine.wait_ready(Deadline.after_ms(60_000)), engine.problem
    yield engine, weights
    engine.close()


def test_an_overlong_candidate_loses_the_end_of_its_text_and_is_still_asked_about(
    qwen3: tuple[WorkerEngine, Weights],
) -> None:
    engine, weights = qwen3
    template = TEMPLATES["qwen3-reranker"]
    item = Item("long", "A title " * 12)
    (found,) = CrossScorer(engine, template).score(user(1), RerankQuery((Candidate(item),)), [0], Deadline())
    prefix, suffix, behind, (yes,), (no,) = engine.tokenize(
        [
            template.prefix(user(1).context, ""),
            template.suffix(item),
            [Piece(template.after_candidate, structure=True)],
            [Piece("yes")],
            [Piece("no")],
        ],
        Deadline(),
    )
    assert len(suffix) > 48, "the test's own premise: it is too long"
    logits = qwen3_logits(weights, [*prefix, *suffix[: 48 - len(behind)], *behind])
    assert found.scores[0] == pytest.approx(logits[yes] - logits[no], abs=2 * QWEN3_TOLERANCE)


def test_an_instruction_in_many_tokens_leaves_room_for_what_the_user_did(
    qwen3: tuple[WorkerEngine, Weights],
) -> None:
    template = TEMPLATES["qwen3-reranker"].with_instruction("ค้นหาภาพยนตร์ " * 17)
    found = scored(CrossScorer(qwen3[0], template))
    assert found.reached.all()
    (other,) = CrossScorer(qwen3[0], template).score(user(3), QUERY, ORDER, Deadline())
    assert not np.array_equal(found.scores, other.scores)


def test_qwen3s_score_is_the_logit_of_yes_less_that_of_no_after_its_whole_prompt(
    qwen3: tuple[WorkerEngine, Weights],
) -> None:
    engine, weights = qwen3
    template = TEMPLATES["qwen3-reranker"].with_instruction("Find what is funny")
    found = scored(CrossScorer(engine, template))
    prefix = template.prefix(user(1, 2).context, "")
    (yes,), (no,), *prompts = engine.tokenize(
        [
            [Piece("yes")],
            [Piece("no")],
            *([*prefix, *template.suffix(each.item)] for each in CANDIDATES),
        ],
        Deadline(),
    )
    wanted = [qwen3_logits(weights, ids) for ids in prompts]
    assert found.reached.all()
    away = found.scores - [logits[yes] - logits[no] for logits in wanted]
    assert np.abs(away).max() < 2 * QWEN3_TOLERANCE


def pack_with(folder: Path, **settings: object) -> Path:
    """A pack on disk whose tier 2 has weight."""
    pack = small_pack()
    scorer = dataclasses.replace(pack.manifest.scorer, weight=3.0, **settings)  # type: ignore[arg-type]
    packs.save(packs.make(dataclasses.replace(pack.manifest, scorer=scorer), pack.head), folder)
    return folder


def test_a_packs_instruction_is_what_its_scorer_is_asked(tmp_path: Path) -> None:
    """The fake engine's scores follow from the tokens: another prompt, other scores."""
    settings = {"template": "default", "instruction": "Find what is funny"}
    pack = packs.load(pack_with(tmp_path / "pack", **settings))
    engine = FakeEngine()
    with Store.open(tmp_path / "data", key_source="file") as store:
        tiers = make_tiers(pack, store, None, engine)
        assert tiers.tier2 is not None
        assert tiers.background is not None
        found = scored(tiers.tier2).scores
        tiers.background.close()
    template = TEMPLATES["default"]
    asked = scored(CrossScorer(engine, template.with_instruction("Find what is funny"))).scores
    assert np.array_equal(found, asked)
    assert not np.array_equal(found, scored(CrossScorer(engine, template)).scores)


@pytest.mark.parametrize(("role", "template"), [("ranker", "default"), ("scorer", "qwen3-reranker")])
def test_a_reranker_that_was_added_is_what_a_pack_that_names_it_reads_with(
    tmp_path: Path, run: Run, role: Role, template: str
) -> None:
    file = tmp_path / "mine.gguf"
    (write_bert if role == "ranker" else write_qwen3)(file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    cache = tmp_path / "cache"
    added = run("model", "add", str(file), "--role", role, "--sha256", sha256, EDGE_RERANKER_CACHE=str(cache))
    assert added.returncode == 0, added.stderr
    config = Config(
        data_dir=tmp_path / "data",
        socket=tmp_path / "socket",
        cache_dir=cache,
        model="smollm2-135m",  # which is not here: tier 2 serves without tier 1
        pack=str(pack_with(tmp_path / "pack", model="mine", template=template)),
        key_source="file",
    )
    device = open_device(config)
    try:
        device.settle(Deadline.after_ms(60_000))
        assert [(model.name, model.role, model.state) for model in device.pipeline.models()] == [
            ("mine", role, ModelState.READY)
        ]
        device.pipeline.record("a", liked(1, 2))
        ranking = device.pipeline.rerank("a", QUERY, Deadline.after_ms(60_000))
        assert {result.tier for result in ranking.results} == {2}
    finally:
        device.close()
