"""The export's format: what goes out comes back, and what was changed does not get in."""

from __future__ import annotations

import hashlib
import json
import math
import tracemalloc
from collections.abc import Iterator

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import limits, respond
from edge_reranker.server.lines import MAX_CHUNK_BYTES, Record, chunks
from edge_reranker.server.read_lines import MAX_LINE_BYTES, Lines
from edge_reranker.types import (
    DegradedReason,
    Event,
    EventType,
    Item,
    LoggedChoice,
    LoggedRanking,
    MutedTopic,
    Ranking,
    Result,
    Timings,
)
from tests.server.requests import NOW_S

EVENT = Event(
    "e1",
    EventType.DWELL,
    1.6e9 + 1 / 3,
    Item("i1", 'A "title"\n', "text \u2028 ü", ("Drama",), {"year": "1999"}),
    "",
    12.5,
    "home",
    "s1",
    "r1",
    0,
    {"network": "wifi", "battery": "low"},
)
RANKING = LoggedRanking(
    Ranking(
        "r1",
        (Result("a", 1), Result("b", 0)),
        0.5,
        DegradedReason.DEADLINE,
        Timings(0.125, 1.0, 2.0, 3.0, 0.0, 1e-7, 6.5),
        "minilm",
        "films-1",
    ),
    "home",
    "s1",
    1.6e9,
)
HEADER = b'{"format":"edge-reranker-export","version":1}\n'


def written(*records: Record) -> bytes:
    return b"".join(chunks([records]))


def read(data: bytes, piece: int = 0) -> list[Record]:
    reader = Lines(NOW_S)
    pieces = [data] if not piece else [data[at : at + piece] for at in range(0, len(data), piece)]
    found = [record for each in pieces for _, record in reader.feed(each)]
    reader.finish()
    return found


def whole(*lines: bytes | str) -> bytes:
    """An export of these lines, with the end that fits them."""
    body = HEADER + b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    end = {"end": {"records": len(lines), "sha256": hashlib.sha256(body).hexdigest()}}
    return body + json.dumps(end).encode() + b"\n"


def test_the_format_is_this() -> None:
    """Byte by byte: another version must read it."""
    first, event, ranking, end, nothing = written(EVENT, RANKING).split(b"\n")
    assert first + b"\n" == HEADER
    assert event.decode() == (
        '{"event":{"eventId":"e1","type":"EVENT_TYPE_DWELL","item":{"id":"i1","title":"A \\"title\\"\\n",'
        '"text":"text \u2028 ü","tags":["Drama"],"attributes":{"year":"1999"}},"dwellS":12.5,'
        '"occurredAt":"2020-09-13T12:26:40.333333254Z","surface":"home","sessionId":"s1","rankingId":"r1",'
        '"position":0,"context":{"battery":"low","network":"wifi"}}}'
    )
    assert ranking.decode() == (
        '{"ranking":{"rankingId":"r1","results":[{"id":"a","tier":1},{"id":"b"}],"coverage":0.5,'
        '"degradedReason":"DEGRADED_REASON_DEADLINE","timings":{"queueMs":0.125,"contextMs":1.0,"tier0Ms":2.0,'
        '"tier1Ms":3.0,"fusionMs":1e-7,"totalMs":6.5},"model":"minilm","pack":"films-1","final":true,'
        '"createdAt":"2020-09-13T12:26:40Z","surface":"home","sessionId":"s1"}}'
    )
    assert end.decode() == (
        '{"end":{"records":2,"sha256":"'
        + hashlib.sha256(first + b"\n" + event + b"\n" + ranking + b"\n").hexdigest()
        + '"}}'
    )
    assert nothing == b""


def test_a_choice_and_a_muted_topic_are_lines_of_their_own() -> None:
    """The body in base64; what learning makes of it is its own affair."""
    choice = LoggedChoice("e2", b"\0\xff body", "e1", ("news",))
    _, first, second, third, *_ = written(choice, LoggedChoice("e1", b"x"), MutedTopic("straße")).split(b"\n")
    assert first == (
        b'{"choice":{"eventId":"e2","body":"AP8gYm9keQ==","newestEventId":"e1","sources":["news"]}}'
    )
    assert second == b'{"choice":{"eventId":"e1","body":"eA=="}}'
    assert third.decode() == '{"muted":{"topic":"straße"}}'


def test_events_and_rankings_are_in_the_json_mapping_of_the_protos() -> None:
    event, ranking = (json.loads(line) for line in written(EVENT, RANKING).splitlines()[1:3])
    mapped = json_format.MessageToDict(respond.event(EVENT))
    mapped["occurredAt"] = event["event"]["occurredAt"]  # there to the microsecond only
    assert event["event"] == mapped
    mapped = json_format.MessageToDict(respond.ranking(RANKING.ranking, 0))
    extra = {"createdAt": "2020-09-13T12:26:40Z", "surface": "home", "sessionId": "s1"}
    assert ranking["ranking"] == mapped | extra


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
ID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
MOMENT = st.floats(limits.EARLIEST_S, NOW_S)
ITEM = st.builds(
    Item,
    ID,
    TEXT,
    TEXT,
    st.lists(TEXT.filter(bool), max_size=3).map(tuple),
    st.dictionaries(ID, TEXT, max_size=3).map(lambda each: dict(sorted(each.items()))),
)
EVENTS = st.builds(
    Event,
    ID,
    st.sampled_from([kind for kind in EventType if kind not in (EventType.UNSPECIFIED, EventType.SEARCH)]),
    MOMENT,
    ITEM,
    TEXT,
    st.floats(0, 86_400),
    ID,
    ID,
    ID,
    st.none() | st.integers(0, 2**32 - 1),
    st.dictionaries(ID, TEXT, max_size=3),
)
NUMBER = st.floats(0, allow_infinity=False, allow_nan=False)
RANKINGS = st.builds(
    LoggedRanking,
    st.builds(
        Ranking,
        ID,
        st.lists(
            st.builds(Result, ID, st.integers(0, 2)), min_size=1, max_size=4, unique_by=lambda r: r.id
        ).map(tuple),
        st.floats(0, 1),
        st.sampled_from(DegradedReason),
        st.builds(Timings, *[NUMBER] * 7),
        ID,
        TEXT,
        st.booleans(),
    ),
    TEXT,
    TEXT,
    MOMENT,
)
NAMESPACE = st.sampled_from(["default", "news", "shop"])
CHOICES = st.builds(
    LoggedChoice, ID, st.binary(min_size=1, max_size=40), ID | st.just(""), st.lists(NAMESPACE).map(tuple)
)
MUTED = st.builds(MutedTopic, TEXT.map(str.casefold).filter(bool))
RECORDS = st.lists(EVENTS | RANKINGS | CHOICES | MUTED, max_size=6)


@given(RECORDS, st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_however_it_is_cut(records: list[Record], piece: int) -> None:
    """Every float comes back as the same float, so a tie stays a tie and nothing else becomes one."""
    data = written(*records)
    assert read(data, piece) == records
    assert written(*read(data)) == data


CHANGES = st.tuples(
    st.sampled_from(["flip", "drop", "add", "cut", "swap"]), st.integers(0), st.integers(0, 255)
)


def changed(data: bytes, change: tuple[str, int, int]) -> bytes:
    kind, place, value = change
    at = place % len(data)
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (value or 1)]) + data[at + 1 :]
    if kind == "drop":
        return data[:at] + data[at + 1 + value % 3 :]
    if kind == "add":
        return data[:at] + bytes([value]) + data[at:]
    if kind == "cut":
        return data[:at]
    lines = data.splitlines(keepends=True)
    first, second = place % len(lines), value % len(lines)
    lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


@given(RECORDS, st.lists(CHANGES, min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_changed_export_is_refused_or_read_whole(
    records: list[Record], made: list[tuple[str, int, int]]
) -> None:
    data = written(*records)
    bad = data
    for each in made:
        bad = changed(bad, each) if bad else bad
    try:
        found = read(bad)
    except InvalidArgument:
        return
    assert found == records  # such as a space more in the last line


GOOD = (
    '{"event":{"eventId":"e1","type":"EVENT_TYPE_LIKE","item":{"id":"a"},'
    '"occurredAt":"2020-01-01T00:00:00Z"}}'
)
SHOWN = '{"ranking":{"rankingId":"r1","results":[{"id":"a"}],"createdAt":"2020-01-01T00:00:00Z"}}'


def event(**fields: object) -> str:
    line = json.loads(GOOD)
    line["event"] |= fields
    return json.dumps({"event": {name: value for name, value in line["event"].items() if value is not None}})


def shown(**fields: object) -> str:
    line = json.loads(SHOWN)
    line["ranking"] |= fields
    return json.dumps(line)


BAD_LINES: dict[str, tuple[bytes | str, str]] = {
    "nested arrays": ("[" * 100_000, "is nested too deeply; a record has four levels at most"),
    "nested objects": ('{"event":' * 100_000, "is nested too deeply"),
    "deep but closed": ('{"event":' + "[" * 500 + "]" * 500 + "}", 'event: Expected "object", got "array"'),
    "no JSON": ("{]", "is not JSON: Expecting property name"),
    "an empty line": ("", "is not JSON: Expecting value at character 0"),
    "two values": (GOOD + GOOD, "is not JSON: Extra data"),
    "an array": ("[1]", "is not a JSON object"),
    "a raw NUL": (GOOD.replace("e1", "\0"), "is not JSON: Invalid control character"),
    "bytes that are no UTF-8": (
        GOOD.replace("e1", "??").encode().replace(b"??", b"\xff\xfe"),
        "is not UTF-8: invalid",
    ),
    "a surrogate in bytes": (
        GOOD.replace("e1", "??").encode().replace(b"??", b"\xed\xa0\x80"),
        "is not UTF-8",
    ),
    "a lone surrogate": (event(eventId="\ud800"), "has a lone surrogate in a text; valid Unicode"),
    "a name with a lone surrogate": (event(**{"\udc00": 1}), "has a lone surrogate"),
    "NaN": (event(dwellS=math.nan), "has NaN, which is not JSON"),
    "Infinity": (event(dwellS=-math.inf), "has -Infinity, which is not JSON"),
    "a number beyond all": (
        GOOD.replace('"e1"', '"e1","dwellS":1e999'),
        "event.dwellS: inf is not a finite number",
    ),
    "a number of 5,000 digits": (
        GOOD.replace('"e1"', '"e1","dwellS":' + "9" * 5000),
        "has a number that is too long",
    ),
    "a name twice": (
        GOOD.replace('"e1"', '"e1","eventId":"e2"'),
        'has the name "eventId" twice in one object',
    ),
    "a name twice, deeper": (
        event(item={"id": "a", "attributes": {"a": "1", "b": "2"}}).replace('"b"', '"a"'),
        'has the name "a" twice',
    ),
    "a kind twice": ('{"event":{},"event":{}}', 'has the name "event" twice'),
    "two kinds": (
        '{"event":{},"ranking":{}}',
        "has 2 names; one is allowed: event, ranking, choice, muted or end",
    ),
    "no kind": ("{}", "has 0 names; one is allowed"),
    "an unknown kind": (
        '{"vector":{}}',
        '"vector" is no kind of record; event, ranking, choice, muted and end',
    ),
    "an unknown field": (event(score=1), 'event: Object contains unknown field "score"'),
    "a field as long as a line": (
        event(**{"x" * 1_000_000: 1}),
        'event: Object contains unknown field "xxxxx',
    ),
    "a field that looks like a place": (event(**{" - at `$." + "x" * 1_000_000: 1}), "event.xxxx"),
    "150,000 names, one twice": (
        '{"event":{' + ",".join(f'"{n}":0' for n in (*range(150_000), 149_999)) + "}}",
        'has the name "149999" twice',
    ),
    "a snake_case field": (event(event_id="e"), 'event: Object contains unknown field "event_id"'),
    "a number for a text": (event(eventId=1), 'event.eventId: Expected "str", got "int"'),
    "null for a text": (GOOD.replace('"e1"', "null"), 'event.eventId: Expected "str", got "null"'),
    "a text for a number": (event(dwellS="1"), 'event.dwellS: Expected "float", got "str"'),
    "true for a number": (event(position=True), 'event.position: Expected "int | null", got "bool"'),
    "a negative place": (event(position=-1), 'event.position: Expected "int" >= 0'),
    "a place beyond 32 bits": (event(position=2**32), 'event.position: Expected "int" <= 4294967295'),
    "a text for an item": (event(item="a"), 'event.item: Expected "object | null", got "str"'),
    "a number among tags": (
        event(item={"id": "a", "tags": ["x", 3]}),
        'event.item.tags[1]: Expected "str", got "int"',
    ),
    "an empty id": (event(eventId=""), "event.eventId: is empty; 1 to 256 bytes are allowed"),
    "a long id": (
        event(eventId="é" * 129),
        f'event.eventId: "{"é" * 64}…" has 258 bytes; 1 to 256 are allowed',
    ),
    "an item without an id": (event(item={}), "event.item.id: is empty"),
    "65 tags": (
        event(item={"id": "a", "tags": ["x"] * 65}),
        "event.item.tags: 65 given; at most 64 are allowed",
    ),
    "no item": (event(item=None), "event.item: is not set; a LIKE event needs one"),
    "a search for nothing": (
        event(type="EVENT_TYPE_SEARCH"),
        "event.query: is empty; a SEARCH event needs one",
    ),
    "an unknown type": (event(type="ADORE"), 'event.type: "ADORE" is not a type'),
    "no type": (event(type="EVENT_TYPE_UNSPECIFIED"), 'event.type: "EVENT_TYPE_UNSPECIFIED" is not a type'),
    "a long stay": (event(dwellS=86_401), "event.dwellS: 86401 is outside 0 to 86,400"),
    "a long surface": (event(surface="x" * 129), "event.surface: "),
    "a context of nine": (
        event(context={f"name{at}": "x" for at in range(9)}),
        "event.context: 9 given; at most 8 are allowed",
    ),
    "no time": (event(occurredAt=None), "event.occurredAt: is not set; an export dates everything"),
    "a time of words": (event(occurredAt="today"), 'event.occurredAt: "today" is no time; such as "2026-'),
    "a time elsewhere": (event(occurredAt="2020-01-01T00:00:00+01:00"), "event.occurredAt: "),
    "the 30th of February": (event(occurredAt="2020-02-30T00:00:00Z"), "event.occurredAt: "),
    "before 1990": (
        event(occurredAt="1989-12-31T23:59:59Z"),
        "event.occurredAt: 1989-12-31T23:59:59Z is outside",
    ),
    "in a year": (
        event(occurredAt="2024-12-31T23:59:59Z"),
        "event.occurredAt: 2024-12-31T23:59:59Z is outside",
    ),
    "a choice of nothing": ('{"choice":{"body":"eA=="}}', "choice.eventId: is empty"),
    "a choice without a body": (
        '{"choice":{"eventId":"e"}}',
        "choice.body: has 0 bytes; 1 to 262,144 are allowed",
    ),
    "a choice that is no base64": ('{"choice":{"eventId":"e","body":"?"}}', "choice.body: Invalid base64"),
    "a large choice": (
        '{"choice":{"eventId":"e","body":"' + "AAAA" * 87_382 + '"}}',
        "choice.body: has 262,146 bytes",
    ),
    "a choice by nobody's events": (
        '{"choice":{"eventId":"e","body":"eA==","sources":["news","No"]}}',
        'choice.sources[1]: "No" is not a name',
    ),
    "no topic": ('{"muted":{}}', "muted.topic: has 0 characters; 1 to 384 are allowed"),
    "a topic in capitals": (
        '{"muted":{"topic":"Crime"}}',
        'muted.topic: "Crime" is not casefolded: "crime" is',
    ),
    "a ranking of nothing": (shown(results=[]), "ranking.results: 0 given; 1 to 1,000 are allowed"),
    "a ranking of 1,001": (
        shown(results=[{"id": str(n)} for n in range(1001)]),
        "ranking.results: 1,001 given",
    ),
    "a candidate shown and blocked": (shown(blockedIds=["a"]), "ranking.results: has an id twice"),
    "a blocked candidate without an id": (shown(blockedIds=[""]), "ranking.blockedIds[0]: is empty"),
    "a candidate twice": (shown(results=[{"id": "a"}] * 2), "ranking.results: has an id twice"),
    "a candidate without an id": (shown(results=[{}]), "ranking.results[0].id: is empty"),
    "a fourth tier": (
        shown(results=[{"id": "a", "tier": 3}]),
        'ranking.results[0].tier: Expected "int" <= 2',
    ),
    "more than all": (shown(coverage=1.5), "ranking.coverage: 1.5 is outside 0 to 1"),
    "a time below none": (shown(timings={"totalMs": -1}), "ranking.timings.totalMs: -1 is negative"),
    "a reason unknown": (shown(degradedReason="TIRED"), 'ranking.degradedReason: "TIRED" is not a reason'),
    "no ranking id": (shown(rankingId=""), "ranking.rankingId: is empty"),
    "a long ranking id": (shown(rankingId="x" * 129), "ranking.rankingId: "),
    "a ranking in a year": (
        shown(createdAt="2024-12-31T23:59:59Z"),
        "ranking.createdAt: 2024-12-31T23:59:59Z is",
    ),
    "an end that is none": ('{"end":{"records":"1"}}', 'end.records: Expected "int", got "str"'),
    "an end too early": ('{"end":{"records":0,"sha256":""}}', "end.records: says 0, but 1 came"),
}


@pytest.mark.parametrize(("line", "says"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_told_by_its_number_field_and_limit(line: bytes | str, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(whole(GOOD, line))
    message = str(caught.value)
    assert message.startswith(("line 3: " if says[0] in 'ih"' else "line 3, ") + says)
    assert len(message) < 400
    assert message.isprintable()


def test_the_good_lines_of_these_tests_are_good() -> None:
    assert len(read(whole(GOOD, SHOWN, event(eventId="other")))) == 3


ENDS: dict[str, tuple[bytes, str]] = {
    "nothing at all": (b"", "line 1: the file ends without its last line"),
    "the first line alone": (HEADER, "line 2: the file ends without its last line"),
    "no end": (HEADER + GOOD.encode() + b"\n", "line 3: the file ends without its last line"),
    "half an end": (whole(GOOD)[:-20], "line 3: is not JSON: Unterminated string"),
    "a line less": (
        whole(GOOD, SHOWN).replace(SHOWN.encode() + b"\n", b""),
        "line 3, end.records: says 2, but 1 came",
    ),
    "a byte changed": (
        whole(GOOD).replace(b'"e1"', b'"e2"'),
        "line 3, end.sha256: is not that of the lines before",
    ),
    "something after it": (whole(GOOD) + GOOD.encode() + b"\n", "line 4: comes after the end"),
    "an empty line after it": (whole(GOOD) + b"\n", "line 4: comes after the end"),
    "no first line": (whole(GOOD)[len(HEADER) :], "line 1: is not the first of an export; that is"),
    "a newer version": (
        whole(GOOD).replace(b'"version":1', b'"version":2'),
        "line 1: version 2 is of a newer edge-reranker; this one reads 1; update it",
    ),
    "a version that never was": (
        whole(GOOD).replace(b'"version":1', b'"version":0'),
        "line 1: version 0 is of no",
    ),
    "a version of words": (
        whole(GOOD).replace(b'"version":1', b'"version":"1"'),
        'line 1, version: Expected "int"',
    ),
    "another format": (
        whole(GOOD).replace(b"edge-reranker-export", b"something"),
        "line 1: is not the first of",
    ),
    "more in the first line": (
        whole(GOOD).replace(b'"version":1', b'"version":1,"x":1'),
        "line 1: Object contains",
    ),
    "the first line again": (whole(HEADER.strip(), GOOD), "line 2: has 2 names; one is allowed"),
    "another program's file": (b"\x89PNG\r\n\x1a\n" + bytes(1000), "line 1: is not UTF-8"),
}


@pytest.mark.parametrize(("data", "says"), ENDS.values(), ids=ENDS)
def test_a_file_that_is_not_whole_or_not_ours_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(data)
    assert str(caught.value).startswith(says)


def test_the_last_line_break_may_be_missing() -> None:
    assert len(read(whole(GOOD)[:-1])) == 1


def test_a_line_without_end_is_refused_and_not_held() -> None:
    """Of 64 MiB without a line break, no more than a line's cap is ever in memory."""

    def endless() -> Iterator[bytes]:
        yield HEADER
        yield b'{"event":{"eventId":"'
        yield from (b"x" * 65_536 for _ in range(1024))

    reader = Lines(NOW_S)
    n_pieces = 0
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument, match=r"^line 2: is longer than 2,097,152 bytes"):  # noqa: PT012
            for piece in endless():
                n_pieces += 1
                list(reader.feed(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_pieces * 65_536 <= MAX_LINE_BYTES + 3 * 65_536
    assert peak < 3 * MAX_LINE_BYTES


def test_the_largest_event_and_ranking_fit_into_a_line() -> None:
    """Of what takes most bytes in JSON: a control character in an id takes six."""
    bad, wide = "\x01", "\U0001f600"
    attributes = {
        bad * 126 + f"{n:02}": wide * limits.MAX_ATTRIBUTE_VALUE for n in range(limits.MAX_ATTRIBUTES)
    }
    item = Item(
        bad * 256, wide * limits.MAX_TITLE, wide * limits.MAX_TEXT, (wide * limits.MAX_TAG,) * 64, attributes
    )
    event = Event(
        bad * 256, EventType.SEARCH, 1.6e9, item, wide * 512, 86_400.0, bad * 128, bad * 128, bad * 128
    )
    results = tuple(
        Result(f"{n:04}".translate({48 + d: d + 1 for d in range(8)}) + bad * 252, 2) for n in range(1000)
    )
    blocked = tuple(result.id for result in results[:500])
    shown = Ranking(bad * 128, results[500:], 1.0, blocked_ids=blocked)
    ranking = LoggedRanking(shown, bad * 128, bad * 128, 1.6e9)
    data = written(event, ranking)
    assert 1.5e6 < max(map(len, data.splitlines())) < MAX_LINE_BYTES
    assert read(data) == [event, ranking]


def test_chunks_are_whole_lines_of_at_most_a_mebibyte() -> None:
    long = Event("e", EventType.LIKE, 1.6e9, Item("i", text="x" * 4000))
    made = list(chunks([[long] * 700]))
    assert len(made) == 3
    assert all(chunk.endswith(b"\n") and len(chunk) <= MAX_CHUNK_BYTES for chunk in made[:-1])
