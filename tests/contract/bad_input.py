"""Every bad request that the edge must refuse, with the start of what it must say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from edge_reranker.v1 import context_service_pb2, rerank_service_pb2, types_pb2
from tests.server.requests import batch, event, rerank

Rerank = rerank_service_pb2.RerankRequest
Record = context_service_pb2.RecordEventsRequest
Page = context_service_pb2.ListEventsRequest
Forget = context_service_pb2.ForgetRequest
SetRetention = context_service_pb2.SetRetentionRequest
Explain = rerank_service_pb2.ExplainRequest
Mute = context_service_pb2.MuteTopicRequest


class Case(NamedTuple):
    name: str
    message: Rerank | Record | Page | Forget | SetRetention | Explain | Mute
    says: str


def _with(change: Callable[[types_pb2.Candidate], object]) -> Rerank:
    message = rerank("a", "b", "c", "d")
    change(message.candidates[3])
    return message


def _policy(**fields: object) -> Rerank:
    message = rerank("a", "b")
    message.policy.CopyFrom(rerank_service_pb2.Policy(**fields))  # type: ignore[arg-type]
    return message


def _told(context: dict[str, str]) -> Rerank:
    return Rerank(candidates=rerank().candidates, context=context)


def _cap(**fields: object) -> Rerank:
    return _policy(caps=[fields])


def _pins(*pins: tuple[str, int]) -> Rerank:
    return _policy(pins=[rerank_service_pb2.Pin(id=each, position=position) for each, position in pins])


def _set(name: str, value: object) -> Callable[[types_pb2.Candidate], object]:
    return lambda candidate: setattr(candidate, name, value)


def _vector(candidate: types_pb2.Candidate, values: list[float], space: str = "own") -> None:
    candidate.vector.extend(values)
    candidate.vector_space = space


def _at(seconds: int, nanos: int = 0) -> Record:
    return batch(event("e0"), event(occurred_at=Timestamp(seconds=seconds, nanos=nanos)))


def _search(**fields: object) -> Record:
    return batch(types_pb2.Event(event_id="e", type=types_pb2.EVENT_TYPE_SEARCH, **fields))  # type: ignore[arg-type]


_LONG_ID = "é" * 129  # 258 bytes in 129 characters

CANDIDATES = [
    Case("no candidates", Rerank(), "candidates: 0 given; 1 to 1,000 are allowed"),
    Case("1,001 candidates", rerank(*map(str, range(1_001))), "candidates: 1,001 given; 1 to 1,000 are"),
    Case("an empty id", _with(_set("id", "")), "candidates[3].id: is empty; 1 to 256 bytes are allowed"),
    Case(
        "a long id", _with(_set("id", _LONG_ID)), f'candidates[3].id: "{"é" * 64}…" has 258 bytes; 1 to 256'
    ),
    Case(
        "an id twice", _with(_set("id", "b")), 'candidates[3].id: "b" appears twice, first as candidates[1];'
    ),
    Case(
        "a NaN score",
        _with(_set("server_score", math.nan)),
        "candidates[3].server_score: nan is not a finite",
    ),
    Case(
        "an infinite score", _with(_set("server_score", -math.inf)), "candidates[3].server_score: -inf is not"
    ),
    Case(
        "a NaN feature",
        _with(lambda each: each.features.update({"ctr": math.nan})),
        'candidates[3].features["ctr"]: nan is not a finite number',
    ),
    Case(
        "257 features",
        _with(lambda each: each.features.update({str(i): 1.0 for i in range(257)})),
        "candidates[3].features: 257 given; at most 256 are allowed",
    ),
    Case(
        "a NaN weight",
        _with(lambda each: each.neighbours.add(id="n", weight=math.nan)),
        "candidates[3].neighbours[0].weight: nan is not a finite number",
    ),
    Case(
        "a negative weight",
        _with(lambda each: each.neighbours.add(id="n", weight=-0.5)),
        "candidates[3].neighbours[0].weight: -0.5 is negative; 0 or more is allowed",
    ),
    Case(
        "a neighbour without an id",
        _with(lambda each: each.neighbours.add(weight=1.0)),
        "candidates[3].neighbours[0].id: is empty",
    ),
    Case(
        "257 neighbours",
        _with(lambda each: [each.neighbours.add(id=str(i), weight=1.0) for i in range(257)]),
        "candidates[3].neighbours: 257 given; at most 256 are allowed",
    ),
    Case(
        "a vector of no space",
        _with(lambda each: _vector(each, [0.1], space="")),
        "candidates[3].vector_space: is empty; it must say what the vector is",
    ),
    Case(
        "a long vector",
        _with(lambda each: _vector(each, [0.1] * 4_097)),
        "candidates[3].vector: 4,097 given; at most 4,096 are allowed",
    ),
    Case(
        "a NaN in a vector",
        _with(lambda each: _vector(each, [0.1, math.nan])),
        "candidates[3].vector[1]: nan is not a finite number",
    ),
    Case(
        "opposite infinities in a vector",
        _with(lambda each: _vector(each, [0.1, 0.2, math.inf, -math.inf])),
        "candidates[3].vector[2]: inf is not a finite number",
    ),
    Case(
        "65 tags",
        _with(lambda each: each.tags.extend(map(str, range(65)))),
        "candidates[3].tags: 65 given; at most 64 are allowed",
    ),
    Case(
        "65 attributes",
        _with(lambda each: each.attributes.update({str(i): "x" for i in range(65)})),
        "candidates[3].attributes: 65 given; at most 64 are allowed",
    ),
    Case(
        "an attribute with a long name",
        _with(lambda each: each.attributes.update({"n" * 129: "x"})),
        f'candidates[3].attributes: "{"n" * 64}…" has 129 characters; at most 128 are allowed',
    ),
    Case(
        "a moment that is none",
        _with(lambda each: each.published_at.CopyFrom(Timestamp(seconds=2**62))),
        "candidates[3].published_at: seconds 4611686018427387904, nanos 0 is not a moment",
    ),
    Case("a long surface", Rerank(candidates=rerank().candidates, surface="s" * 129), 'surface: "sss'),
    Case("a long session", Rerank(candidates=rerank().candidates, session_id="s" * 129), 'session_id: "sss'),
    Case(
        "a context of nine", _told({f"name{at}": "x" for at in range(9)}), "context: 9 given; at most 8 are"
    ),
    Case("a context without a name", _told({"": "x"}), 'context: a name has 0 characters (""); 1 to 64 are'),
    Case("a long name of a context", _told({"n" * 65: "x"}), "context: a name has 65 characters"),
    Case(
        "a long value of a context",
        _told({"network": "w" * 129}),
        'context: the value of "network" has 129 characters',
    ),
    Case("a pin for nobody", _pins(("z", 0)), 'policy.pins[0].id: "z" is not the id of a candidate'),
    Case("a pin past the end", _pins(("a", 2)), "policy.pins[0].position: 2 is past the end; less than 2"),
    Case(
        "two pins for one place", _pins(("a", 1), ("b", 1)), "policy.pins[1].position: 1 is taken by another"
    ),
    Case("two pins for one id", _pins(("a", 1), ("a", 0)), 'policy.pins[1].id: "a" is pinned twice'),
    Case(
        "257 blocked tags", _policy(blocked_tags=map(str, range(257))), "policy.blocked_tags: 257 given; at"
    ),
    Case("NaN diversity", _policy(diversity=math.nan), "policy.diversity: nan is not a finite number"),
    Case("negative calibration", _policy(calibration=-0.1), "policy.calibration: -0.1 is outside 0 to 1"),
    Case("an unknown method", _policy(diversity_method=9), "policy.diversity_method: 9 is not a method that"),
    Case("17 caps", _policy(caps=[{"tag": "a", "most": 1}] * 17), "policy.caps: 17 given; at most 16"),
    Case("a cap of nothing", _cap(most=1), "policy.caps[0].kind: nothing is counted; set attribute"),
    Case("a cap without a number", _cap(tag="a"), "policy.caps[0].most: is not set; 0 to 1,000"),
    Case("a cap of too many", _cap(tag="a", most=1001), "policy.caps[0].most: 1,001 is too many; 0 to 1,000"),
    Case("a cap too far", _cap(tag="a", most=1, window=101), "policy.caps[0].window: 101 is too many; at"),
    Case("a cap of no attribute", _cap(attribute="", most=1), "policy.caps[0].attribute: is empty"),
    Case("a cap of no tag", _cap(tag="", most=1), "policy.caps[0].tag: is empty; give a tag"),
    Case("a cap of not each tag", _cap(each_tag=False, most=1), "policy.caps[0].each_tag: false counts"),
    Case("a cap of no age", _cap(max_age_days=math.nan, most=1), "policy.caps[0].max_age_days: nan is not"),
    Case("a cap of today", _cap(max_age_days=0.0, most=1), "policy.caps[0].max_age_days: 0 is outside what"),
    Case("too much exploration", _policy(exploration=1.5), "policy.exploration: 1.5 is outside 0 to 1"),
]

EVENTS = [
    Case("no events", Record(), "events: 0 given; 1 to 1,000 are allowed"),
    Case("1,001 events", batch(*(event(str(i)) for i in range(1_001))), "events: 1,001 given; 1 to 1,000"),
    Case("an empty event id", batch(event("e0"), event("")), "events[1].event_id: is empty; 1 to 256 bytes"),
    Case("a long event id", batch(event("x" * 257)), f'events[0].event_id: "{"x" * 64}…" has 257 bytes'),
    Case(
        "no type",
        batch(types_pb2.Event(event_id="e", item=types_pb2.Item(id="a"))),
        "events[0].type: 0 is not a type that this version knows",
    ),
    Case(
        "a type of the future",
        batch(types_pb2.Event(event_id="e", type=99, item=types_pb2.Item(id="a"))),  # type: ignore[arg-type]
        "events[0].type: 99 is not a type that this version knows",
    ),
    Case(
        "no item",
        batch(types_pb2.Event(event_id="e", type=types_pb2.EVENT_TYPE_LIKE)),
        "events[0].item: is not set; a LIKE event needs one",
    ),
    Case(
        "an item without an id",
        _search(query="q", item=types_pb2.Item(title="t")),
        "events[0].item.id: is empty",
    ),
    Case("a search for nothing", _search(), "events[0].query: is empty; a SEARCH event needs one"),
    Case("a search for control characters", _search(query="\0\1 "), "events[0].query: is empty"),
    Case("NaN seconds", batch(event(dwell_s=math.nan)), "events[0].dwell_s: nan is not a finite number"),
    Case("negative seconds", batch(event(dwell_s=-1.0)), "events[0].dwell_s: -1 is outside 0 to 86,400"),
    Case(
        "two days of dwelling", batch(event(dwell_s=172_800.0)), "events[0].dwell_s: 172800 is outside 0 to"
    ),
    Case(
        "an event of 1970",
        _at(0),
        "events[1].occurred_at: 1970-01-01T00:00:00Z is outside 1990-01-01T00:00:00Z",
    ),
    Case(
        "an event of 2100", _at(4_102_444_800), "events[1].occurred_at: 2100-01-01T00:00:00Z is outside 1990-"
    ),
    Case(
        "a billion nanoseconds", _at(1_600_000_000, 10**9), "events[1].occurred_at: seconds 1600000000, nanos"
    ),
    Case("a long surface", batch(event(surface="s" * 129)), 'events[0].surface: "sss'),
    Case("a long session", batch(event(session_id="s" * 129)), 'events[0].session_id: "sss'),
    Case("a long ranking", batch(event(ranking_id="s" * 129)), 'events[0].ranking_id: "sss'),
    Case(
        "a context of nine",
        batch(event(context={f"name{at}": "x" for at in range(9)})),
        "events[0].context: 9 given; at most 8 are allowed",
    ),
]

PAGES = [
    Case("a page of 1,001", Page(page_size=1_001), "page_size: 1001 is too many; at most 1,000 are allowed"),
    Case("an endless page token", Page(page_token="p" * 1_025), f'page_token: "{"p" * 64}…" is none of ours'),
]

FORGETS = [
    Case("no selector", Forget(), "selector: nothing is selected; set event_id, item_id, type, tag,"),
    Case("no type", Forget(type=0), "type: 0 is not a type that this version knows; see EventType"),  # type: ignore[arg-type]
    Case("a type of the future", Forget(type=99), "type: 99 is not a type"),  # type: ignore[arg-type]
    Case("an empty tag", Forget(tag="\0"), "tag: is empty; give a tag"),
    Case("no end of time", Forget(time_range={}), "time_range: neither from nor to is set; set one"),
    Case(
        "time backwards",
        Forget(time_range={"from": Timestamp(seconds=5), "to": Timestamp(seconds=5)}),
        "time_range.to: 1970-01-01T00:00:05Z is not after 1970-01-01T00:00:05Z, which is from",
    ),
    Case(
        "a moment that is none",
        Forget(time_range={"to": Timestamp(seconds=2**62)}),
        "time_range.to: seconds 4611686018427387904, nanos 0 is not a moment",
    ),
    Case("all namespaces, but false", Forget(all_namespaces=False), "all_namespaces: false selects nothing"),
    Case(
        "one of all namespaces",
        Forget(all_namespaces=True, namespace="app"),
        'namespace: all_namespaces means every one, and "app" is one; leave it empty',
    ),
    Case("a long namespace", Forget(all=True, namespace="n" * 129), 'namespace: "nnn'),
    Case("all, but false", Forget(all=False), "all: false selects nothing"),
    Case("an empty event id", Forget(event_id=""), "event_id: is empty; 1 to 256 bytes are allowed"),
    Case("an empty item id", Forget(item_id=""), "item_id: is empty; 1 to 256 bytes are allowed"),
]


def _rule(*by_type: tuple[int, int, int], max_age_days: int = 0, max_events: int = 0) -> SetRetention:
    rule = context_service_pb2.Retention(max_age_days=max_age_days, max_events=max_events)
    for kind, age_days, events in by_type:
        rule.by_type.add(type=kind, max_age_days=age_days, max_events=events)  # type: ignore[arg-type]
    return SetRetention(retention=rule)


RETENTIONS = [
    Case(
        "36,501 days",
        _rule(max_age_days=36_501),
        "retention.max_age_days: 36,501 is too many; 0 (no limit) to 36,500 are allowed",
    ),
    Case(
        "36,501 days for a type",
        _rule((1, 36_501, 0)),
        "retention.by_type[0].max_age_days: 36,501 is too many; 0 (no limit) to 36,500 are allowed",
    ),
    Case(
        "a rule for no type",
        _rule((1, 1, 0), (0, 1, 0)),
        "retention.by_type[1].type: 0 is not a type that this version knows",
    ),
    Case("a rule for a type of the future", _rule((99, 1, 0)), "retention.by_type[0].type: 99 is not a type"),
    Case(
        "two rules for a type",
        _rule((4, 1, 0), (1, 1, 0), (4, 0, 5)),
        "retention.by_type[2].type: LIKE appears twice, first as by_type[0]; once is allowed",
    ),
    Case(
        "a rule for a type that sets nothing",
        _rule((4, 0, 0)),
        "retention.by_type[0]: sets nothing for LIKE; set max_age_days or max_events, or leave it out",
    ),
    Case(
        "a type kept longer than all",
        _rule((4, 31, 0), max_age_days=30),
        "retention.by_type[0].max_age_days: 31 is more than the 30 for all types; at most that is allowed",
    ),
    Case(
        "more of a type than of all",
        _rule((4, 0, 1_001), max_events=1_000),
        "retention.by_type[0].max_events: 1,001 is more than the 1,000 for all types; at most that is",
    ),
    Case(
        "a namespace with a capital", SetRetention(namespace="App"), 'namespace: "App" is not a name; 1 to 64'
    ),
]

WHYS = [
    Case("no ranking to explain", Explain(), "ranking_id: is empty; RerankResponse has it"),
    Case("a long ranking to explain", Explain(ranking_id="r" * 129), 'ranking_id: "rrr'),
    Case("1,001 ids", Explain(ranking_id="r", ids=["a"] * 1_001), "ids: 1,001 given; at most 1,000 are"),
    Case("an empty id", Explain(ranking_id="r", ids=["a", ""]), "ids[1]: is empty; 1 to 256 bytes"),
    Case("somebody else, badly named", Explain(ranking_id="r", namespace="App"), 'namespace: "App" is not a'),
    Case("no topic", Mute(), "topic: is empty; give a tag"),
    Case("a topic of control characters", Mute(topic="\0 \1"), "topic: is empty; give a tag"),
    Case("a topic of nobody", Mute(topic="x", namespace="owner"), 'namespace: "owner" is reserved'),
]

ALL = [*CANDIDATES, *EVENTS, *PAGES, *FORGETS, *RETENTIONS, *WHYS]
