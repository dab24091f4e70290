"""An export read line by line: every check, before anything is kept. Nothing behind this checks again."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks, convert, limits
from edge_reranker.server.lines import (
    FORMAT,
    VERSION,
    ChoiceLine,
    EndLine,
    EventLine,
    HeaderLine,
    MutedLine,
    RankingLine,
    TimingsLine,
)
from edge_reranker.types import (
    DegradedReason,
    Event,
    EventType,
    LoggedChoice,
    LoggedRanking,
    MutedTopic,
    Ranking,
    Record,
    Result,
    Timings,
)
from edge_reranker.v1 import types_pb2

MAX_LINE_BYTES: Final = 2 * 1024 * 1024
"""An event takes 0.3 MiB with every field at its cap, a ranking of 1,000 ids of 256 bytes 1.6 MiB."""


_KINDS = "event, ranking, choice, muted"


@contextlib.contextmanager
def in_line(number: int) -> Iterator[None]:
    """Makes an InvalidArgument of the block begin with the line, and name the field as the file does."""
    try:
        yield
    except InvalidArgument as error:
        field = re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), error.field)
        raise InvalidArgument(f"line {number:,}{', ' if field else ''}{field}", error.problem) from None


class Lines:
    """Takes an export in, in pieces cut anywhere, and gives the records with their line numbers.

    Every error is an InvalidArgument that begins with the line. No more than one line is held.
    """

    def __init__(self, now_s: float) -> None:
        """``now_s`` (seconds since 1970) is what events may not be long after."""
        self._now_s = now_s
        self._rest = bytearray()
        self._line = 0
        self._n_records = 0
        self._digest = hashlib.sha256()
        self._ended = False

    def feed(self, chunk: bytes) -> Iterator[tuple[int, Record]]:
        """The records of the lines that end in ``chunk``."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._hold(memoryview(chunk)[start:end])
            record = self._taken()
            start = end + 1
            if record is not None:
                yield self._line, record
        self._hold(memoryview(chunk)[start:])

    def finish(self) -> None:
        """Says that no more comes. Raises InvalidArgument unless the end was there."""
        if self._rest:
            self._taken()
        if not self._ended:
            problem = 'the file ends without its last line, {"end": ...}: it was cut off; export again'
            raise InvalidArgument(f"line {self._line + 1:,}", problem)

    def _hold(self, piece: memoryview) -> None:
        if len(self._rest) + len(piece) > MAX_LINE_BYTES:
            problem = f"is longer than {MAX_LINE_BYTES:,} bytes, the most that a line may have"
            raise InvalidArgument(f"line {self._line + 1:,}", problem)
        self._rest += piece

    def _taken(self) -> Record | None:
        line, self._rest = bytes(self._rest), bytearray()
        self._line += 1
        with in_line(self._line):
            return self._read(line)

    def _read(self, line: bytes) -> Record | None:
        if self._ended:
            _refuse("comes after the end; nothing may follow it")
        value = _parsed(line)
        if self._line == 1:
            _check_header(value)
        elif len(value) != 1:
            _refuse(f"has {len(value):,} names; one is allowed: {_KINDS} or end")
        else:
            ((kind, body),) = value.items()
            if kind == "event":
                record: Record = _event(_shaped(kind, body, EventLine), self._now_s)
            elif kind == "ranking":
                record = _ranking(_shaped(kind, body, RankingLine), self._now_s)
            elif kind == "choice":
                record = _choice(_shaped(kind, body, ChoiceLine))
            elif kind == "muted":
                record = _muted(_shaped(kind, body, MutedLine))
            elif kind == "end":
                self._end(_shaped(kind, body, EndLine))
                return None
            else:
                known = f"{_KINDS} and end are what this version knows"
                _refuse(f'"{checks.echo(kind)}" is no kind of record; {known}')
            self._n_records += 1
        self._digest.update(line + b"\n")
        return record if self._line > 1 else None

    def _end(self, end: EndLine) -> None:
        self._ended = True
        if end.records != self._n_records:
            raise InvalidArgument(
                "end.records", f"says {end.records:,}, but {self._n_records:,} came: the file was changed"
            )
        if end.sha256 != self._digest.hexdigest():
            raise InvalidArgument("end.sha256", "is not that of the lines before: the file was changed")


def _refuse(problem: str) -> NoReturn:
    raise InvalidArgument("", problem)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        _refuse(f"is not UTF-8: {error.reason} at byte {error.start:,}")
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        _refuse("is nested too deeply; a record has four levels at most")
    except UnicodeEncodeError:
        _refuse("has a lone surrogate in a text; valid Unicode is allowed")
    except json.JSONDecodeError as error:
        _refuse(f"is not JSON: {error.msg} at character {error.pos:,}")
    except ValueError:  # Python's own, for a number of thousands of digits
        _refuse("has a number that is too long")
    if not isinstance(value, dict):
        _refuse("is not a JSON object")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                _refuse(f'has the name "{checks.echo(name)}" twice in one object; once is allowed')
            seen.add(name)
    return value


def _no_constant(name: str) -> NoReturn:
    _refuse(f"has {name}, which is not JSON; numbers are finite")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)


def _check_header(value: dict[str, Any]) -> None:
    if value.get("format") != FORMAT:
        _refuse(f'is not the first of an export; that is {{"format":"{FORMAT}","version":{VERSION}}}')
    version = _shaped("", value, HeaderLine).version
    if version != VERSION:
        age = "a newer" if version > VERSION else "no known"
        wayout = "update it" if version > VERSION else "export again"
        _refuse(f"version {version} is of {age} edge-reranker; this one reads {VERSION}; {wayout}")


_WHERE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)


def _shaped(kind: str, value: object, shape: type[Any]) -> Any:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        found = _WHERE.fullmatch(str(error))
        problem, path = found.groups() if found else (str(error), "")
        problem = checks.echo(problem.replace("`", '"'), 160)
        path = checks.echo(".".join(filter(None, (kind, path))))
        raise InvalidArgument(path, problem) from None


def _event(shape: EventLine, now_s: float) -> Event:
    message = types_pb2.Event(
        event_id=shape.event_id,
        query=shape.query,
        dwell_s=shape.dwell_s,
        surface=shape.surface,
        session_id=shape.session_id,
        ranking_id=shape.ranking_id,
        position=shape.position,
        context=shape.context,
    )
    kind = _EVENT_TYPES.get(shape.type)
    if kind is None:
        raise InvalidArgument("event.type", f'"{checks.echo(shape.type)}" is not a type; see EventType')
    message.type = kind  # type: ignore[assignment]  # open enum: a number is fine
    if shape.item is not None:
        item = shape.item
        message.item.CopyFrom(
            types_pb2.Item(
                id=item.id, title=item.title, text=item.text, tags=item.tags, attributes=item.attributes
            )
        )
    message.occurred_at.CopyFrom(_timestamp("event.occurred_at", shape.occurred_at))
    try:
        return convert.event(message, now_s)
    except InvalidArgument as error:
        raise checks.inside("event", error) from None


_EVENT_TYPES = {f"EVENT_TYPE_{kind.name}": int(kind) for kind in EventType if kind}
_REASONS = {f"DEGRADED_REASON_{reason.name}": reason for reason in DegradedReason if reason}
_REASONS[""] = DegradedReason.UNSPECIFIED


def _ranking(shape: RankingLine, now_s: float) -> LoggedRanking:
    if shape.degraded_reason not in _REASONS:
        problem = f'"{checks.echo(shape.degraded_reason)}" is not a reason; see DegradedReason'
        raise InvalidArgument("ranking.degraded_reason", problem)
    n = len(shape.results) + len(shape.blocked_ids)
    if not 1 <= n <= limits.MAX_CANDIDATES:
        raise InvalidArgument("ranking.results", f"{n:,} given; 1 to {limits.MAX_CANDIDATES:,} are allowed")
    ids = [checks.identifier(f"ranking.results[{i}].id", result.id) for i, result in enumerate(shape.results)]
    ids += [checks.identifier(f"ranking.blocked_ids[{i}]", id_) for i, id_ in enumerate(shape.blocked_ids)]
    if len(set(ids)) != n:
        raise InvalidArgument("ranking.results", "has an id twice; ids must be unique")
    timings = [
        checks.not_negative(f"ranking.timings.{name}", getattr(shape.timings, name))
        for name in TimingsLine.__struct_fields__
    ]
    if not 0 <= shape.coverage <= 1:
        raise InvalidArgument("ranking.coverage", f"{shape.coverage:g} is outside 0 to 1")
    checks.identifier("ranking.ranking_id", shape.ranking_id)
    names = ("ranking_id", "model", "pack", "surface", "session_id")
    ranking_id, model, pack, surface, session_id = (
        checks.name(f"ranking.{name}", getattr(shape, name)) for name in names
    )
    created_at = _timestamp("ranking.created_at", shape.created_at)
    return LoggedRanking(
        Ranking(
            ranking_id,
            tuple(Result(result.id, result.tier) for result in shape.results),
            shape.coverage,
            _REASONS[shape.degraded_reason],
            Timings(*timings),
            model,
            pack,
            shape.final,
            blocked_ids=tuple(shape.blocked_ids),
        ),
        surface,
        session_id,
        convert.moment("ranking.created_at", created_at, now_s),
    )


def _choice(shape: ChoiceLine) -> LoggedChoice:
    checks.identifier("choice.event_id", shape.event_id)
    if shape.newest_event_id:
        checks.identifier("choice.newest_event_id", shape.newest_event_id)
    size = len(shape.body)
    if not 1 <= size <= limits.MAX_CHOICE_BYTES:
        problem = f"has {size:,} bytes; 1 to {limits.MAX_CHOICE_BYTES:,} are allowed"
        raise InvalidArgument("choice.body", problem)
    sources = [checks.namespace(f"choice.sources[{i}]", name) for i, name in enumerate(shape.sources)]
    return LoggedChoice(shape.event_id, shape.body, shape.newest_event_id, tuple(sources))


def _muted(shape: MutedLine) -> MutedTopic:
    topic = shape.topic
    if not 1 <= len(topic) <= limits.MAX_TOPIC:
        problem = f"has {len(topic):,} characters; 1 to {limits.MAX_TOPIC} are allowed"
        raise InvalidArgument("muted.topic", problem)
    if topic != topic.casefold():
        problem = f'"{checks.echo(topic)}" is not casefolded: "{checks.echo(topic.casefold())}" is'
        raise InvalidArgument("muted.topic", problem)
    return MutedTopic(topic)


_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1)


def _timestamp(path: str, text: str) -> Timestamp:
    found = _RFC_3339.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        since = datetime.datetime.fromisoformat(found[1]) - _EPOCH
    except ValueError:
        problem = f'"{checks.echo(text)}" is no time; such as "2026-01-31T12:00:00.5Z" is allowed'
        raise InvalidArgument(path, problem if text else "is not set; an export dates everything") from None
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=int((found[2] or "0").ljust(9, "0")))
