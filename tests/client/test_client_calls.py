"""What each method of the client sends and gives back."""

from __future__ import annotations

import datetime
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import edge_reranker_client
from edge_reranker import errors
from edge_reranker.deadline import Deadline
from edge_reranker.types import Candidate as CoreCandidate
from edge_reranker.types import DiversityMethod, Effort, EventType
from edge_reranker.types import Item as CoreItem
from edge_reranker.types import Neighbour as CoreNeighbour
from edge_reranker.types import Pin as CorePin
from edge_reranker.v1 import types_pb2
from edge_reranker.v1.rerank_service_pb2 import DEGRADED_REASON_DEADLINE, RerankRequest, RerankResponse
from edge_reranker_client import (
    Candidate,
    Cap,
    EdgeReranker,
    Event,
    Forgotten,
    InvalidArgument,
    Item,
    Model,
    Neighbour,
    NotFound,
    Pin,
    Policy,
    Recorded,
    Result,
    messages,
)
from edge_reranker_client.messages import CandidateLike
from tests.server.fake_core import FakeCore
from tests.server.fixtures import Running, running

WHEN = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=datetime.UTC)


def test_rerank_gives_a_typed_order(app: EdgeReranker) -> None:
    ranking = app.rerank([Candidate("x", title="Zulu"), Candidate("y", title="Alien")])
    assert ranking.ids == ("y", "x")
    assert ranking.results[0] == Result("y", 1)
    assert (ranking.ranking_id, ranking.coverage, ranking.final) == ("ranking-1", 1.0, True)
    assert (ranking.degraded_reason, ranking.model, ranking.pack) == ("", "tiny", "test-pack")


def test_candidate_is_a_record_a_mapping_or_a_message(app: EdgeReranker) -> None:
    mixed: list[CandidateLike] = [Candidate("a"), {"id": "b", "tags": ["War"]}, types_pb2.Candidate(id="c")]
    assert app.rerank(mixed).ids == ("a", "b", "c")


def test_every_field_of_a_request_arrives(served: Running, app: EdgeReranker) -> None:
    full = Candidate(
        "a",
        title="t",
        text="x",
        tags=["War"],
        attributes={"year": "1973"},
        server_score=-1.5,
        published_at=WHEN,
        features={"ctr": 0.5},
        neighbours=[Neighbour("n", 2.0)],
        vector=[0.5, -0.25],
        vector_space="own",
    )
    app.rerank(
        [full, {"id": "b", "neighbours": [{"id": "m", "weight": 1.0}], "published_at": 86_400.0}],
        query="q",
        surface="home",
        session_id="s",
        top_n=1,
        policy=Policy(
            0.5,
            0.25,
            1.0,
            blocked_tags=["Horror"],
            pins=[Pin("b", 0)],
            diversity_method="dpp",
            caps=[Cap(2, attribute="source"), {"most": 1, "window": 5, "max_age_days": 2.0}],
        ),
        context={"network": "wifi"},
    )
    (seen,) = served.core.seen
    first, second = seen.candidates
    assert first == CoreCandidate(
        CoreItem("a", "t", "x", ("War",), {"year": "1973"}),
        -1.5,
        WHEN.timestamp(),
        {"ctr": 0.5},
        (CoreNeighbour("n", 2.0),),
        (0.5, -0.25),
        "own",
    )
    assert (second.neighbours, second.published_at) == ((CoreNeighbour("m", 1.0),), 86_400.0)
    assert (seen.query, seen.surface, seen.session_id, seen.top_n) == ("q", "home", "s", 1)
    assert seen.context == {"network": "wifi"}
    policy = seen.policy
    assert (policy.diversity, policy.calibration, policy.exploration) == (0.5, 0.25, 1.0)
    assert (policy.blocked_tags, policy.pins) == (("Horror",), (CorePin("b", 0),))
    assert policy.diversity_method is DiversityMethod.DPP
    of_source, of_age = policy.caps
    assert (of_source.attribute, of_source.most, of_source.window) == ("source", 2, 20)
    assert (of_age.max_age_days, of_age.most, of_age.window) == (2.0, 1, 5)


@pytest.mark.parametrize(
    ("name", "effort"), [("", Effort.SETTLED), ("full", Effort.FULL), ("EFFORT_SETTLED", Effort.SETTLED)]
)
def test_effort_is_named_as_in_the_contract(
    served: Running, app: EdgeReranker, name: str, effort: Effort
) -> None:
    assert not app.rerank([Candidate("a")], effort=name).settled
    assert [seen.effort for seen in served.core.seen] == [effort]


def test_unknown_effort_is_refused_with_the_known_ones(app: EdgeReranker) -> None:
    with pytest.raises(InvalidArgument, match=r"^effort: 'MOST' is not .SETTLED., .FULL. or"):
        app.rerank([Candidate("a")], effort="MOST")


def test_recorded_event_comes_back_as_it_was(app: EdgeReranker) -> None:
    event = Event(
        "DWELL",
        Item("a", "t", "x", ("War",), {"year": "1973"}),
        event_id="e",
        query="q",
        dwell_s=2.5,
        occurred_at=WHEN,
        surface="home",
        session_id="s",
        ranking_id="r",
        position=0,
        context={"network": "wifi"},
    )
    assert app.record([event]) == Recorded(1, 0)
    assert list(app.events()) == [event]


def test_naive_datetime_is_utc_and_a_number_is_seconds(served: Running, app: EdgeReranker) -> None:
    app.record(
        [
            Event("LIKE", Item("a"), occurred_at=WHEN.replace(tzinfo=None)),
            Event("LIKE", Item("a"), occurred_at=WHEN.timestamp()),
            Event("LIKE", Item("a")),
        ]
    )
    first, second, third = served.core.stored["default"]
    assert first.occurred_at == second.occurred_at == pytest.approx(WHEN.timestamp(), abs=1e-6)
    assert abs(third.occurred_at - time.time()) < 5


def test_sending_an_event_again_changes_nothing(app: EdgeReranker) -> None:
    event = Event("LIKE", Item("a"), event_id="same")
    assert app.record([event, event]) == Recorded(1, 1)
    assert app.record([event]) == Recorded(0, 1)


def test_events_without_an_id_each_get_one(served: Running, app: EdgeReranker) -> None:
    message = types_pb2.Event(type=types_pb2.EVENT_TYPE_LIKE, item=types_pb2.Item(id="a"))
    app.record([Event("LIKE", Item("a")), {"type": "LIKE", "item": {"id": "a"}}, message, message])
    ids = [event.event_id for event in served.core.stored["default"]]
    assert len(set(ids)) == 4
    assert message.event_id == ""  # the caller's own message is left as it was


@pytest.mark.parametrize("name", ["LIKE", "like", "EVENT_TYPE_LIKE"])
def test_type_is_named_with_or_without_its_prefix(served: Running, app: EdgeReranker, name: str) -> None:
    app.record([Event(name, Item("a"))])
    assert served.core.stored["default"][0].type is EventType.LIKE


TYPE = r"events\[1\].type"


@pytest.mark.parametrize("name", ["LOVE", "", "EVENT_TYPE_LOVE"])
def test_unknown_type_is_refused_with_the_known_ones(app: EdgeReranker, name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{TYPE}: '{name}' is not one of IMPRESSION, VIEW, .*, HIDE$"):
        app.record([Event("LIKE", Item("a")), Event(name, Item("a"))])


def test_events_come_newest_first_over_all_pages(app: EdgeReranker) -> None:
    app.record([Event("LIKE", Item("a"), event_id=f"{i}", occurred_at=1_600_000_000.0 + i) for i in range(7)])
    assert [each.event_id for each in app.events(page_size=3)] == list("6543210")


def test_forget_takes_exactly_one_selector(owner: EdgeReranker) -> None:
    for wrong in ({}, {"event_id": "e", "all": True}, {"event_id": "e", "item_id": "a"}):
        with pytest.raises(InvalidArgument, match="exactly one"):
            owner.forget(**wrong)


def test_forget_gives_the_receipt(owner: EdgeReranker) -> None:
    owner.record([Event("LIKE", Item(each), event_id=f"e-{each}") for each in "abc"])
    receipt = Forgotten(1, 1, 0, 0, remaining_digest="ab" * 32)
    assert owner.forget(event_id="e-a") == receipt
    assert owner.forget(item_id="b") == receipt
    assert owner.forget(all=True) == receipt
    assert list(owner.events()) == []


def test_models_are_records(owner: EdgeReranker) -> None:
    assert owner.models() == [Model("tiny", "ab" * 32, 1_234_567, "encoder", "READY", "Apache-2.0")]


def test_the_pack_in_use_comes_with_the_models(owner: EdgeReranker) -> None:
    assert owner.models_message().pack == "films-1"


def test_a_model_is_loaded_by_name_and_an_unknown_one_is_an_error(owner: EdgeReranker) -> None:
    wanted = Model("tiny", "ab" * 32, 1_234_567, "encoder", "READY", "Apache-2.0", tokens_per_s=123.5)
    assert owner.load_model("tiny") == wanted
    with pytest.raises(NotFound, match="huge"):
        owner.load_model("huge")
    with pytest.raises(InvalidArgument, match="name: is empty; ListModels names"):
        owner.load_model("")
    with pytest.raises(InvalidArgument, match="name"):
        owner.load_model(7)  # type: ignore[arg-type]


def failing_once(error: Exception) -> FakeCore:
    errors_left = [error]

    def fail(deadline: Deadline) -> None:
        if errors_left:
            raise errors_left.pop()

    return FakeCore(before=fail)


def test_idempotent_call_is_made_again_after_unavailable_with_the_same_event_ids(tmp_path: Path) -> None:
    core = failing_once(errors.StoreBusy("too many writers"))
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client:
        assert client.record([Event("LIKE", Item("a"))]) == Recorded(1, 0)
        assert len(core.stored["default"]) == 1


def test_rerank_that_reached_the_service_is_not_made_again(tmp_path: Path) -> None:
    core = failing_once(errors.EngineBusy("no turn came"))
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client:
        with pytest.raises(edge_reranker_client.EngineBusy, match="no turn came"):
            client.rerank([{"id": "a"}])
        assert len(core.seen) == 1


def test_error_other_than_unavailable_is_not_retried(tmp_path: Path) -> None:
    core = failing_once(errors.StoreFull("no space is left"))
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path) as client:
        with pytest.raises(edge_reranker_client.StoreFull):
            client.record([Event("LIKE", Item("a"))])
        assert core.stored == {}


def test_idempotent_call_too_many_is_made_again_once_there_is_a_place(tmp_path: Path) -> None:
    """The service works on four calls about models at once; the fifth is refused at first."""
    all_in, done = threading.Barrier(5), threading.Event()

    def hold(deadline: Deadline) -> None:
        if not done.is_set():
            all_in.wait(5)
            done.wait(5)

    core = FakeCore(before=hold)
    with (
        running(tmp_path, core),
        EdgeReranker(data_dir=tmp_path, owner=True) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        held = [threads.submit(client.models) for _ in range(4)]
        all_in.wait(5)
        with pytest.raises(edge_reranker_client.Overloaded):
            client.models(timeout_s=0.1)
        threading.Timer(0.1, done.set).start()
        assert len(client.models()) == 1
        assert [len(each.result(5)) for each in held] == [1] * 4


def test_client_outlives_a_restart_of_the_service(tmp_path: Path) -> None:
    with EdgeReranker(data_dir=tmp_path) as client:
        with running(tmp_path):
            client.rerank([{"id": "a"}])
        with pytest.raises(edge_reranker_client.ServiceUnavailable):
            client.rerank([{"id": "a"}])
        with running(tmp_path):
            assert client.rerank([{"id": "a"}]).ids == ("a",)
        with running(tmp_path):
            assert client.record([Event("LIKE", Item("a"))]) == Recorded(1, 0)


def test_closed_client_says_so(served: Running) -> None:
    client = EdgeReranker(data_dir=served.data_dir, owner=True)
    assert client.healthy()
    client.rerank([{"id": "a"}])
    client.close()
    for call in (
        lambda: client.rerank([{"id": "a"}]),
        lambda: list(client.rerank_stream([{"id": "a"}])),
        lambda: client.record([Event("LIKE", Item("a"))]),
        lambda: list(client.events()),
        client.models,
        client.warmup,
    ):
        with pytest.raises(edge_reranker_client.FailedPrecondition, match="this client is closed"):
            call()
    assert not client.healthy()
    client.close()


def test_call_ends_by_its_timeout_whatever_the_service_does(tmp_path: Path) -> None:
    core = FakeCore(before=lambda deadline: time.sleep(1.0))
    with running(tmp_path, core), EdgeReranker(data_dir=tmp_path, timeout_s=0.2) as client:
        for call in (
            lambda: client.rerank([{"id": "a"}]),
            lambda: list(client.rerank_stream([{"id": "a"}])),
            lambda: client.record([Event("LIKE", Item("a"))]),
        ):
            start_s = time.monotonic()
            with pytest.raises(edge_reranker_client.DeadlineExceeded, match="no answer came in time"):
                call()
            assert time.monotonic() - start_s < 0.8


def test_messages_of_the_contract_can_be_sent_as_they_are(app: EdgeReranker) -> None:
    request = RerankRequest(candidates=[types_pb2.Candidate(id="a")])
    answer = app.rerank_message(request)
    assert isinstance(answer, RerankResponse)
    assert [each.id for each in answer.results] == ["a"]
    assert [each.final for each in app.rerank_stream_message(request)] == [False, False, True]


def test_value_newer_than_the_client_is_shown_as_its_number() -> None:
    answer = RerankResponse(degraded_reason=77)  # type: ignore[arg-type]
    assert messages.ranking_of(answer).degraded_reason == "77"
    answer.degraded_reason = DEGRADED_REASON_DEADLINE
    assert messages.ranking_of(answer).degraded_reason == "DEADLINE"
