"""What a forget leaves in memory when something is being read from the store at that moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_reranker.cli.wiring import make_tiers
from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.pipeline import Pipeline
from edge_reranker.ranking.profile import profile
from edge_reranker.store import Store
from edge_reranker.types import Candidate, Forgotten, RerankQuery
from tests.parts import films, liked, small_pack

LONG = Deadline.after_ms(600_000)


class SlowStore(Store):
    """A store whose next answer about vectors is on its way for as long as a test likes."""

    hold = False

    def vectors(self, namespace: str, space: str, hashes: Sequence[str]) -> dict[str, bytes]:
        found = super().vectors(namespace, space, hashes)
        if self.hold:
            self.read.set()
            self.go_on.wait(10)
        return found

    def forget(
        self, namespace: str, *, event_id: str = "", item_id: str = "", everything: bool = False
    ) -> Forgotten:
        self.before_forget()
        return super().forget(namespace, event_id=event_id, item_id=item_id, everything=everything)


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
        whole.forget("a", everything=True)
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
