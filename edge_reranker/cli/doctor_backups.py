"""What ``doctor`` says of backups, and of stores that were put aside."""

from __future__ import annotations

from collections.abc import Iterator

from edge_reranker.cli.finding import Finding
from edge_reranker.config import Config
from edge_reranker.errors import EdgeRerankerError


def backups(config: Config) -> Iterator[Finding]:
    """How many there are and what the newest has; no word where there is no store, or no key to read them."""
    from edge_reranker.store import list_backups

    if not (config.data_dir / "store.db").exists() and not (config.data_dir / "backups").exists():
        return
    try:
        found = list_backups(config.data_dir, key_source=config.key_source)
    except (EdgeRerankerError, OSError):
        return  # the finding about the key or the store says so
    readable = [(backup, n_events) for backup, n_events in found if n_events is not None]
    if found and not readable:
        detail = f"{len(found)}, of which the key opens none"
        yield Finding(
            "backups", False, detail, "run `edge-reranker key import FILE` with the key they were made with"
        )
    elif not readable:
        when = "made daily while the service runs" if config.backups else "turned off in the settings"
        yield Finding("backups", True, f"none yet: {when}")
    else:
        newest, n_events = readable[-1]
        yield Finding("backups", True, f"{len(readable)}, the newest of {newest.when} with {n_events} events")


def quarantine(config: Config) -> Iterator[Finding]:
    """What was put aside, when, what took its place, and what may be lost."""
    from edge_reranker.store import quarantined

    for one in quarantined(config.data_dir):
        way_out = f"remove {one.folder} once you need nothing from it"
        yield Finding("quarantine", False, str(one), way_out)
