"""Figures as sections of rows: one shape for JSON, text and HTML.

    {"sections": [{"title": str, "note": str, "rows": [{column: str | number | interval | None}],
                   "plot": {"x": column, "y": column, "by": column or None} or None}],
     "made": {name: str | number}}

An interval is {"mean", "low", "high"}, 95 % over users; None is nothing to tell. A plot draws the rows that
have a number or an interval in y: along x, one series for each value of by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TypedDict

import numpy as np

from edge_reranker.evaluation import metrics

Cell = str | float | dict[str, float] | None
Row = dict[str, Cell]


class Plot(TypedDict):
    """Columns worth a picture."""

    x: str
    y: str
    by: str | None


class Section(TypedDict):
    """Rows that belong together."""

    title: str
    note: str
    rows: list[Row]
    plot: Plot | None


class Tables(TypedDict):
    """The whole report; ``made`` says from what."""

    sections: list[Section]
    made: dict[str, str | float]


def row(
    order: str,
    places: Sequence[metrics.Places],
    users: Sequence[str],
    before: Sequence[metrics.Places] | None = None,
    **columns: Cell,
) -> Row:
    """One order's figures. ``places`` and ``before`` are one per training seed, over the same cases.

    With ``before``: the change of NDCG@10 against it, also in percent, and users by its sign.
    """
    after, names = np.concatenate(places), list(users) * len(places)
    found = metrics.quality(after, names)
    result: Row = {**columns, "order": order, "ndcg10": asdict(found.ndcg10), "mrr": found.mrr}
    result["hr10"] = found.hr10
    if before is not None:
        base = np.concatenate(before)
        change = metrics.compare(after, base, names)
        start = float(metrics.ndcg(base).mean())
        result["change"] = asdict(change.ndcg10)
        result["change_percent"] = 100 * change.ndcg10.mean / start if start > 0 else 0.0
        result["users_better"] = change.users_better
        result["users_same"] = change.users_same
        result["users_worse"] = change.users_worse
    return result


def joined(*parts: Tables) -> Tables:
    """Reports as one: their sections in turn, and all that they were made from."""
    made: dict[str, str | float] = {}
    for part in parts:
        made |= part["made"]
    return {"sections": [each for part in parts for each in part["sections"]], "made": made}


def as_text(tables: Tables) -> str:
    """Every section as a table with a column's width of its own."""
    return "\n\n".join([_section(each) for each in tables["sections"]])


def _section(section: Section) -> str:
    names = list(dict.fromkeys(name for each in section["rows"] for name in each))
    cells = [names, *[[_cell(each.get(name, "")) for name in names] for each in section["rows"]]]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells
    ]
    return "\n".join([f"== {section['title']}", section["note"], *[line.rstrip() for line in lines]])


def _cell(value: Cell) -> str:
    if isinstance(value, dict):
        return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
