"""Pages of events at their caps, over a channel with gRPC's own limits, from a real store."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from edge_reranker.v1 import context_service_pb2 as pb
from edge_reranker.v1 import context_service_pb2_grpc
from edge_reranker_client import EdgeReranker, Event, Item, discovery

WIDE = "\U0001d11e"  # four bytes


@pytest.fixture
def recorded(service: subprocess.Popen[str], data_dir: Path) -> Iterator[list[str]]:
    """Event ids, newest first: items with every field at its cap, long texts, and short ones."""
    tags, attributes = [WIDE * 128] * 64, {f"{n:0>128}": WIDE * 512 for n in range(64)}
    items = [Item("a", WIDE * 512, WIDE * 4_096, tags, attributes) for _ in range(40)]
    items += [Item("b", "short", WIDE * 4_096) for _ in range(300)] + [Item("c") for _ in range(600)]
    events = [Event("LIKE", item, event_id=f"e{n}", occurred_at=1e9 + n) for n, item in enumerate(items)]
    with EdgeReranker(data_dir=data_dir) as client:
        client.record(events)
        yield [event.event_id for event in reversed(events)]


def test_a_page_of_big_events_fits_into_a_message_of_grpcs_own_limit(
    recorded: list[str], data_dir: Path
) -> None:
    metadata = (("authorization", f"Bearer {discovery.token_path(data_dir, 'app').read_text().strip()}"),)
    pages = []
    token = ""
    with grpc.insecure_channel(f"unix:{discovery.socket_path(data_dir)}") as channel:
        stub = context_service_pb2_grpc.ContextServiceStub(channel)
        while not pages or token:
            request = pb.ListEventsRequest(page_size=1_000, page_token=token)
            pages.append(stub.ListEvents(request, metadata=metadata, timeout=20))
            token = pages[-1].next_page_token
    assert [event.event_id for page in pages for event in page.events] == recorded
    assert len(pages[0].events) > 600, "what is small comes in one page"
    assert all(page.ByteSize() > 2 << 20 for page in pages[:-1]), "and no page is needlessly small"
