"""A search: the query's vector against each candidate's, for somebody known and unknown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_reranker.deadline import Deadline
from edge_reranker.engine import Stop
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Pack
from edge_reranker.types import Candidate, DegradedReason, Item, Ranking, RerankQuery, Selector
from tests.parts import N_DIMS, film, films, liked, pipeline, prior, small_pack

# Nothing but the last one's text has anything to do with it, and no word of it is one of BM25's.
QUERY = "?!"
CANDIDATES = (*films(5), Candidate(Item("wanted", QUERY)))


def listening(**weights: float) -> Pack:
    """A pack with a content part and no learned one, whose fusion listens to these columns alone."""
    small = small_pack(n_learned=0)
    fusion = prior(server_rank=-1.0, **weights)
    return packs.make(dataclasses.replace(small.manifest, fusion=fusion, without_model=fusion), small.head)


def search(whole: object, query: str = QUERY, user: str = "default") -> Ranking:
    found: Ranking = whole.rerank(user, RerankQuery(CANDIDATES, query=query), Deadline.after_ms(60_000))  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("known", [True, False])
def test_what_reads_like_the_query_comes_first(tmp_path: Path, known: bool) -> None:
    with pipeline(tmp_path, encoder=FakeEngine(), pack=listening(query_content=5.0)) as whole:
        if known:
            whole.record("default", liked(30))
        found = search(whole)
    assert found.results[0].id == "wanted"
    assert (found.coverage, found.degraded_reason) == (1.0, DegradedReason.UNSPECIFIED)
    assert {result.tier for result in found.results} == {1}


def test_a_query_is_encoded_once(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pipeline(tmp_path, encoder=engine, pack=listening(query_content=5.0)) as whole:
        search(whole)
        n_first = engine.encoded
        assert n_first == len(CANDIDATES) + 1
        search(whole)
        assert engine.encoded == n_first
        search(whole, query="other")
        assert engine.encoded == n_first + 1


def test_a_forgotten_user_has_asked_nothing(tmp_path: Path) -> None:
    """The words are the user's own: they are in no file, and after a forget not in memory."""
    engine = FakeEngine()
    with pipeline(tmp_path, encoder=engine, pack=listening(query_content=5.0)) as whole:
        search(whole, user="one")
        search(whole, user="other")
        before = engine.encoded
        whole.forget("one", Selector(everything=True))
        search(whole, user="other")
        assert engine.encoded == before
        search(whole, user="one")
        assert engine.encoded == before + len(CANDIDATES) + 1


def test_without_an_encoder_words_decide_and_the_answer_says_so(tmp_path: Path) -> None:
    with pipeline(tmp_path, pack=listening(query_content=5.0)) as whole:
        whole.record("default", liked(30))
        found = search(whole)
    assert found.degraded_reason == DegradedReason.NO_MODEL
    assert [result.id for result in found.results] == [each.id for each in CANDIDATES]


def test_a_dead_worker_does_not_stop_a_search(tmp_path: Path) -> None:
    with pipeline(
        tmp_path, encoder=FakeEngine(fail_with=Stop.DIED), pack=listening(query_content=5.0)
    ) as whole:
        found = search(whole)
    assert len(found.results) == len(CANDIDATES)
    assert found.degraded_reason == DegradedReason.MODEL_UNAVAILABLE


def test_a_query_of_a_pack_without_a_content_part_costs_the_model_nothing(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pipeline(tmp_path, encoder=engine, pack=small_pack(n_learned=N_DIMS)) as whole:
        search(whole)
    assert engine.encoded == 0, "an unknown user's search has nothing for the towers to compare"


def test_a_request_without_a_query_is_as_it_was(tmp_path: Path) -> None:
    pack = listening(content=5.0)
    with pipeline(tmp_path, encoder=FakeEngine(), pack=pack) as whole:
        whole.record("default", liked(2))
        found = search(whole, query="")
    assert found.results[0].id == film(2).id, "the liked film is among the candidates, and most like itself"
