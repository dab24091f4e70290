"""Reading out all of a namespace that cannot be made again, page by page, as it was at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from edge_reranker.errors import StoreBusy
from edge_reranker.store import choices, events, muted, rankings
from edge_reranker.store.readers import Read
from edge_reranker.types import Event, MutedTopic, Record

_PAGE_EVENTS = 500
# Of texts: a page of large events has fewer.
_PAGE_BYTES = 512 * 1024
# Of one to three kilobytes each.
_PAGE_CHOICES = 200

# By arrival, which tells events of one moment apart. The index by time would need a sort of all rows.
_EVENTS = (
    f"SELECT e.seq, {events.COLUMNS} FROM events AS e NOT INDEXED LEFT JOIN items AS i ON i.id = e.item "  # noqa: S608
    "WHERE e.namespace = ? AND e.seq > ? AND e.seq <= ? ORDER BY e.seq LIMIT ?"
)


def pages(read: Read, namespace: str) -> Iterator[Sequence[Record]]:
    """Events as they arrived, rankings, the newest first, choices as they arrived, then muted topics.

    Each page is a read of its own, so that no reader, however slow, keeps the log from being folded in, nor a
    forget from emptying it. It comes to one snapshot all the same, because rows are never changed: what
    arrives later has higher numbers and is left out, and if anything was removed, the end raises StoreBusy.
    """
    start = read(lambda db: _begin(db, namespace))
    last, n_events = 0, 0
    while last < start.last_event:
        found = read(lambda db, after=last: _event_page(db, namespace, after, start.last_event))  # type: ignore[misc]
        if not found:
            break
        last, n_events = found[-1][0], n_events + len(found)
        yield [event for _, event in found]
    given: set[int] = set()
    for rowid in start.rankings:
        logged = read(lambda db, rowid=rowid: rankings.at(db, namespace, rowid))  # type: ignore[misc]
        if logged is not None:
            given.add(rowid)
            yield [logged]
    chosen: set[int] = set()
    for first in range(0, len(start.choices), _PAGE_CHOICES):
        seqs = start.choices[first : first + _PAGE_CHOICES]
        page = read(lambda db, seqs=seqs: choices.logged(db, namespace, seqs))  # type: ignore[misc]
        chosen.update(seq for seq, _ in page)
        yield [choice for _, choice in page]
    yield [MutedTopic(topic) for topic in start.muted]
    if n_events != start.n_events or not read(lambda db: _unchanged(db, namespace, start, given, chosen)):
        raise StoreBusy("something was forgotten while it was exported; export again")


@dataclass(frozen=True, slots=True)
class _Start:
    last_event: int
    n_events: int
    rankings: tuple[int, ...]
    choices: tuple[int, ...]
    muted: tuple[str, ...]


def _begin(db: Database, namespace: str) -> _Start:
    row = db.conn.execute(
        "SELECT seq FROM events NOT INDEXED WHERE namespace = ? ORDER BY seq DESC LIMIT 1", (namespace,)
    ).fetchone()
    last = int(row[0]) if row else 0
    return _Start(
        last,
        _count(db, namespace, last),
        tuple(rankings.places(db, namespace)),
        tuple(choices.places(db, namespace)),
        muted.topics(db, namespace),
    )


def _event_page(db: Database, namespace: str, after: int, last: int) -> list[tuple[int, Event]]:
    found: list[tuple[int, Event]] = []
    size_bytes = 0
    for row in db.conn.execute(_EVENTS, (namespace, after, last, _PAGE_EVENTS)):
        found.append((row[0], events.decode(row[1:])))
        size_bytes += sum(len(value.encode()) for value in row if isinstance(value, str))
        if size_bytes > _PAGE_BYTES:
            break
    return found


def _unchanged(db: Database, namespace: str, start: _Start, given: set[int], chosen: set[int]) -> bool:
    """Whether all that was there at the start was given and is still there.

    The oldest rankings and choices go by themselves, at any time: of those, any number may be missing.
    """
    left = rankings.places(db, namespace)
    kept_from = rankings.oldest_kept(left)
    must = {rowid for rowid in start.rankings if rowid >= kept_from}
    if not (must <= given and must <= set(left)):
        return False
    left = choices.places(db, namespace)
    kept_from = choices.oldest_kept(left)
    must = {seq for seq in start.choices if seq >= kept_from}
    if not (must <= chosen and must <= set(left)):
        return False
    topics = set(start.muted) <= set(muted.topics(db, namespace))
    return topics and _count(db, namespace, start.last_event) == start.n_events


def _count(db: Database, namespace: str, last: int) -> int:
    sql = "SELECT count(*) FROM events WHERE namespace = ? AND seq <= ?"
    return int(db.conn.execute(sql, (namespace, last)).fetchone()[0])
