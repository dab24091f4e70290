"""What a forget leaves in memory when something is being read from the store at that moment."""

from __future__ import annotations

import gc
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TypeVar

import numpy as np
import pytest

from edge_reranker.cli.tiers import make_tiers
from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.pipeline import Pipeline
from edge_reranker.ranking.profile import profile
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Context, Event, EventType, Forgotten, RerankQuery, Selector
from tests.parts import N_DIMS, films, liked, small_pack

T = TypeVar("T")

LONG = Deadline()


class SlowStore(Store):
    """A store whose next answer about vectors or events is on its way for as long as a test likes."""

    hold = False

    def vectors(self, namespace: str, space: str, hashes: Sequence[str]) -> dict[str, bytes]:
        return self.slowly(super().vectors(namespace, space, hashes))

    def context(
        self, namespace: str, limit: int = 50, *, types: Collection[EventType] | None = None
    ) -> Context:
        return self.slowly(super().context(namespace, limit, types=types))

    def slowly(self, answer: T) -> T:
        if self.hold:
            self.read.set()
            self.go_on.wait(10)
        return answer

    def forget(self, namespace: str, selector: Selector, *, dry_run: bool = False) -> Forgotten:
        self.before_forget()
        return super().forget(namespace, selector, dry_run=dry_run)


def listed(n: int) -> tuple[Candidate, ...]:
    """Candidates with vectors of the backend's own, besides those that the device makes."""
    return tuple(c._replace(vector=(1.0, float(i)), vector_space="own") for i, c in enumerate(films(n)))


def after_forgetting_while_reading(folder: Path, *, late: bool, public: bool) -> int:
    """How many forgotten vectors a reader leaves that begins before a forget, or, ``late``, within it."""
    with SlowStore.open(folder, key_source="file") as store:
        assert isinstance(store, SlowStore)
        store.read, store.go_on = threading.Event(), threading.Event()
        tiers = make_tiers(small_pack(), store, FakeEngine(), None)
        assert tiers.vectors is not None
        assert tiers.public is not None
        whole = Pipeline(store, tiers)
        whole.rerank("a", RerankQuery(listed(9)), LONG)
        whole.record("a", liked(1, 2))
        whole.rerank("a", RerankQuery(listed(9)), LONG)
        whole.warmup(LONG)
        store.flush()
        for part in (tiers.vectors, tiers.public):
            part.forget("a")  # as after a restart: they are in the store only
        keyed = tiers.vectors.keyed([candidate.item for candidate in films(9)])
        picked = profile(store.context("a"), tiers.taste)

        def known() -> int:
            owner = tiers.epochs.owner("a")
            if public:
                return len(tiers.public.history(owner, frozenset({"own"}), picked)["own"])
            return len(tiers.vectors.known(owner, keyed))

        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(known()))

        def read() -> None:
            store.hold = True
            reader.start()
            assert store.read.wait(10)
            store.hold = False

        store.before_forget = read if late else lambda: None
        if not late:
            read()
        whole.forget("a", Selector(everything=True))
        store.go_on.set()
        reader.join(10)
        assert seen == [2 if public else 9], "they were there to be read"
        whole.close()
        return known()


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_vectors_that_are_read_while_they_are_forgotten_are_forgotten(
    tmp_path: Path, late: bool, public: bool
) -> None:
    assert after_forgetting_while_reading(tmp_path, late=late, public=public) == 0


def held(root: object, kind: type[T]) -> list[T]:
    """Everything of a kind that can be reached from ``root``: what is in memory because of it."""
    found, seen, following = [], {id(root)}, [root]
    while following:
        for each in gc.get_referents(following.pop()):
            if id(each) not in seen and not isinstance(each, (type, ModuleType, FunctionType)):
                seen.add(id(each))
                following.append(each)
                if isinstance(each, kind):
                    found.append(each)
    return found


def tastes(whole: Pipeline) -> list[np.ndarray]:
    """The vectors of users; items' are float16."""
    arrays = held(whole, np.ndarray)
    return [array for array in arrays if array.shape == (N_DIMS,) and array.dtype == np.float32]


def test_a_request_that_read_forgotten_events_leaves_neither_them_nor_their_taste(tmp_path: Path) -> None:
    with SlowStore.open(tmp_path, key_source="file") as store:
        assert isinstance(store, SlowStore)
        store.read, store.go_on, store.before_forget = threading.Event(), threading.Event(), lambda: None
        pack = small_pack(scorer_weight=3.0)
        whole = Pipeline(store, make_tiers(pack, store, FakeEngine(), FakeEngine()))
        before = len(tastes(whole))
        whole.record("a", liked(1, 2))
        whole.rerank("a", RerankQuery(films(9)), LONG)
        assert len(held(whole, Event)) == 2
        assert len(tastes(whole)) == before + 2, "of the whole history, and of its newest items"
        background = whole._current.value.tiers.background
        assert background is not None
        assert background.wait_idle(LONG), "else it would read the next event ahead of the request"
        store.record("a", liked(3))  # behind its back, so that nothing is read ahead of the request
        tiers: list[int] = []

        def request() -> None:
            ranking = whole.rerank("a", RerankQuery(films(9)), LONG)
            tiers.extend(result.tier for result in ranking.results)

        reader = threading.Thread(target=request)
        store.hold = True
        reader.start()
        assert store.read.wait(10)
        store.hold = False
        whole.forget("a", Selector(everything=True))
        store.go_on.set()
        reader.join(10)
        assert set(tiers) == {2}, "it was answered with what it had read"
        whole.warmup(LONG)
        assert held(whole, Event) == []
        assert len(tastes(whole)) == before
        whole.close()
