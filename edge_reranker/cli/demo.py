"""``demo``: the whole service on one real user, from an empty folder to a better order."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_reranker import interrupts
from edge_reranker.cli import options
from edge_reranker.cli.model import say
from edge_reranker.config import Config
from edge_reranker.errors import EngineError, NotFound
from edge_reranker.models import ModelCache, pull_dataset
from edge_reranker.models.catalogue import DATASETS, find
from edge_reranker.types import Candidate, EventType, Item
from edge_reranker_client import Candidate as SentCandidate
from edge_reranker_client import EdgeReranker, Event, Ranking
from edge_reranker_client import Item as SentItem

if TYPE_CHECKING:
    from edge_reranker.evaluation.log import Log
    from edge_reranker.evaluation.protocol import Cut

_POOL = 50
_SHOWN = 10
_REASONS = 3
_START_S = 60.0


@click.command()
@options.cache_dir
@click.option("--user", help="MovieLens user; default: the first unseen one with three hits in the list.")
@click.option("--model", help='"none" shows the tiers that need no model.')
def demo(user: str | None, **flags: Any) -> None:
    """Pull model and data, serve, record a real user's history, rerank a popularity server's top 50.

    \b
    Example:
      edge-reranker demo
    """
    from edge_reranker.engine.quantiser import derive
    from edge_reranker.evaluation import movielens

    config = options.load_config(flags)
    if config.model != "none":
        ModelCache(config.cache_dir).pull(config.model, derive, say)
    data = movielens.load(pull_dataset(config.cache_dir, find(DATASETS, "movielens-100k"), say))
    cut, candidates = _choose(data, user)
    with (
        tempfile.TemporaryDirectory(prefix="edge-reranker-") as folder,
        service(config, Path(folder)) as client,
    ):
        _show(client, data, cut, candidates)
    click.echo("\nNext: `edge-reranker serve`, then the Python example in the README.")


def _choose(data: Log, user: str | None) -> tuple[Cut, tuple[Candidate, ...]]:
    """An unseen later user after 20 events, and what a server that does not know them proposes."""
    from edge_reranker.evaluation.protocol import split
    from edge_reranker.evaluation.servers import PopularityServer

    parts = split(data)
    server = PopularityServer(
        (each for past in parts.head.values() for each in past), {item.id: item for item in data.items}
    )
    for cut in parts.test:
        if cut.n_events != 20 or (user is not None and cut.user_id != user):
            continue
        candidates = server.candidates(cut.history, {each.item_id for each in cut.history}, _POOL)
        hits = {candidate.id for candidate in candidates} & set(cut.targets)
        if user is not None or len(hits) >= 3:
            return cut, candidates
    raise NotFound(f"user {user!r} is not among the unseen later users with 20 events and likes after them")


@contextlib.contextmanager
def service(config: Config, folder: Path, *, stderr: int | None = None) -> Iterator[EdgeReranker]:
    """A service of its own process on the data directory ``folder``, and an owner's client of it."""
    command = [
        *(sys.executable, "-m", "edge_reranker.cli", "serve", "--model", config.model),
        *("--data-dir", str(folder), "--cache-dir", str(config.cache_dir), "--key-source", "file"),
        *("--socket", str(folder / "s.sock")),
    ]
    process = None
    try:
        with interrupts.held():  # else a service could run on, known to nobody
            process = subprocess.Popen(command, stderr=stderr)
        with EdgeReranker(socket=folder / "s.sock", data_dir=folder, owner=True) as client:
            until = time.monotonic() + _START_S
            while not client.healthy(timeout_s=1.0):
                if process.poll() is not None or time.monotonic() > until:
                    raise EngineError("the service did not start; its own message is above")
                time.sleep(0.05)
            yield client
    finally:
        if process is not None:
            process.terminate()
            process.wait(timeout=30)


def _show(client: EdgeReranker, data: Log, cut: Cut, candidates: Sequence[Candidate]) -> None:
    items = {item.id: item for item in data.items}
    client.record(
        Event(
            type=each.type.name,
            item=_sent_item(items[each.item_id]),
            event_id=f"{each.user_id}-{each.item_id}",
            occurred_at=each.at_s,
        )
        for each in cut.history
    )
    click.echo(
        f"\nUser {cut.user_id} of MovieLens-100K, whom neither server nor model has seen. Last ten films:"
    )
    for each in cut.history[-_SHOWN:]:
        mark = {EventType.LIKE: "liked", EventType.DISLIKE: "disliked"}.get(each.type, "watched")
        click.echo(f"  {mark:<9} {items[each.item_id].title}")
    sent = [SentCandidate(id=c.id, title=c.item.title, tags=c.item.tags) for c in candidates]
    first = client.rerank(sent, surface="home", session_id="demo")
    client.warmup()
    second = client.rerank(sent, surface="home", session_id="demo")
    tier_of = {result.id: result.tier for result in second.results}
    click.echo(f"\n{'The server, which knows nobody':<44} Ours, on this device (tier)")
    for theirs, ours in zip([c.id for c in candidates[:_SHOWN]], second.ids, strict=False):
        click.echo(f"  {items[theirs].title[:40]:<42}   {items[ours].title[:40]:<40} ({tier_of[ours]})")
    click.echo("\nWhat the user really liked next:   place by the server -> ours")
    place = {id_: at for at, id_ in enumerate(second.ids, start=1)}
    before = {c.id: at for at, c in enumerate(candidates, start=1)}
    for target in cut.targets:
        moved = f"{before[target]:>3} -> {place[target]:>3}" if target in place else "not among the 50"
        click.echo(f"  {items[target].title[:44]:<46} {moved}")
    _why(client, second, before)
    click.echo(f"\nfirst request (new films, default budget): {_timing(first)}")
    click.echo(f"again (films encoded meanwhile):           {_timing(second)}")


def _why(client: EdgeReranker, ranking: Ranking, before: dict[str, int]) -> None:
    """The one of the first ten that rose furthest, and what of the history moved it most."""
    place = {id_: at for at, id_ in enumerate(ranking.ids[:_SHOWN], start=1)}
    risen = max(place, key=lambda id_: before[id_] - place[id_])
    (found,) = client.explain(ranking.ranking_id, [risen]).explanations
    if found.reasons:
        click.echo(f"\nWhy {found.title} came from {before[risen]} to {place[risen]}:")
        for reason in found.reasons[:_REASONS]:
            click.echo(f"  {reason.text} ({reason.score_change:+.2f})")


def _sent_item(item: Item) -> SentItem:
    return SentItem(id=item.id, title=item.title, tags=item.tags)


def _timing(ranking: Ranking) -> str:
    degraded = f", degraded: {ranking.degraded_reason}" if ranking.degraded_reason else ""
    if ranking.settled:
        degraded += ", settled"
    return (
        f"{ranking.timings.total_ms:6.1f} ms in the service, "
        f"{ranking.coverage:.0%} of the candidates by the model{degraded}"
    )
