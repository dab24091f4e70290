"""Whatever an app passes by mistake, it reads which argument it was, its value and what is allowed."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge_reranker.v1 import rerank_service_pb2, types_pb2
from edge_reranker_client import (
    Candidate,
    Cap,
    EdgeReranker,
    Event,
    InvalidArgument,
    Item,
    Neighbour,
    Pin,
    Policy,
    Unauthenticated,
    discovery,
)
from tests.server.fixtures import Running

Bad = tuple[Any, str]

NUMBER = "is not a finite number"
TEXT = "is not valid Unicode text"
COUNT = "is not a whole number from 0 to 4,294,967,295"
MOMENT = "is not a datetime, seconds since 1970, or None"
BAD_CANDIDATES: list[Bad] = [
    (Candidate("b", tags="Crime"), "candidates[1].tags: 'Crime' is not a list of texts"),
    (Candidate("b", tags={"Crime": 1}), "candidates[1].tags: {'Crime': 1} is not a list of texts"),
    (Candidate("b", tags=7), "candidates[1].tags: 7 is not a list of texts"),
    (Candidate("b", tags=["War", None]), f"candidates[1].tags[1]: None {TEXT}"),
    (Candidate("b", tags=["War", "\ud800"]), f"candidates[1].tags[1]: '\\ud800' {TEXT}"),
    (Candidate("b", vector="12"), "candidates[1].vector: '12' is not a list of numbers"),
    (Candidate("b", vector=b"12"), "candidates[1].vector: b'12' is not a list of numbers"),
    (Candidate("b", vector=0.5), "candidates[1].vector: 0.5 is not a list of numbers"),
    (Candidate("b", vector=[0.5, "1"]), f"candidates[1].vector[1]: '1' {NUMBER}"),
    (Candidate("b", neighbours="n"), "candidates[1].neighbours: 'n' is not a list of neighbours"),
    (Candidate("b", neighbours=Neighbour("n", 1)), "candidates[1].neighbours: Neighbour("),
    (Candidate("b", neighbours={"id": "n", "weight": 1}), "candidates[1].neighbours: {'id': 'n', 'weig"),
    (Candidate("b", neighbours=["n"]), "candidates[1].neighbours[0]: 'n' is not a Neighbour or a mapping"),
    (Candidate("b", neighbours=[{"id": "n"}]), "candidates[1].neighbours[0].weight: is not given; a N"),
    (Candidate("b", neighbours=[Neighbour("n", "1")]), f"candidates[1].neighbours[0].weight: '1' {NUMBER}"),
    (Candidate("b", attributes={"year": 1995}), f"candidates[1].attributes['year']: 1995 {TEXT}"),
    (Candidate("b", attributes={7: "a"}), "candidates[1].attributes: {7: 'a'} is not a mapping from Unicode"),
    (Candidate("b", attributes=["a"]), "candidates[1].attributes: ['a'] is not a mapping from Unicode"),
    (Candidate("b", features={"ctr": "1"}), f"candidates[1].features['ctr']: '1' {NUMBER}"),
    (Candidate("b", features={"\ud800": 1.0}), "candidates[1].features: {'\\ud800': 1.0} is not a mapping"),
    (Candidate("b", title=5), f"candidates[1].title: 5 {TEXT}"),
    (Candidate("b", text="a\ud800"), f"candidates[1].text: 'a\\ud800' {TEXT}"),
    (Candidate(5), f"candidates[1].id: 5 {TEXT}"),
    (Candidate("b", server_score="1.5"), f"candidates[1].server_score: '1.5' {NUMBER}, or None"),
    (Candidate("b", server_score=10**400), "candidates[1].server_score: 1000000"),
    (Candidate("b", published_at="1995"), f"candidates[1].published_at: '1995' {MOMENT}"),
    (Candidate("b", published_at=datetime.date(1995, 1, 1)), f"date(1995, 1, 1) {MOMENT}"),
    (Candidate("b", published_at=float("inf")), f"candidates[1].published_at: inf {MOMENT}"),
    (Candidate("b", published_at=1e30), f"candidates[1].published_at: 1e+30 {MOMENT}"),
    (Candidate("b", vector_space=1), f"candidates[1].vector_space: 1 {TEXT}"),
    ({"id": "b", "titel": "t"}, "candidates[1]: there is no field 'titel'; a Candidate has id"),
    ({"id": "b", 1: "t"}, "candidates[1]: there is no field 1; a Candidate has id"),
    ({"title": "t"}, "candidates[1].id: is not given; a Candidate needs it"),
    (7, "candidates[1]: 7 is not a Candidate or a mapping"),
    (None, "candidates[1]: None is not a Candidate or a mapping"),
    (types_pb2.Item(id="b"), 'candidates[1]: id: "b"  is not a Candidate or a mapping'),
]  # fmt: skip
BAD_EVENTS: list[Bad] = [
    (Event("LIKE", Item("a", tags="Crime")), "events[1].item.tags: 'Crime' is not a list of texts"),
    (Event("LIKE", "a"), "events[1].item: 'a' is not an Item, a mapping or None"),
    (Event("LIKE", {"id": "a", "name": "x"}), "events[1].item: there is no field 'name'; an Item has id"),
    (Event("LIKE", {}), "events[1].item.id: is not given; an Item needs it"),
    (Event("LIKE", Item("a", attributes={"a": None})), f"events[1].item.attributes['a']: None {TEXT}"),
    (Event(5, Item("a")), "events[1].type: 5 is not one of IMPRESSION, VIEW"),
    (Event("LIKE", Item("a"), position=-1), f"events[1].position: -1 {COUNT}, or None"),
    (Event("LIKE", Item("a"), position=1.5), f"events[1].position: 1.5 {COUNT}, or None"),
    (Event("DWELL", Item("a"), dwell_s="5"), f"events[1].dwell_s: '5' {NUMBER}"),
    (Event("LIKE", Item("a"), event_id=5), f"events[1].event_id: 5 {TEXT}"),
    (Event("LIKE", Item("a"), occurred_at="now"), f"events[1].occurred_at: 'now' {MOMENT}"),
    (Event("LIKE", Item("a"), query=b"\xff"), f"events[1].query: b'\\xff' {TEXT}"),
    ({"item": {"id": "a"}}, "events[1].type: is not given; an Event needs it"),
    ({"type": "LIKE", "eventId": "e"}, "events[1]: there is no field 'eventId'; an Event has type, item"),
    ("LIKE", "events[1]: 'LIKE' is not an Event or a mapping"),
]
BAD_POLICIES: list[Bad] = [
    (Policy(blocked_tags="Horror"), "policy.blocked_tags: 'Horror' is not a list of texts"),
    (Policy(pins="a"), "policy.pins: 'a' is not a list of pins"),
    (Policy(pins=Pin("a", 0)), "policy.pins: Pin(id='a', position=0) is not a list of pins"),
    (Policy(pins=[Pin("a", 0), Pin("b", -1)]), f"policy.pins[1].position: -1 {COUNT}"),
    (Policy(pins=[{"id": "a"}]), "policy.pins[0].position: is not given; a Pin needs it"),
    (Policy(diversity="high"), f"policy.diversity: 'high' {NUMBER}"),
    (Policy(diversity_method="MRR"), "policy.diversity_method: 'MRR' is not MMR, DPP or empty"),
    (Policy(diversity_method=1), "policy.diversity_method: 1 is not MMR, DPP or empty"),
    (Policy(caps=Cap(1)), "is not a list of caps"),
    (Policy(caps=[Cap(-1, tag="a")]), f"policy.caps[0].most: -1 {COUNT}"),
    (Policy(caps=[Cap(1, tag=2)]), f"policy.caps[0].tag: 2 {TEXT}, or None"),
    (Policy(caps=[Cap(1, each_tag="a")]), "policy.caps[0].each_tag: 'a' is not True, False or None"),
    (Policy(caps=[{"tag": "a"}]), "policy.caps[0].most: is not given; a Cap needs it"),
    (Policy(caps=[Cap(1, tag="a", attribute="b")]), "it needs exactly one of attribute, tag, each_tag"),
    ({"blocked": []}, "policy: there is no field 'blocked'; a Policy has diversity"),
    ("strict", "policy: 'strict' is not a Policy or a mapping"),
]
BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"top_n": -1}, f"top_n: -1 {COUNT}"),
    ({"top_n": 1.0}, f"top_n: 1.0 {COUNT}"),
    ({"top_n": True}, f"top_n: True {COUNT}"),
    ({"top_n": 2**32}, f"top_n: 4294967296 {COUNT}"),
    ({"budget_ms": -5}, f"budget_ms: -5 {COUNT}"),
    ({"budget_ms": 99.5}, f"budget_ms: 99.5 {COUNT}"),
    ({"budget_ms": float("nan")}, f"budget_ms: nan {COUNT}"),
    ({"budget_ms": "200"}, f"budget_ms: '200' {COUNT}"),
    ({"query": 5}, f"query: 5 {TEXT}"),
    ({"query": "\udcff"}, f"query: '\\udcff' {TEXT}"),
    ({"surface": ["home"]}, f"surface: ['home'] {TEXT}"),
    ({"session_id": 5}, f"session_id: 5 {TEXT}"),
    ({"context": {"network": 5}}, f"context['network']: 5 {TEXT}"),
    ({"context": "wifi"}, "context: 'wifi' is not a mapping from Unicode text to text"),
]
BAD_TIMEOUTS = [float("nan"), float("inf"), -1, -0.5, 1e10, 10**400, "5", True, [1]]


def refused(call: Callable[[], object]) -> str:
    """The one line that the caller reads."""
    with pytest.raises(InvalidArgument) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    return message


@pytest.mark.parametrize(("wrong", "message"), BAD_CANDIDATES)
def test_a_bad_candidate_is_named_down_to_its_part(
    served: Running, app: EdgeReranker, wrong: Any, message: str
) -> None:
    assert message in refused(lambda: app.rerank([Candidate("a"), wrong]))
    assert message in refused(lambda: list(app.rerank_stream([Candidate("a"), wrong])))
    assert served.core.seen == []


@pytest.mark.parametrize(("wrong", "message"), BAD_EVENTS)
def test_a_bad_event_is_named_down_to_its_part_and_nothing_is_stored(
    served: Running, app: EdgeReranker, wrong: Any, message: str
) -> None:
    assert message in refused(lambda: app.record([Event("LIKE", Item("a")), wrong]))
    assert served.core.stored == {}


@pytest.mark.parametrize(("wrong", "message"), BAD_POLICIES)
def test_a_bad_policy_is_named_down_to_its_part(app: EdgeReranker, wrong: Any, message: str) -> None:
    assert message in refused(lambda: app.rerank([Candidate("a")], policy=wrong))


@pytest.mark.parametrize(("wrong", "message"), BAD_REQUESTS)
def test_a_bad_argument_of_a_request_is_named(app: EdgeReranker, wrong: Any, message: str) -> None:
    assert refused(lambda: app.rerank([Candidate("a")], **wrong)) == message


@pytest.mark.filterwarnings("ignore:.*boolean:DeprecationWarning")
@pytest.mark.parametrize("name", ["top_n", "budget_ms"])
def test_true_is_no_number_even_where_protobuf_takes_it_for_one(app: EdgeReranker, name: str) -> None:
    assert refused(lambda: app.rerank([Candidate("a")], **{name: True})) == f"{name}: True {COUNT}"


def test_a_lone_thing_where_several_are_meant_is_refused(app: EdgeReranker) -> None:
    for wrong in ({"id": "a"}, "abc", b"abc", Candidate("a"), 5, None):
        assert refused(lambda wrong=wrong: app.rerank(wrong)).endswith("is not a list of candidates")
        assert refused(lambda wrong=wrong: app.record(wrong)).endswith("is not a list of events")


def test_what_an_iterable_of_the_caller_raises_is_the_callers_own(app: EdgeReranker) -> None:
    with pytest.raises(TypeError, match="mine"):
        app.rerank(Candidate("a") for _ in iter(raising, None))


def raising() -> None:
    raise TypeError("mine")


def test_lists_and_numbers_of_other_libraries_are_taken(served: Running, app: EdgeReranker) -> None:
    vector = np.array([0.5, 0.25], np.float32)
    app.rerank([Candidate("a", tags=("War",), vector=vector, vector_space="s", server_score=np.float32(2))])
    (candidate,) = served.core.seen[0].candidates
    assert (candidate.item.tags, candidate.vector, candidate.server_score) == (("War",), (0.5, 0.25), 2.0)
    assert app.rerank([Candidate("a")], top_n=np.int64(1)).ids == ("a",)


@pytest.mark.parametrize("wrong", BAD_TIMEOUTS)
def test_a_bad_timeout_is_refused_by_every_call(app: EdgeReranker, tmp_path: Path, wrong: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: EdgeReranker(data_dir=tmp_path, timeout_s=wrong),
        lambda: app.rerank([Candidate("a")], timeout_s=wrong),
        lambda: list(app.rerank_stream([Candidate("a")], timeout_s=wrong)),
        lambda: app.record([Event("LIKE", Item("a"))], timeout_s=wrong),
        lambda: list(app.events(timeout_s=wrong)),
        lambda: app.healthy(timeout_s=wrong),
    ]
    for call in calls:
        assert "is not a number of seconds from 0 to 1,000,000,000" in refused(call)


def test_a_long_timeout_is_no_mistake(app: EdgeReranker) -> None:
    assert app.rerank([Candidate("a")], timeout_s=1e9).ids == ("a",)


def test_a_bad_selector_or_page_is_named(owner: EdgeReranker) -> None:
    owner.record([Event("LIKE", Item("a"))])
    assert refused(lambda: owner.forget(event_id=5)) == f"event_id: 5 {TEXT}"
    assert refused(lambda: owner.forget(item_id="\ud800")) == f"item_id: '\\ud800' {TEXT}"
    for wrong in ("false", "yes", 1, None):
        assert refused(lambda wrong=wrong: owner.forget(all=wrong)) == f"all: {wrong!r} is not True or False"
    assert refused(lambda: list(owner.events(page_size=-1))) == f"page_size: -1 {COUNT}"
    assert len(list(owner.events())) == 1


def test_a_message_of_another_kind_is_refused(owner: EdgeReranker) -> None:
    request: Any = rerank_service_pb2.RerankStreamRequest()
    for call in (
        owner.rerank_message,
        lambda it: list(owner.rerank_stream_message(it)),
        owner.record_message,
        owner.events_message,
        owner.forget_message,
    ):
        for wrong in (request, {"candidates": []}):
            assert refused(lambda call=call, wrong=wrong: call(wrong)).startswith("request: ")


@pytest.mark.parametrize("wrong", [5, b"/tmp/x", "", "a\0b", "\ud800"])
def test_what_is_no_path_is_refused(tmp_path: Path, wrong: Any) -> None:
    assert refused(lambda: EdgeReranker(data_dir=wrong)) == f"data_dir: {wrong!r} is not a path"
    assert refused(lambda: EdgeReranker(wrong, data_dir=tmp_path)) == f"socket: {wrong!r} is not a path"


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    message = refused(lambda: EdgeReranker(tmp_path / ("x" * 108), data_dir=tmp_path))
    assert "bytes; at most 107 are allowed, choose a shorter path" in message


@pytest.mark.parametrize("wrong", ["secret\n", "sécret", "secret\ud800", b"secret", 5])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, wrong: Any) -> None:
    message = refused(lambda: EdgeReranker(data_dir=tmp_path, token=wrong))
    assert message.startswith("token: is not printable ASCII text")
    assert "cret" not in message


def test_a_token_file_that_holds_none_is_named(served: Running) -> None:
    path = discovery.token_path(served.data_dir, "app")
    path.write_bytes(b"\xff\xfe\n\0")
    with EdgeReranker(data_dir=served.data_dir) as client:
        with pytest.raises(Unauthenticated, match=r"app\.token holds no token; delete it"):
            client.rerank([Candidate("a")])
        path.unlink()
        path.mkdir()
        with pytest.raises(Unauthenticated, match=r"app\.token cannot be read: Is a directory"):
            client.rerank([Candidate("a")])


def test_a_request_that_is_too_large_says_so_and_the_client_goes_on(app: EdgeReranker) -> None:
    request = rerank_service_pb2.RerankRequest(candidates=[types_pb2.Candidate(id="a", text="x" * 2**26)])
    for call in (app.rerank_message, lambda it: list(app.rerank_stream_message(it))):
        with pytest.raises(InvalidArgument) as caught:
            call(request)
        assert str(caught.value).startswith("request: 67,108,8")
        assert str(caught.value).endswith(
            " bytes are too many, at most 67,108,864 can be sent; give fewer at a time, or shorter texts"
        )
        assert caught.value.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert app.rerank([Candidate("a")]).ids == ("a",)
