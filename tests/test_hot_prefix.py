"""The user's context in the model: decoded when an event arrives, kept over restarts, gone when forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.pipeline import Pipeline
from edge_reranker.store import Store
from edge_reranker.types import Event, EventType, Item, RerankQuery, Selector
from tests.parts import films, liked, small_pack


@contextlib.contextmanager
def service(folder: Path, engine: FakeEngine, fingerprint: str = "one") -> Iterator[Pipeline]:
    with Store.open(folder, key_source="file") as store:
        pack = small_pack(scorer_weight=3.0)
        tiers = make_tiers(pack, store, FakeEngine(), engine, model="fake", fingerprint=fingerprint)
        assert tiers.hot is not None
        tiers.hot.restore()
        whole = Pipeline(store, tiers)
        try:
            yield whole
        finally:
            whole.close()


def settle(pipeline: Pipeline) -> None:
    assert pipeline._current.value.tiers.background is not None
    assert pipeline._current.value.tiers.background.wait_idle(Deadline.after_ms(5_000))


def said(engine: FakeEngine) -> str:
    """What the engine has read; the fake one's tokens are bytes."""
    return bytes(engine.prefix).decode(errors="replace")


def liked_item(name: str) -> Event:
    return Event(name, EventType.LIKE, 2e9, Item(name, name))


def test_an_event_is_decoded_when_it_arrives_and_the_next_request_decodes_none_of_it(tmp_path: Path) -> None:
    engine = FakeEngine()
    with service(tmp_path, engine) as whole:
        whole.record("app", liked(1, 2))
        settle(whole)
        assert "Film 2" in said(engine)
        before = engine.decoded
        whole.rerank("app", RerankQuery(films(10)), Deadline())
        assert engine.decoded == before
        whole.record("app", [liked_item("New one")])
        settle(whole)
        assert engine.decoded == before + len("- liked New one\n") + 1  # and what closes the context


def test_a_list_that_is_seen_again_costs_the_model_nothing(tmp_path: Path) -> None:
    engine = FakeEngine()
    with service(tmp_path, engine) as whole:
        whole.record("app", liked(1, 2))
        first = whole.rerank("app", RerankQuery(films(10)), Deadline())
        scored = engine.scored
        assert scored == 10
        again = whole.rerank("app", RerankQuery(films(10)), Deadline())
        assert engine.scored == scored
        assert again.results == first.results
        whole.rerank("app", RerankQuery(films(12)), Deadline())
        assert engine.scored == scored + 2, "only what is new is read"
        whole.record("app", [liked_item("New one")])
        whole.rerank("app", RerankQuery(films(10)), Deadline())
        assert engine.scored == scored + 12, "another context, another score"


def test_the_context_is_there_after_a_restart(tmp_path: Path) -> None:
    with service(tmp_path, FakeEngine()) as whole:
        whole.record("app", [*liked(1, 2), *(liked_item(f"A longer title, number {n}") for n in range(30))])
        settle(whole)
    engine = FakeEngine()
    with service(tmp_path, engine) as whole:
        assert engine.restored == 1
        whole.rerank("app", RerankQuery(films(10)), Deadline())
        assert engine.decoded == 0


def test_a_state_of_another_model_is_made_anew(tmp_path: Path) -> None:
    with service(tmp_path, FakeEngine()) as whole:
        whole.record("app", liked(1, 2))
        settle(whole)
    engine = FakeEngine()
    with service(tmp_path, engine, fingerprint="another") as whole:
        assert engine.restored == 0
        whole.rerank("app", RerankQuery(films(10)), Deadline())
        assert engine.decoded > 0


@pytest.mark.parametrize(
    "selector", [Selector(event_id="Secret"), Selector(item_id="Secret"), Selector(everything=True)]
)
def test_what_is_forgotten_leaves_the_model_the_store_and_the_memory(
    tmp_path: Path, selector: Selector
) -> None:
    engine = FakeEngine()
    with service(tmp_path, engine) as whole:
        whole.record("app", [*liked(1), liked_item("Secret")])
        settle(whole)
        whole.rerank("app", RerankQuery(films(10)), Deadline())
        assert "Secret" in said(engine)
        whole._store.flush()
        assert whole._store.prefix_state() is not None
        whole.forget("app", selector)
        settle(whole)
        assert "Secret" not in said(engine)
        whole._store.flush()
        kept = whole._store.prefix_state()
        assert kept is None or b"Secret" not in kept.state
        scorer = whole._current.value.tiers.tier2
        assert scorer is not None
        assert not scorer._scores
        assert "Secret" not in repr(scorer._told)
    with Store.open(tmp_path, key_source="file") as store:
        state = store.prefix_state()
        assert state is None or b"Secret" not in state.state


def test_a_users_state_is_not_kept_for_another(tmp_path: Path) -> None:
    engine = FakeEngine()
    with service(tmp_path, engine) as whole:
        whole.record("one", [liked_item("Secret")])
        settle(whole)
        # The model reads for another user without an event of theirs: what is saved must not be theirs.
        whole.rerank("two", RerankQuery(films(3), query="film"), Deadline())
        whole.record("two", liked(1))
        settle(whole)
        whole.forget("one", Selector(everything=True))
        settle(whole)
    with Store.open(tmp_path, key_source="file") as store:
        state = store.prefix_state()
        assert state is None or b"Secret" not in state.state
