"""A small deterministic core: what stands behind the server, never what is under test."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edge_reranker.deadline import Deadline
from edge_reranker.errors import InvalidArgument, NotFound
from edge_reranker.types import (
    Event,
    Forgotten,
    Grant,
    LoggedRanking,
    Model,
    ModelState,
    Namespace,
    Ranking,
    Record,
    Recorded,
    RerankQuery,
    Result,
    Retention,
    RetentionStatus,
    Selector,
    Timings,
)

MODEL = Model("tiny", "ab" * 32, 1_234_567, "encoder", ModelState.READY, "Apache-2.0")


def order(query: RerankQuery, tier: int, *, final: bool = True) -> Ranking:
    """The candidates by title, then id, after ``tier``."""
    ordered = sorted(query.candidates, key=lambda each: (each.item.title, each.id))
    return Ranking(
        ranking_id="ranking-1",
        results=tuple(Result(each.id, tier) for each in ordered),
        coverage=1.0,
        timings=Timings(tier0_ms=1.0, total_ms=1.0),
        model="tiny",
        pack="test-pack",
        final=final,
    )


@dataclass
class FakeCore:
    """Keeps events by namespace in a list, sorts candidates by title, and can be slow or fail."""

    before: Callable[[Deadline], None] = lambda deadline: None
    seen: list[RerankQuery] = field(default_factory=list)
    deadlines: list[Deadline] = field(default_factory=list)
    stored: dict[str, list[Event]] = field(default_factory=dict)
    rules: dict[str, Retention] = field(default_factory=dict)
    names: set[str] = field(default_factory=lambda: {"default"})
    grants: set[Grant] = field(default_factory=set)
    forgets: list[tuple[str, Selector, bool]] = field(default_factory=list)
    logged: dict[str, list[LoggedRanking]] = field(default_factory=dict)
    imports: list[FakeImport] = field(default_factory=list)
    streams_closed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def rerank(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Ranking:
        self.seen.append(query)
        self.deadlines.append(deadline)
        self.before(deadline)
        return order(query, 1)

    def rerank_stream(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Iterator[Ranking]:
        try:
            for tier in (0, 1, 2):
                self.before(deadline)
                yield order(query, tier, final=tier == 2)
        finally:
            self.streams_closed += 1

    def record(self, namespace: str, events: Sequence[Event]) -> Recorded:
        self.before(Deadline())
        with self.lock:
            kept = self.stored.setdefault(namespace, [])
            before = len(kept)
            for event in events:
                if all(event.event_id != each.event_id for each in kept):
                    kept.append(event)
            new = len(kept) - before
            return Recorded(new, len(events) - new)

    def events(self, namespace: str, limit: int, page_token: str) -> tuple[list[Event], str]:
        self.before(Deadline())
        if page_token and not page_token.isdigit():
            raise InvalidArgument("page_token", "is none of ours")
        start = int(page_token or 0)
        newest = sorted(self.stored.get(namespace, []), key=lambda event: -event.occurred_at)
        more = start + limit < len(newest)
        return newest[start : start + limit], str(start + limit) if more else ""

    def forget(self, namespace: str, selector: Selector, *, dry_run: bool = False) -> Forgotten:
        self.before(Deadline())
        self.forgets.append((namespace, selector, dry_run))
        kept = self.stored.get(namespace, [])
        gone = [
            event
            for event in kept
            if selector.everything
            or selector.all_namespaces
            or event.event_id == selector.event_id
            or (event.item is not None and event.item.id == selector.item_id)
        ]
        if not dry_run:
            self.stored[namespace] = [event for event in kept if event not in gone]
        return Forgotten(len(gone), len(gone), remaining_digest="ab" * 32)

    def retention(self, namespace: str) -> RetentionStatus:
        self.before(Deadline())
        return RetentionStatus(self.rules.get(namespace, Retention()), 1.7e9)

    def set_retention(self, namespace: str, rule: Retention) -> None:
        self.before(Deadline())
        self.rules[namespace] = rule

    def export(self, namespace: str) -> Iterator[list[Record]]:
        self.before(Deadline())
        yield from ([event] for event in self.stored.get(namespace, []))
        yield from ([logged] for logged in self.logged.get(namespace, []))

    def importing(self, namespace: str) -> FakeImport:
        return FakeImport(self, namespace)

    pack_id = "films-1"

    def namespaces(self) -> Sequence[Namespace]:
        self.before(Deadline())
        return [
            Namespace(
                name,
                len(self.stored.get(name, [])),
                tuple(each for each in sorted(self.grants, key=repr) if each.reader == name),
            )
            for name in sorted(self.names)
        ]

    def namespace_names(self) -> Sequence[str]:
        return sorted(self.names)

    def require_namespace(self, name: str) -> None:
        if name not in self.names:
            raise NotFound(f"{name!r} is not there")

    def create_namespace(self, name: str) -> None:
        self.names.add(name)

    def begin_deletion(self, name: str) -> None:
        self.names.discard(name)

    def delete_namespace(self, name: str) -> Forgotten:
        self.before(Deadline())
        return self.forget(name, Selector(everything=True))

    def grant(self, source: str, reader: str) -> Grant:
        for name in (source, reader):
            self.require_namespace(name)
        made = Grant(source, reader, 1.5e9)
        self.grants.add(made)
        return made

    def revoke(self, source: str, reader: str) -> None:
        self.grants.discard(Grant(source, reader, 1.5e9))

    def models(self) -> Sequence[Model]:
        self.before(Deadline())
        return [MODEL]

    def load_model(self, name: str, deadline: Deadline) -> Model:
        self.deadlines.append(deadline)
        self.before(deadline)
        if name != MODEL.name:
            raise NotFound(f"{name!r} is not there")
        return dataclasses.replace(MODEL, tokens_per_s=123.5)

    def warmup(self, deadline: Deadline) -> bool:
        self.deadlines.append(deadline)
        self.before(deadline)
        return True


class FakeImport:
    """Keeps what it is given in a list until it is finished."""

    def __init__(self, core: FakeCore, namespace: str) -> None:
        self.core, self.namespace = core, namespace
        self.kept: list[Record] = []
        self.closed = False
        core.imports.append(self)

    def add(self, line: int, record: Record) -> None:
        self.core.before(Deadline())
        self.kept.append(record)

    def finish(self) -> Recorded:
        self.core.before(Deadline())
        logged = [each for each in self.kept if isinstance(each, LoggedRanking)]
        self.core.logged.setdefault(self.namespace, []).extend(logged)
        return self.core.record(self.namespace, [each for each in self.kept if isinstance(each, Event)])

    def close(self) -> None:
        self.closed = True


def until_deadline(deadline: Deadline) -> None:
    """Works as long as it may, as a tier that always finds more to do."""
    time.sleep(deadline.remaining_s() or 0.0)
