"""The export's format: JSON lines, one record each, in the JSON mapping of the protos.

First ``{"format":"edge-reranker-export","version":1}``, then ``{"event":{...}}``, ``{"ranking":{...}}``,
``{"choice":{...}}`` and ``{"muted":{...}}``, last ``{"end":{"records":2,"sha256":"..."}}`` with the number of
records and the SHA-256 of all bytes before that line. One record has one form: names in the order below, no
name without need, no space, the shortest form of a number, text as UTF-8.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from edge_reranker.types import Event, LoggedChoice, MutedTopic, Record

FORMAT: Final = "edge-reranker-export"
VERSION: Final = 1
MAX_CHUNK_BYTES: Final = 1024 * 1024

_Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]

# msgspec leaves a number out if it is this very object, and equal ones are not.
_ZERO: Final = 0.0


class Line(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What an object in a line has; a name that has its default is left out, as protos do."""


class ItemLine(Line):
    """An item."""

    id: str = ""
    title: str = ""
    text: str = ""
    tags: list[str] = []
    attributes: dict[str, str] = {}


class EventLine(Line):
    """``{"event": ...}``; its time as RFC 3339."""

    event_id: str = ""
    type: str = ""
    item: ItemLine | None = None
    query: str = ""
    dwell_s: float = _ZERO
    occurred_at: str = ""
    surface: str = ""
    session_id: str = ""
    ranking_id: str = ""
    position: _Uint32 | None = None
    context: dict[str, str] = {}


class ResultLine(Line):
    """A candidate at its place."""

    id: str = ""
    tier: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0


class TimingsLine(Line):
    """Milliseconds by stage."""

    queue_ms: float = _ZERO
    context_ms: float = _ZERO
    tier0_ms: float = _ZERO
    tier1_ms: float = _ZERO
    tier2_ms: float = _ZERO
    fusion_ms: float = _ZERO
    total_ms: float = _ZERO


class RankingLine(Line):
    """``{"ranking": ...}``: what was answered, and when and where it was asked for."""

    ranking_id: str = ""
    results: list[ResultLine] = []
    coverage: float = _ZERO
    degraded_reason: str = ""
    timings: TimingsLine = msgspec.field(default_factory=TimingsLine)
    model: str = ""
    pack: str = ""
    final: bool = False
    created_at: str = ""
    surface: str = ""
    session_id: str = ""
    blocked_ids: list[str] = []


class ChoiceLine(Line):
    """``{"choice": ...}``: what learning takes from an event that came before; its body in base64."""

    event_id: str = ""
    body: bytes = b""
    newest_event_id: str = ""
    sources: list[str] = []


class MutedLine(Line):
    """``{"muted": ...}``."""

    topic: str = ""


class HeaderLine(Line):
    """The first line."""

    format: str = ""
    version: int = 0


class EndLine(Line):
    """``{"end": ...}``, the last line."""

    records: int = 0
    sha256: str = ""


def chunks(pages: Iterable[Sequence[Record]]) -> Iterator[bytes]:
    """The records as an export: whole lines, at most 1 MiB a chunk unless one line is longer."""
    encode = msgspec.json.Encoder().encode
    digest = hashlib.sha256()
    n_records = 0
    ready: list[bytes] = [encode({"format": FORMAT, "version": VERSION}), b"\n"]
    size_bytes = len(ready[0]) + 1
    for page in pages:
        for record in page:
            line = encode(_written(record))
            n_records += 1
            if size_bytes + len(line) >= MAX_CHUNK_BYTES:
                chunk = b"".join(ready)
                digest.update(chunk)
                yield chunk
                ready, size_bytes = [], 0
            ready += (line, b"\n")
            size_bytes += len(line) + 1
    chunk = b"".join(ready)
    digest.update(chunk)
    yield chunk + encode({"end": EndLine(n_records, digest.hexdigest())}) + b"\n"


def _written(record: Record) -> dict[str, Line]:
    if isinstance(record, Event):
        return {"event": _written_event(record)}
    if isinstance(record, LoggedChoice):
        choice = (record.event_id, record.body, record.newest_event_id, list(record.sources))
        return {"choice": ChoiceLine(*choice)}
    if isinstance(record, MutedTopic):
        return {"muted": MutedLine(record.topic)}
    ranking = record.ranking
    reason = ranking.degraded_reason
    return {
        "ranking": RankingLine(
            ranking.ranking_id,
            [ResultLine(result.id, result.tier) for result in ranking.results],
            ranking.coverage or _ZERO,
            f"DEGRADED_REASON_{reason.name}" if reason else "",
            TimingsLine(*(getattr(ranking.timings, name) or _ZERO for name in TimingsLine.__struct_fields__)),
            ranking.model,
            ranking.pack,
            ranking.final,
            _moment(record.created_at),
            record.surface,
            record.session_id,
            list(ranking.blocked_ids),
        )
    }


def _written_event(event: Event) -> EventLine:
    item = event.item
    return EventLine(
        event.event_id,
        f"EVENT_TYPE_{event.type.name}",
        None
        if item is None
        else ItemLine(item.id, item.title, item.text, list(item.tags), dict(sorted(item.attributes.items()))),
        event.query,
        event.dwell_s or _ZERO,
        _moment(event.occurred_at),
        event.surface,
        event.session_id,
        event.ranking_id,
        event.position,
        dict(sorted(event.context.items())),
    )


def _moment(at_s: float) -> str:
    """RFC 3339 to the nanosecond: nearer than two floats are, so that the same float comes back."""
    seconds = math.floor(at_s)
    nanos = round((at_s - seconds) * 1e9)
    return Timestamp(seconds=seconds + nanos // 1_000_000_000, nanos=nanos % 1_000_000_000).ToJsonString()
