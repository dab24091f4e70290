"""Why: what an event did is the difference to a service that never saw it, and nothing of it is kept."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reranker.cli.packs import DEFAULT_PACK
from edge_reranker.cli.tiers import make_tiers
from edge_reranker.cli.wiring import encoder_engine
from edge_reranker.config import Config
from edge_reranker.deadline import Deadline
from edge_reranker.engine import Engine
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.errors import InvalidArgument, NotFound
from edge_reranker.explained import Explained, ReasonsMissing
from edge_reranker.models import Pack, load_pack
from edge_reranker.pipeline import Pipeline
from edge_reranker.pipeline.explaining import Answered, Recent
from edge_reranker.ranking.learning.shown import Shown
from edge_reranker.store import Store
from edge_reranker.types import (
    Candidate,
    DegradedReason,
    Event,
    EventType,
    Item,
    Ranking,
    RerankQuery,
    Selector,
)
from tests.parts import film, films, liked, pipeline, small_pack
from tests.test_forget_equal import _NOW_S, _events, _history, _list

LONG = Deadline()


@contextlib.contextmanager
def service(folder: Path, pack: Pack, encoder: Engine | None) -> Iterator[Pipeline]:
    with Store.open(folder, key_source="file") as store:
        whole = Pipeline(store, make_tiers(pack, store, encoder, None), clock=lambda: _NOW_S)
        try:
            yield whole
        finally:
            whole.close()
            if encoder is not None:
                encoder.close()


def explained(whole: Pipeline, namespace: str, query: RerankQuery) -> Explained:
    ranking = whole.rerank(namespace, query, LONG)
    return whole.explain(namespace, ranking.ranking_id, (), LONG)


def compare(folder: Path, pack: Pack, encoder: Engine | None, seeds: range) -> int:
    """How many changes were as in a service that never saw the event; any that was not fails."""
    n = 0
    with service(folder, pack, encoder) as whole:
        for seed in seeds:
            draw = random.Random(seed)
            steps, query = _history(draw), _list(draw)
            events = _events(steps)
            for left in (None, *events):
                name = f"s{seed}" if left is None else f"s{seed}-{left.event_id}"
                for step in steps:
                    if isinstance(step, RerankQuery):
                        whole.rerank(name, step, LONG)
                    elif left is None or left.event_id != step[0].event_id:
                        whole.record(name, step)
            found = explained(whole, f"s{seed}", query)
            assert found.missing is ReasonsMissing.UNSPECIFIED
            assert not found.reading_held
            for left in events:
                never = explained(whole, f"s{seed}-{left.event_id}", query)
                n += _same(found, never, left, len(events))
    return n


def _same(found: Explained, never: Explained, left: Event, n_events: int) -> int:
    without = {each.id: each for each in never.explanations}
    n = 0
    for each in found.explanations:
        changes = {reason.event_id: reason for reason in each.reasons}
        reason = changes.get(left.event_id)
        if reason is None and len(each.reasons) == 5 and n_events > 5:
            continue  # it was not among the largest
        other = without[each.id]
        if never.missing is ReasonsMissing.NOT_SCORED:
            assert never.degraded_reason is DegradedReason.NO_HISTORY
            place = other.place
        else:
            place = other.score_place
            change = 0.0 if reason is None else reason.score_change
            assert each.score - change == pytest.approx(other.score, abs=1e-9)
        assert each.score_place is not None
        assert place is not None
        if reason is not None:
            assert reason.place_change == place - each.score_place
            n += 1
    return n


def test_an_event_did_what_a_service_that_never_saw_it_lacks(tmp_path: Path) -> None:
    assert compare(tmp_path, small_pack(n_learned=4), FakeEngine(), range(4)) > 100


def test_so_it_is_without_a_model(tmp_path: Path) -> None:
    assert compare(tmp_path, small_pack(), None, range(4, 7)) > 50


@pytest.mark.model
def test_so_it_is_with_the_real_encoder(tmp_path: Path, cache_dir: Path, minilm_path: Path) -> None:
    pack = load_pack(Path(__file__).parents[1] / "packs" / DEFAULT_PACK)
    config = Config(tmp_path, tmp_path / "socket", cache_dir, pack.manifest.encoder.model, n_threads=1)
    assert compare(tmp_path, pack, encoder_engine(config, pack.manifest.encoder), range(1)) > 20
    with service(tmp_path / "long", pack, encoder_engine(config, pack.manifest.encoder)) as whole:
        _compare_long(whole)


def test_the_51st_event_comes_in_for_one_that_is_left_out(tmp_path: Path) -> None:
    with service(tmp_path, small_pack(n_learned=4), FakeEngine()) as whole:
        _compare_long(whole)


def _compare_long(whole: Pipeline) -> None:
    """Of 52 likes 50 count; the newest films are the ones in the list."""
    events = liked(*range(52), at_s=_NOW_S - 1_000)
    query = RerankQuery(films(20, first=42))
    whole.record("all", events)
    found = explained(whole, "all", query)
    named = {reason.event_id for each in found.explanations for reason in each.reasons}
    assert named
    for event in [each for each in events if each.event_id in named][-2:]:
        name = f"without-{event.event_id}"
        whole.record(name, [each for each in events if each is not event])
        assert _same(found, explained(whole, name, query), event, len(events)) > 0
    assert whole.profile("all").n_events == 50


def test_so_it_is_where_another_namespaces_events_count_too(tmp_path: Path) -> None:
    own, lent = liked(3, 9, at_s=_NOW_S - 90_000), liked(5, 10, at_s=_NOW_S - 50_000)
    query = RerankQuery(films(12))
    with service(tmp_path, small_pack(n_learned=4), FakeEngine()) as whole:
        found: dict[str, Explained] = {}
        for left in (None, *own, *lent):
            reader, source = (f"{kind}-{left.event_id if left else 'all'}" for kind in ("reader", "source"))
            for name, events in ((reader, own), (source, lent)):
                whole.create_namespace(name)
                whole.record(name, [each for each in events if each is not left])
            whole.grant(source, reader)
            found[left.event_id if left else ""] = explained(whole, reader, query)
    named = {
        (reason.namespace, reason.event_id) for each in found[""].explanations for reason in each.reasons
    }
    assert named == {("reader-all", "e3"), ("reader-all", "e9"), ("source-all", "e5"), ("source-all", "e10")}
    for event in (*own, *lent):
        assert _same(found[""], found[event.event_id], event, 4) > 0


def test_a_dislike_is_told_of_by_what_it_took_back(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.record("a", [*liked(1, 2), Event("no", EventType.DISLIKE, 2e9, film(1))])
        found = explained(whole, "a", RerankQuery(films(8)))
        comedy = next(each for each in found.explanations if each.topics == ("Comedy",))
        (reason,) = [each for each in comedy.reasons if each.event_id == "no"]
        assert reason.score_change < 0
        assert reason.text.startswith("although you disliked Film 1 on ")
        assert not {each.event_id for each in comedy.reasons} & {"e1"}


def test_all_of_a_list_is_explained_in_its_order_or_just_who_is_asked_for(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(3))
        ranking = whole.rerank("a", RerankQuery(films(10)), LONG)
        found = whole.explain("a", ranking.ranking_id, (), LONG).explanations
        assert [(each.id, each.tier) for each in found] == list(ranking.results)
        assert [each.place for each in found] == list(range(10))
        assert [f"f{each.server_place}" for each in found] == [each.id for each in found]
        assert all(each.topics == film(int(each.id[1:])).tags for each in found)
        some = whole.explain("a", ranking.ranking_id, ("f7", "f2", "f7"), LONG).explanations
        assert [each.id for each in some] == ["f7", "f2"]
        assert all(each in found for each in some)
        with pytest.raises(InvalidArgument, match=r"^ids\[1\]: 'f10' is not the id of a candidate"):
            whole.explain("a", ranking.ranking_id, ("f7", "f10"), LONG)
        with pytest.raises(NotFound, match=r"there is no ranking 'none': .* rerank again"):
            whole.explain("a", "none", (), LONG)
        with pytest.raises(NotFound):
            whole.explain("b", ranking.ranking_id, (), LONG)


def test_after_a_restart_the_scores_are_the_same_and_it_is_said_that_events_are_missing(
    tmp_path: Path,
) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(3))
        ranking = whole.rerank("a", RerankQuery(films(10)), LONG)
        before = whole.explain("a", ranking.ranking_id, (), LONG)
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        after = whole.explain("a", ranking.ranking_id, (), LONG)
    assert after.missing is ReasonsMissing.NOT_KEPT
    assert after.features == before.features
    for one, two in zip(before.explanations, after.explanations, strict=True):
        assert (one.score, one.contributions) == (two.score, two.contributions)
        assert (one.place, one.server_place, one.score_place) == (
            two.place,
            two.server_place,
            two.score_place,
        )
        assert one.reasons
        assert not two.reasons
        assert two.topics == ()


def test_what_is_logged_of_a_list_has_nothing_of_what_it_says(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(3))
        said = Item("i", "UNHEARD TITLE", "UNHEARD TEXT", ("UNHEARD TAG",), {"UNHEARD": "UNHEARD"})
        ranking = whole.rerank("a", RerankQuery((Candidate(said), *films(9)), "UNHEARD"), LONG)
        whole._store.flush()
        detail = whole._store.detail("a", ranking.ranking_id)
    assert detail
    assert b"server_rank" in zlib.decompress(detail)
    assert b"UNHEARD" not in zlib.decompress(detail)


def test_a_forget_takes_what_was_kept_with_it(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(3, 4))
        whole.record("b", liked(3, 4))
        mine, theirs = (whole.rerank(each, RerankQuery(films(10)), LONG).ranking_id for each in "ab")
        whole.forget("a", Selector(event_id="e3"))
        with pytest.raises(NotFound):
            whole.explain("a", mine, (), LONG)
        assert whole.explain("b", theirs, (), LONG).missing is ReasonsMissing.UNSPECIFIED
        again = explained(whole, "a", RerankQuery(films(10)))
        named = {reason.event_id for each in again.explanations for reason in each.reasons}
        assert named == {"e4"}


def test_a_revoked_grant_takes_with_it_what_was_kept_of_the_readers_lists(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        for name in ("shop", "news"):
            whole.create_namespace(name)
        whole.record("shop", liked(3))
        whole.grant("shop", "news")
        found = explained(whole, "news", RerankQuery(films(10)))
        assert {reason.namespace for each in found.explanations for reason in each.reasons} == {"shop"}
        assert whole.profile("news").beliefs[0].events[0].namespace == "shop"
        ranking_id = whole.rerank("news", RerankQuery(films(10)), LONG).ranking_id
        whole.revoke("shop", "news")
        with pytest.raises(NotFound):
            whole.explain("news", ranking_id, (), LONG)
        assert whole.profile("news").beliefs == ()


def test_where_the_servers_order_stands_it_is_said_that_no_event_had_a_say(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        found = explained(whole, "a", RerankQuery(films(3)))
    assert found.missing is ReasonsMissing.NOT_SCORED
    assert found.degraded_reason is DegradedReason.NO_HISTORY
    assert [(each.place, each.server_place, each.score_place) for each in found.explanations] == [
        (at, at, None) for at in range(3)
    ]
    assert not any(each.contributions or each.reasons for each in found.explanations)


def test_without_time_there_are_contributions_and_it_is_said_that_events_are_missing(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(3))
        ranking = whole.rerank("a", RerankQuery(films(10)), LONG)
        found = whole.explain("a", ranking.ranking_id, (), Deadline.after_ms(0))
    assert found.missing is ReasonsMissing.DEADLINE
    assert all(each.contributions and not each.reasons for each in found.explanations)


def test_what_the_models_reading_added_is_held_and_it_is_said(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine(), scorer=FakeEngine()) as whole:
        whole.record("a", liked(3, 4))
        found = explained(whole, "a", RerankQuery(films(10)))
    assert found.reading_held
    assert any(part.feature == "scorer" for each in found.explanations for part in each.contributions)
    assert not any(reason.feature == "scorer" for each in found.explanations for reason in each.reasons)


def test_a_muted_topic_shows_in_the_profile_until_it_is_let_back_in(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(1, 2))
        assert whole.mute("a", "COMEDY") == ("comedy",)
        found = whole.profile("a")
        assert {each.topic: each.muted for each in found.beliefs} == {"comedy": True, "drama": False}
        assert found.muted_topics == ("comedy",)
        assert whole.profile("b").muted_topics == ()
        assert whole.unmute("a", "comedy") == ()
        assert not any(each.muted for each in whole.profile("a").beliefs)


def test_what_an_explanation_names_is_taken_out_of_the_next_list_in_one_step(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(3, 4))
        query = RerankQuery(films(8))
        first = explained(whole, "a", query).explanations[0]
        whole.mute("a", first.topics[0])
        ranking = whole.rerank("a", query, LONG)
        gone = {each.id for each in query.candidates if first.topics[0] in each.item.tags}
        assert set(ranking.blocked_ids) == gone
        assert not gone & {result.id for result in ranking.results}
        told = whole.explain("a", ranking.ranking_id, (), LONG).explanations
        assert [each.id for each in told if each.place is not None] == [each.id for each in ranking.results]
        assert {each.id for each in told if each.place is None} == gone
        assert all(each.score_place is not None and each.contributions for each in told)
        whole._store.flush()
        detail = whole._store.detail("a", ranking.ranking_id)
        assert detail is not None
        shown = Shown.decode(detail)
        assert [shown.ids[at] for at in shown.order] == [result.id for result in ranking.results]
        assert len(shown.ours) == len(query.candidates)

        whole.unmute("a", first.topics[0])
        whole.forget("a", Selector(event_id=first.reasons[0].event_id))
        again = explained(whole, "a", query)
        named = {reason.event_id for each in again.explanations for reason in each.reasons}
        assert named == {"e3", "e4"} - {first.reasons[0].event_id}


def answered(name: str, n: int = 1, text: str = "") -> Answered:
    candidates = tuple(Candidate(Item(str(at), text=text)) for at in range(n))
    return Answered(RerankQuery(candidates), Ranking(name, (), 1.0))


def kept(recent: Recent, namespace: str, names: list[str]) -> list[str]:
    return [name for name in names if recent.get(namespace, name) is not None]


def test_what_is_kept_counts_the_history_and_is_dropped_with_it(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        for n, text in enumerate(("", "x" * 4_000)):
            whole.record(
                "a", [Event(f"e{n}-{at}", EventType.LIKE, 1e9, Item(f"i{at}", text=text)) for at in range(50)]
            )
            whole.rerank("a", RerankQuery(films(2)), LONG)
        recent = whole._explaining.recent
        (first, one), (second, two) = recent._kept["a"].values()
        assert second - first > 50 * 4_000 > first
        assert one.size_bytes == two.size_bytes
        assert recent._sizes["a"] == first + second
        whole.forget("a", Selector(event_id="e0-0"))
        assert (recent._kept, recent._sizes, recent._users) == ({}, {}, {})


def test_the_newest_requests_are_kept_in_number_and_in_bytes() -> None:
    recent = Recent(max_rankings=3, max_bytes=120_000)
    names = [f"r{n}" for n in range(5)]
    for name in names:
        recent.put("a", answered(name))
    assert kept(recent, "a", names) == names[2:]
    recent.put("b", answered("small"))
    for name in names:
        recent.put("b", answered(name, text="x" * 40_000))
    assert kept(recent, "b", ["small", *names]) == names[3:]
    assert kept(recent, "a", names) == names[2:], "who takes up least gave way"
    recent.put("b", answered("large", n=200))
    assert kept(recent, "b", ["large"]) == []
    recent.forget("b")
    assert kept(recent, "b", names) == []
    assert kept(recent, "a", names) == names[2:]
    recent.forget()
    assert kept(recent, "a", names) == []
