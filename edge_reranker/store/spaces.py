"""Which namespaces take events, and who goes by whose: in memory, as the database has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlite_utils import Database

from edge_reranker.errors import InvalidArgument, NotFound
from edge_reranker.store import namespaces
from edge_reranker.store.writer import Writer
from edge_reranker.types import Grant


class Spaces:
    """Changes namespaces and grants, and knows them without I/O. Thread-safe.

    What it knows it takes over in the writer's thread; ``renew`` hears whose rankings go by others then.
    """

    def __init__(
        self, writer: Writer, renew: Callable[[Iterable[str]], None], grants: Iterable[Grant]
    ) -> None:
        self._writer = writer
        self._renew = renew
        self._grants = tuple(grants)
        self._closed: set[str] = set()

    def create(self, name: str) -> None:
        """See ``Store.create_namespace``."""
        self._writer.submit(lambda db: namespaces.create(db, name), lambda _: self._closed.discard(name))

    def close(self, name: str) -> None:
        """See ``Store.begin_deletion``."""

        def run(db: Database) -> None:
            namespaces.mark(db, name)
            # In the writer, so that no batch lands behind it.
            self._closed.add(name)

        try:
            self._writer.submit(run)
        except BaseException:
            self._closed.discard(name)
            raise

    def require_open(self, name: str) -> None:
        """Raises NotFound for a namespace that is being deleted."""
        if name in self._closed:
            raise NotFound(f'"{name}" was deleted meanwhile; nothing of the batch was stored')

    def sources(self, reader: str) -> tuple[str, ...]:
        """The namespaces whose events the reader goes by, besides its own."""
        return tuple(each.source for each in self._grants if each.reader == reader)

    def readers(self, source: str) -> tuple[str, ...]:
        """The namespaces that go by the source's events."""
        return tuple(each.reader for each in self._grants if each.source == source)

    def grant(self, wanted: Grant) -> Grant:
        """See ``Store.grant``."""
        if wanted.source == wanted.reader:
            raise InvalidArgument("reader", "is the source itself, which goes by its events anyway")
        return self._writer.submit(
            lambda db: namespaces.grant(db, wanted), lambda made: self.regrant({*self._grants, made})
        )

    def revoked(self, source: str, reader: str) -> None:
        """Take in that a grant has ended."""
        self.regrant(each for each in self._grants if (each.source, each.reader) != (source, reader))

    def regrant(self, grants: Iterable[Grant]) -> None:
        """Take over the grants as they are stored now."""
        now = set(grants)
        changed = {each.reader for each in now ^ set(self._grants)}
        self._grants = tuple(sorted(now, key=lambda each: (each.reader, each.source)))
        self._renew(changed)
