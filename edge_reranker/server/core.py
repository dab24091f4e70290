"""What the server needs behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from edge_reranker.deadline import Deadline
from edge_reranker.types import (
    Event,
    Forgotten,
    Grant,
    Model,
    Namespace,
    Ranking,
    Record,
    Recorded,
    RerankQuery,
    Retention,
    RetentionStatus,
    Selector,
)


class Import(Protocol):
    """One import that is under way; for one thread at a time."""

    def add(self, line: int, record: Record) -> None:
        """Puts aside what stood in a line; raises InvalidArgument for an id that was there before."""
        ...

    def finish(self) -> Recorded:
        """Takes in all of it, durably, or nothing."""
        ...

    def close(self) -> None:
        """Leaves nothing behind. Idempotent."""
        ...


class Core(Protocol):
    """The service without its network side.

    Every method is synchronous, may be called from several threads at once, and returns or raises soon
    after its deadline. Errors are those of ``edge_reranker.errors``.
    """

    def rerank(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Ranking:
        """A complete order of the candidates, by the deadline even if that has passed already."""
        ...

    def rerank_stream(self, namespace: str, query: RerankQuery, deadline: Deadline) -> Iterator[Ranking]:
        """Complete orders, each at least as well informed as the one before; the last has ``final``."""
        ...

    def record(self, namespace: str, events: Sequence[Event]) -> Recorded:
        """Stores all events or none; returns once they are durable. Idempotent by event id."""
        ...

    def events(self, namespace: str, limit: int, page_token: str) -> tuple[list[Event], str]:
        """A page of events, newest first, and the next page's token ("" after the last)."""
        ...

    def forget(self, namespace: str, selector: Selector, *, dry_run: bool = False) -> Forgotten:
        """Removes what is selected, or only says what would go; the receipt. Idempotent."""
        ...

    def retention(self, namespace: str) -> RetentionStatus:
        """How long the namespace's events are kept."""
        ...

    def set_retention(self, namespace: str, rule: Retention) -> None:
        """Changes that, durably, and begins to remove what the rule does not keep. Idempotent."""
        ...

    def namespaces(self) -> Sequence[Namespace]:
        """The namespaces there are, by name; the default one is always among them."""
        ...

    def namespace_names(self) -> Sequence[str]:
        """The same without a look at what is in them."""
        ...

    def require_namespace(self, name: str) -> None:
        """Raises NotFound unless there is such a namespace."""
        ...

    def create_namespace(self, name: str) -> None:
        """Makes a namespace, or leaves it as it is."""
        ...

    def begin_deletion(self, name: str) -> None:
        """From here on the namespace counts as gone, also after a crash, and takes no more events."""
        ...

    def delete_namespace(self, name: str) -> Forgotten:
        """Forgets everything in a namespace, and the namespace. Idempotent."""
        ...

    def grant(self, source: str, reader: str) -> Grant:
        """Lets the reader's rankings go by the source's events; the grant that holds then."""
        ...

    def revoke(self, source: str, reader: str) -> None:
        """Ends a grant, and forgets what was derived by it. Idempotent."""
        ...

    def export(self, namespace: str) -> Iterator[Sequence[Record]]:
        """All that cannot be made again, page by page; raises StoreBusy at its end when that is void."""
        ...

    def importing(self, namespace: str) -> Import:
        """Begins an import; nothing of it is seen before it is finished."""
        ...

    def models(self) -> Sequence[Model]:
        """The models on this device."""
        ...

    @property
    def pack_id(self) -> str:
        """The pack in use; empty when none can be used."""
        ...

    def load_model(self, name: str, deadline: Deadline) -> Model:
        """Swaps the model behind a self-test, which ends by the deadline; calls under way go on."""
        ...

    def warmup(self, deadline: Deadline) -> bool:
        """Makes the next request fast; whether the model answers. Idempotent."""
        ...
