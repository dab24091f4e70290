"""Stored databases of every earlier schema, encrypted under ``KEY``: one file a step, called as the step is.

A file is made once, by the code that still has the step as its newest, and never again: it stands for what
users have. `python -m tests.store.databases.make` makes those that are missing, with ``ROWS`` in the tables
that there are then. A new step that adds a table or a column adds rows here, in plain SQL, before its file is
made.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from sqlite_utils import Database

from edge_reranker.store.keys import Key
from edge_reranker.store.migrations import MIGRATIONS
from edge_reranker.store.open import open_database
from edge_reranker.store.writer import checkpoint

FOLDER = Path(__file__).parent
KEY = Key("5e" * 32, "file")

# Those of the first step: a later one added more.
_EVENT = (
    "seq, namespace, event_id, type, occurred_at, item, query, dwell_s, surface, session_id, "
    "ranking_id, position"
)
# By the step that brought the table. What the tests expect is below.
ROWS = {
    "0001_events_items_vectors_rankings": (
        "INSERT INTO items VALUES (1, 'app', 'i1', x'0001', 'Heat (1995)', 'A heist.', '[\"Crime\"]', "
        '\'{"year":"1995"}\')',
        "INSERT INTO items VALUES (2, 'app', 'i2', x'0002', 'Casino (1995)', '', '[]', '{}')",
        "INSERT INTO items VALUES (3, 'other', 'i1', x'0001', 'Heat (1995)', 'A heist.', '[]', '{}')",
        f"INSERT INTO events ({_EVENT}) VALUES (1, 'app', 'e1', 4, 1000.0, 1, '', 0.0, 'home', 's', 'r1', 3)",
        f"INSERT INTO events ({_EVENT}) VALUES (2, 'app', 'e2', 2, 2000.0, 2, '', 12.5, '', '', '', NULL)",
        f"INSERT INTO events ({_EVENT}) VALUES "
        "(3, 'app', 'e3', 7, 3000.0, NULL, 'crime films', 0.0, '', '', '', NULL)",
        f"INSERT INTO events ({_EVENT}) VALUES (4, 'other', 'e1', 4, 1000.0, 3, '', 0.0, '', '', '', NULL)",
        "INSERT INTO vectors VALUES ('app', 'pack', 'h1', 'i1', x'00112233')",
        "INSERT INTO rankings (namespace, ranking_id, created_at, surface, session_id, body) VALUES "
        "('app', 'r1', 999.0, 'home', 's', '{\"results\":[[\"i1\",1],[\"i2\",0]],"
        '"coverage":0.5,"degraded_reason":0,"timings":{},"model":"m","pack":"p","final":true}\')',
    ),
    "0002_prefixes": ("INSERT INTO prefixes VALUES ('app', 'print', 'e1', x'01000000', x'ff')",),
    "0004_retention": (
        "INSERT INTO retention VALUES ('app', 0, 0, 1000)",
        "INSERT INTO clock VALUES (1767225600.0, 1767225600.0, '[]')",
    ),
    "0005_namespaces": (
        "INSERT INTO namespaces (name) VALUES ('news'), ('shop')",
        "INSERT INTO grants VALUES ('news', 'shop', 1767225600.0)",
    ),
    "0007_learning": (
        "UPDATE rankings SET detail = x'0102'",
        "INSERT INTO choices VALUES (1, 'app', 0, '[]', x'0304')",
        "INSERT INTO muted VALUES ('app', 'crime')",
    ),
    "0008_event_context": ('UPDATE events SET context = \'{"network":"wifi"}\' WHERE seq = 1',),
}


def steps() -> list[str]:
    """All steps that this version has, oldest first."""
    with Database(memory=True, execute_plugins=False) as empty:
        return [step.name for step in MIGRATIONS.pending(empty)]


def stored() -> list[str]:
    """The steps that have a file."""
    return sorted(path.stem for path in FOLDER.glob("*.db"))


def make(name: str) -> None:
    """Make the file of the step ``name``, which is the newest that it has."""
    names = steps()
    following = names[names.index(name) + 1 :]
    path = FOLDER / f"{name}.db"
    path.touch()
    with contextlib.closing(open_database(path, KEY)) as db:
        MIGRATIONS.apply(db, stop_before=following)
        with db.atomic():
            for step in names[: names.index(name) + 1]:
                for sql in ROWS.get(step, ()):
                    db.conn.execute(sql)
        checkpoint(db)


if __name__ == "__main__":
    for missing in sorted(set(steps()) - set(stored())):
        make(missing)
        print(f"made {missing}.db", file=sys.stderr)
