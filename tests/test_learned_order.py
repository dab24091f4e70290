"""What the user picks from our lists changes the next ones, and can be undone: real store, real pipeline."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np

from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.explained import ReasonsMissing
from edge_reranker.pipeline import Pipeline
from edge_reranker.ranking.learning.feedback import choice_of
from edge_reranker.ranking.learning.learned import Learned
from edge_reranker.ranking.learning.shown import Shown
from edge_reranker.types import (
    DegradedReason,
    Event,
    EventType,
    Ranking,
    RerankQuery,
    Retention,
    Selector,
    TypeRetention,
)
from tests.parts import film, films, liked, pipeline

LONG = Deadline()
N = 12


def rerank(whole: Pipeline, namespace: str = "a") -> Ranking:
    return whole.rerank(namespace, RerankQuery(films(N)), LONG)


def ids(ranking: Ranking) -> list[str]:
    return [result.id for result in ranking.results]


def feedback(whole: Pipeline, kind: EventType, wanted: int, rounds: int, namespace: str = "a") -> None:
    """The same item is picked from each list, or pushed away."""
    for number in range(rounds):
        ranking = rerank(whole, namespace)
        place = ids(ranking).index(f"f{wanted}")
        name = f"{kind.name}-{wanted}-{number}"
        at_s = 1e9 + 1_000 + number
        event = Event(name, kind, at_s, film(wanted), ranking_id=ranking.ranking_id, position=place)
        whole.record(namespace, [event])


def known(whole: Pipeline, namespace: str = "a") -> Learned:
    learned = whole._learning.now(whole._current.value.tiers, namespace)
    assert learned is not None
    return learned


def bits(learned: Learned) -> tuple[bytes, bytes, int]:
    return learned.without_model.mean.tobytes(), learned.without_model.covariance.tobytes(), learned.n_choices


def test_what_is_pushed_away_moves_the_weights_at_once(tmp_path: Path) -> None:
    """A DISLIKE of an item outside the history leaves the profile as it is: only learning says anything."""
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(*range(40, 120, 4)))
        before = rerank(whole)
        assert (ids(before)[0], known(whole).n_choices) == ("f0", 0)
        feedback(whole, EventType.DISLIKE, 0, 20)
        learned = known(whole)
        assert learned.n_choices == 20
        assert learned.without_model.mean[learned.without_model.names.index("tags")] < 1.95  # of 2.0
        ranking = rerank(whole)
        whole._store.flush()
        shown = Shown.decode(whole._store.detail("a", ranking.ranking_id) or b"")
        used = dict(zip(shown.names, shown.weights.tolist(), strict=True))
        means = learned.without_model.mean.tolist()
        assert {name: used[name] for name in learned.without_model.names} == dict(
            zip(learned.without_model.names, means, strict=True)
        )


def test_learning_in_steps_after_a_restart_and_anew_give_the_same_bits(tmp_path: Path) -> None:
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        whole.record("a", liked(0, 1))
        feedback(whole, EventType.CLICK, 7, 13)
        in_steps = bits(known(whole))
        whole._learning.forget("a")
        assert bits(known(whole)) == in_steps
        order = ids(rerank(whole))
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        assert bits(known(whole)) == in_steps
        assert ids(rerank(whole)) == order


def test_forgetting_an_event_takes_back_what_was_learned_since(tmp_path: Path) -> None:
    """Feedback on lists from before the event counts still; on those from after, no more."""
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(0))
        feedback(whole, EventType.SKIP, 5, 3)
        then = bits(known(whole))
        whole.record("a", liked(2))
        feedback(whole, EventType.CLICK, 9, 4)
        assert known(whole).n_choices == 7
        gone = whole.forget("a", Selector(event_id="e2"))
        assert gone.choices == 4
        # Of the clicks only the likes of the user remain; what they taught is gone.
        assert bits(known(whole)) == then


def test_forgetting_everything_leaves_the_packs_own_weights(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        prior = bits(known(whole))
        whole.record("a", liked(0))
        feedback(whole, EventType.SKIP, 5, 9)
        assert bits(known(whole)) != prior
        whole.forget("a", Selector(everything=True))
        assert bits(known(whole)) == prior


def test_a_sweep_takes_back_what_swept_feedback_taught(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        prior = bits(known(whole))
        whole.record("a", liked(0))
        feedback(whole, EventType.SKIP, 5, 9)
        kept = Retention(by_type=(TypeRetention(EventType.SKIP, max_events=2),))
        whole.set_retention("a", kept)
        while whole.retention("a").sweeping:
            time.sleep(0.01)
        assert known(whole).n_choices <= 2
        assert bits(known(whole)) != prior


def test_no_app_learns_from_anothers_feedback(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.create_namespace("b")
        for namespace in "ab":
            whole.record(namespace, liked(0))
        before = ids(rerank(whole, "b")), bits(known(whole, "b"))
        feedback(whole, EventType.SKIP, 4, 9)
        assert (ids(rerank(whole, "b")), bits(known(whole, "b"))) == before


def ours_loses(whole: Pipeline) -> None:
    """Choices whose columns do not tell why they were made: learning cannot mend it, only the gate can."""
    whole.record("a", liked(1))
    ranking = rerank(whole)
    assert ranking.degraded_reason is not DegradedReason.SERVER_PREFERRED
    whole._store.flush()
    shown = Shown.decode(whole._store.detail("a", ranking.ranking_id) or b"")
    lost = []
    for number in range(100):
        at = number % 6
        ours = np.roll(np.arange(N), -at - 1)  # what was chosen is last by ours
        blind = dataclasses.replace(shown, matrix=shown.matrix * 0 + number, ours=ours, order=ours)
        choice = choice_of(blind, f"f{at}", EventType.CLICK)
        assert choice is not None
        event = Event(f"c{number}", EventType.CLICK, 2e9, film(at), ranking_id=ranking.ranking_id)
        lost.append((event, choice.encode()))
    whole._store.record("a", [event for event, _ in lost], {e.event_id: body for e, body in lost})
    assert known(whole).gate.server_wins


def test_where_ours_keeps_losing_the_servers_order_is_served_and_says_so(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        ours_loses(whole)
        ranking = rerank(whole)
        assert ranking.degraded_reason is DegradedReason.SERVER_PREFERRED
        assert ids(ranking) == [f"f{at}" for at in range(N)]
        assert (ranking.pack, ranking.model) == ("", "")
        n = known(whole).n_choices
        feedback(whole, EventType.CLICK, 3, 2)
        assert known(whole).n_choices == n + 2, "learning goes on"


def test_where_the_servers_order_stands_no_tier_and_no_event_is_said_to_have_had_a_say(
    tmp_path: Path,
) -> None:
    """Also later, from what is stored of the list."""
    with pipeline(tmp_path, encoder=FakeEngine()) as whole:
        ours_loses(whole)
        ranking = rerank(whole)
        assert ranking.degraded_reason is DegradedReason.SERVER_PREFERRED
        assert {result.tier for result in ranking.results} == {0}
        for _ in range(2):
            found = whole.explain("a", ranking.ranking_id, (), LONG)
            assert found.missing is ReasonsMissing.NOT_SCORED
            assert [each.server_place for each in found.explanations] == list(range(N))
            for each in found.explanations:
                assert (each.score, each.score_place) == (0.0, None)
                assert (each.contributions, each.reasons) == ((), ())
            whole._store.flush()
            whole._explaining.recent.forget()


def test_feedback_on_a_list_that_nobody_knows_is_an_event_like_any_other(tmp_path: Path) -> None:
    with pipeline(tmp_path) as whole:
        whole.record("a", liked(0))
        event = Event("x", EventType.CLICK, 1e9 + 9, film(3), ranking_id="never-made", position=0)
        assert whole.record("a", [event]).recorded == 1
        assert known(whole).n_choices == 0


def test_what_was_read_before_a_sweep_and_learned_after_it_is_not_kept(tmp_path: Path) -> None:
    """No ranking goes by the events that are swept here, so nothing else says that they went."""
    with pipeline(tmp_path) as whole:
        store = whole._store

        class Sweeping:
            """The store, of which a sweep takes the choices that it has just handed out."""

            def __getattr__(self, name: str) -> object:
                return getattr(store, name)

            def choices(self, namespace: str, after_seq: int = 0) -> list[tuple[int, bytes]]:
                rows = store.choices(namespace, after_seq)
                kept = Retention(by_type=(TypeRetention(EventType.SKIP, max_events=2),))
                whole.set_retention(namespace, kept)
                while whole.retention(namespace).sweeping:
                    time.sleep(0.01)
                return rows

        whole.record("a", liked(0))
        feedback(whole, EventType.SKIP, 5, 9)
        whole._learning.forget("a")
        whole._learning._store = Sweeping()  # type: ignore[assignment]
        assert known(whole).n_choices == 9, "they were read before"
        whole._learning._store = store
        assert known(whole).n_choices <= 2


def test_choices_that_an_import_brings_to_known_events_are_learned(tmp_path: Path) -> None:
    with pipeline(tmp_path / "one") as whole:
        whole.record("a", liked(0))
        feedback(whole, EventType.SKIP, 5, 3)
        learned = bits(known(whole))
        records = [record for page in whole.export("a") for record in page]
    with pipeline(tmp_path / "other") as whole:
        # Without its list, an event teaches nothing.
        whole.record("a", [record for record in records if isinstance(record, Event)])
        assert known(whole).n_choices == 0
        taken = whole.importing("a")
        for line, record in enumerate(records, start=2):
            taken.add(line, record)
        assert taken.finish().recorded == 0
        taken.close()
        assert bits(known(whole)) == learned


def test_a_request_is_in_time_however_much_is_to_be_learned_first(tmp_path: Path) -> None:
    """As after a restart with thousands of choices; whoever waits long enough gets what they taught."""
    with pipeline(tmp_path) as whole:
        store, may_read = whole._store, threading.Event()
        timed_out = []

        class Slow:
            """The store, from which it takes long to read choices."""

            def __getattr__(self, name: str) -> object:
                return getattr(store, name)

            def choices(self, namespace: str, after_seq: int = 0) -> list[tuple[int, bytes]]:
                timed_out.append(not may_read.wait(10))
                return store.choices(namespace, after_seq)

        whole.record("a", liked(0))
        feedback(whole, EventType.SKIP, 5, 40)
        learned, order = bits(known(whole)), ids(rerank(whole))
        whole._learning.forget("a")
        whole._learning._store = Slow()  # type: ignore[assignment]
        ranking = whole.rerank("a", RerankQuery(films(N)), Deadline.after_ms(200))
        assert (ranking.degraded_reason, ranking.coverage) == (DegradedReason.DEADLINE, 0.0)
        assert ids(ranking) == [f"f{at}" for at in range(N)]
        may_read.set()
        assert ids(rerank(whole)) == order
        assert bits(known(whole)) == learned
        assert timed_out == [False], "it was learned once"
