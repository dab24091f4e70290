"""The model is swapped under a running pipeline: real store and tiers, fake engines."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.errors import FailedPrecondition, ModelInvalid, Overloaded, Stopping
from edge_reranker.explained import ReasonsMissing
from edge_reranker.models.pack import AdapterFile, Pack
from edge_reranker.pipeline import Pipeline
from edge_reranker.scoring import Serving, Tiers
from edge_reranker.store import Store
from edge_reranker.types import DegradedReason, Model, ModelState, RerankQuery, Selector
from tests.parts import films, liked, small_pack

LONG = Deadline()


class Engine(FakeEngine):
    """A fake engine that knows whether it was closed, and is of no use then."""

    closed = False

    def close(self) -> None:
        from edge_reranker.engine import Stop

        self.closed, self.fail_with = True, Stop.DIED


class Shop:
    """Pipelines with an engine, and a way to load more: one for each name that is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engines = [Engine(ms_per_sequence=2.0)]
        self.before: Callable[[], None] = lambda: None
        self.model = Model("fake", "0" * 64, 1, "encoder", ModelState.AVAILABLE, "none")

    @contextlib.contextmanager
    def open(self) -> Iterator[Pipeline]:
        with Store.open(self.folder, key_source="file") as store:

            def load(name: str, before: Tiers, deadline: Deadline) -> Serving:
                self.before()
                engine = Engine(ms_per_sequence=2.0)
                self.engines.append(engine)
                tiers = make_tiers(small_pack(), store, engine, None, model=name, before=before)
                return Serving(tiers, ((dataclasses.replace(self.model, name=name), engine),))

            tiers = make_tiers(small_pack(), store, self.engines[0], None, model="fake")
            pipeline = Pipeline(store, tiers, models=[(self.model, self.engines[0])], load=load)
            try:
                yield pipeline
            finally:
                pipeline.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def query(n: int, first: int = 100) -> RerankQuery:
    return RerankQuery(films(n, first))


def test_a_request_under_way_ends_on_the_model_it_began_with_and_the_next_has_the_new_one(
    shop: Shop,
) -> None:
    with shop.open() as pipeline:
        pipeline.record("a", liked(1, 2))
        answers = pipeline.rerank_stream("a", query(60), LONG)
        next(answers)
        swap = threading.Thread(target=pipeline.load_model, args=("second", LONG))
        swap.start()
        while len(shop.engines) < 2 or pipeline.rerank("a", query(1), LONG).model != "second":
            time.sleep(0.01)
        old, new = shop.engines
        assert not old.closed, "somebody still uses it"
        *_, last = answers
        swap.join(5)
        assert not swap.is_alive()
        assert (last.model, last.coverage, last.degraded_reason) == ("fake", 1.0, DegradedReason.UNSPECIFIED)
        assert (old.closed, new.closed) == (True, False)
        assert new.encoded, "the test's own premise: the new one has had work"
    assert new.closed, "the pipeline closes the engine in use"


def test_what_is_kept_of_a_request_that_ended_after_the_swap_holds_on_to_no_closed_model(shop: Shop) -> None:
    """Or a forget would leave what the tiers before had in memory: nobody tells those any more."""
    with shop.open() as pipeline:
        pipeline.record("a", liked(1, 2))
        answers = pipeline.rerank_stream("a", query(60), LONG)
        next(answers)
        swap = threading.Thread(target=pipeline.load_model, args=("second", LONG))
        swap.start()
        while len(shop.engines) < 2 or pipeline.rerank("a", query(1), LONG).model != "second":
            time.sleep(0.01)
        *_, last = answers
        swap.join(5)
        assert not swap.is_alive()
        assert pipeline._explaining.recent.get("a", last.ranking_id) is None
        assert pipeline.explain("a", last.ranking_id, (), LONG).missing is ReasonsMissing.NOT_KEPT


def test_a_stream_whose_reader_left_keeps_no_model(shop: Shop) -> None:
    with shop.open() as pipeline:
        pipeline.record("a", liked(1))
        answers = pipeline.rerank_stream("a", query(60), LONG)
        next(answers)
        answers.close()
        pipeline.load_model("second", LONG)
        assert shop.engines[0].closed


def test_after_a_swap_a_list_is_explained_by_what_is_stored_of_it(shop: Shop) -> None:
    with shop.open() as pipeline:
        pipeline.record("a", liked(1, 2))
        ranking_id = pipeline.rerank("a", query(5), LONG).ranking_id
        before = pipeline.explain("a", ranking_id, (), LONG)
        assert before.missing is ReasonsMissing.UNSPECIFIED
        pipeline.load_model("second", LONG)
        after = pipeline.explain("a", ranking_id, (), LONG)
        assert after.missing is ReasonsMissing.NOT_KEPT
        scores = [[(each.id, each.score) for each in found.explanations] for found in (before, after)]
        assert scores[0] == scores[1]


def test_the_loaded_model_is_told_and_is_ready(shop: Shop) -> None:
    with shop.open() as pipeline:
        wanted = dataclasses.replace(shop.model, name="second", state=ModelState.READY)
        assert pipeline.load_model("second", LONG) == wanted
        assert list(pipeline.models()) == [wanted]
        assert pipeline.warmup(LONG)


def test_a_loading_that_fails_leaves_the_model_in_use(shop: Shop) -> None:
    def fail() -> None:
        raise ModelInvalid("it failed")

    with shop.open() as pipeline:
        shop.before = fail
        for _ in range(2):
            with pytest.raises(ModelInvalid, match="it failed"):
                pipeline.load_model("second", LONG)
        pipeline.record("a", liked(1))
        assert pipeline.rerank("a", query(3), LONG).model == "fake"
        assert not shop.engines[0].closed


def test_a_second_loading_meanwhile_is_refused(shop: Shop) -> None:
    started, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        go_on.wait(10)

    with shop.open() as pipeline:
        shop.before = wait
        first = threading.Thread(target=pipeline.load_model, args=("second", LONG))
        first.start()
        assert started.wait(5)
        start = time.monotonic()
        with pytest.raises(Overloaded, match="another model is being loaded"):
            pipeline.load_model("third", LONG)
        assert time.monotonic() - start < 1, "at once"
        go_on.set()
        first.join(5)
        assert pipeline.load_model("third", LONG).name == "third"


def test_a_model_that_was_loaded_while_the_service_stopped_is_closed(shop: Shop) -> None:
    with shop.open() as pipeline:
        shop.before = pipeline.close
        with pytest.raises(Stopping):
            pipeline.load_model("second", LONG)
        assert [engine.closed for engine in shop.engines] == [True, True]


def test_what_waits_to_be_encoded_is_encoded_by_the_new_model(shop: Shop) -> None:
    with shop.open() as pipeline:
        pipeline.record("a", liked(1))
        pipeline.rerank("a", query(200), Deadline.after_ms(30))
        pipeline.load_model("second", LONG)
        assert pipeline.warmup(Deadline.after_ms(10_000))
        answer = pipeline.rerank("a", query(200), Deadline.after_ms(300))
        assert answer.coverage == 1.0
        assert shop.engines[1].encoded > 100


def test_a_request_that_began_before_swap_and_forget_stores_nothing(shop: Shop) -> None:
    with shop.open() as pipeline:
        pipeline.record("a", liked(1))
        answers = pipeline.rerank_stream("a", query(40), LONG)
        next(answers)
        swap = threading.Thread(target=pipeline.load_model, args=("second", LONG))
        swap.start()
        while pipeline._current.value.tiers.model != "second":
            time.sleep(0.01)
        pipeline.forget("a", Selector(everything=True))
        list(answers)
        swap.join(5)
        assert pipeline.forget("a", Selector(everything=True)).rankings == 0
        assert pipeline.forget("a", Selector(everything=True)).vectors == 0


def test_without_a_way_to_load_it_says_so(tmp_path: Path) -> None:
    with Store.open(tmp_path, key_source="file") as store:
        pipeline = Pipeline(store, Tiers())
        with pytest.raises(FailedPrecondition, match="without a way to load"):
            pipeline.load_model("x", LONG)


def test_a_packs_adapters_are_in_effect_whenever_its_model_runs(tmp_path: Path) -> None:
    """The fake engine's numbers follow from tokens and adapter: each adapter changes its role's order."""
    plain = small_pack(scorer_weight=3.0)
    orders = set()
    for which in ("", "encoder", "scorer"):
        section = getattr(plain.manifest, which or "encoder")
        adapted = dataclasses.replace(section, adapter=AdapterFile("a.gguf", "", 2.0) if which else None)
        manifest = dataclasses.replace(plain.manifest, **{which or "encoder": adapted})
        pack = Pack(manifest, plain.head, tmp_path)
        with Store.open(tmp_path / (which or "none"), key_source="file") as store:
            pipeline = Pipeline(store, make_tiers(pack, store, FakeEngine(), FakeEngine()))
            pipeline.record("a", liked(1, 2))
            ranking = pipeline.rerank("a", query(30), LONG)
            assert ranking.degraded_reason == DegradedReason.UNSPECIFIED
            orders.add(tuple(result.id for result in ranking.results))
            pipeline.close()
    assert len(orders) == 3
