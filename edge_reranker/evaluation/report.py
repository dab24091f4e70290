"""A report, in the shape of ``table``, as one HTML file that loads nothing and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeGuard

from edge_reranker.evaluation import plot
from edge_reranker.evaluation.table import Plot, Row, Section, Tables

_NOTHING = "-"

_STYLE = """
:root { color-scheme: light dark; --text: #1d2129; --soft: #667; --grid: #d8dbe2; --page: #fff;
  --head: #f3f4f7; --s0: #0063b1; --s1: #b45f00; --s2: #00795a; --s3: #a32f6d; --s4: #6a4fb3; --s5: #7a6a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ee; --soft: #9aa0ae; --grid: #3a3f4b;
  --page: #16181d; --head: #22252c; --s0: #62b0f5; --s1: #f0a24a; --s2: #45c9a0; --s3: #f07fb7; --s4: #b19cf5;
  --s5: #d3c04a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--grid); text-align: left; }
td { white-space: nowrap; }
thead th { background: var(--head); }
th.number, td.number { text-align: right; }
.interval, .legend, figcaption, dt { color: var(--soft); }
.interval { font-size: .85em; }
figure { margin: 1.5rem 0; } svg { width: 100%; max-width: 760px; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
.grid { stroke: var(--grid); } .zero { stroke: var(--soft); stroke-width: 1.5; }
.s0 { --series: var(--s0); } .s1 { --series: var(--s1); } .s2 { --series: var(--s2); }
.s3 { --series: var(--s3); } .s4 { --series: var(--s4); } .s5 { --series: var(--s5); }
circle { fill: var(--series); } .bar { stroke: var(--series); stroke-width: 2; }
polyline { fill: none; stroke: var(--series); opacity: .5; }
.legend span { margin-right: 1.2rem; white-space: nowrap; } .legend b { color: var(--series); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dd { margin: 0; }
""".strip()


def html(report: Tables, title: str = "Evaluation") -> str:
    """The page. Raises ``ValueError`` for a plot that names a column which no row has."""
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [part for section in report["sections"] for part in _section(section)]
    made = "".join(
        f"<dt>{escape(name)}</dt><dd>{_words(value)}</dd>" for name, value in report["made"].items()
    )
    parts.append(f"<h2>How this was made</h2>\n<dl>{made}</dl>")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            # Nothing may be loaded, whatever a value says: the page works without a network.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>",
            *parts,
            "</body>\n</html>\n",
        ]
    )


def picture(section: Section) -> str:
    """The section's plot as an SVG file of its own, which loads nothing either.

    Raises ``ValueError`` as ``html`` does, and where there is nothing to draw.
    """
    columns, rows = section["plot"], section["rows"]
    dots = [] if columns is None else _dots(section["title"], columns, rows)
    if columns is None or not dots:
        raise ValueError(f"section {section['title']!r} has nothing to plot")
    return plot.standalone(dots, columns["x"], columns["y"], section["title"], _STYLE)


def _section(section: Section) -> list[str]:
    parts = [f"<h2>{escape(section['title'])}</h2>"]
    if section["note"]:
        parts.append(f"<p>{escape(section['note'])}</p>")
    if section["plot"] is not None:
        parts.append(_figure(section["title"], section["plot"], section["rows"]))
    parts.append(_table(section["rows"]))
    return parts


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    kind_of = {
        column: "" if any(isinstance(row.get(column), str) for row in rows) else ' class="number"'
        for column in columns
    }
    head = "".join(f"<th{kind_of[column]}>{escape(column)}</th>" for column in columns)
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{kind_of[column]}>{_words(row.get(column))}</td>" for column in columns)
        + "</tr>"
        for row in rows
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="table">{table}</div>'


def _words(value: object) -> str:
    """A value as HTML."""
    if _is_interval(value):
        interval = f"[{_number(value['low'])}, {_number(value['high'])}]"
        return f'{_number(value["mean"])} <span class="interval">{interval}</span>'
    if _is_number(value):
        return _number(value)
    return _NOTHING if value is None else escape(str(value))


def _number(value: float) -> str:
    if not math.isfinite(value):
        return _NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.2f}"
    # Four places for shares and gains; what would vanish in them keeps two digits that count.
    return f"{value:.4f}" if size >= 0.001 or size == 0 else f"{value:.2g}"


def _dots(title: str, columns: Plot, rows: Sequence[Row]) -> list[plot.Dot]:
    x, y, by = columns["x"], columns["y"], columns["by"]
    for column in (x, y, *([] if by is None else [by])):
        if rows and not any(column in row for row in rows):
            raise ValueError(f"section {title!r}: its plot names {column!r}, a column that no row has")
    return [dot for row in rows if (dot := _dot(row, x, y, by)) is not None]


def _figure(title: str, columns: Plot, rows: Sequence[Row]) -> str:
    x, y, by = columns["x"], columns["y"], columns["by"]
    dots = _dots(title, columns, rows)
    if not dots:
        return "<p>Nothing to plot.</p>"
    figure = plot.svg(dots, x, y)
    caption = (
        f"{y} by {x}; bars are 95 % intervals" if any(dot.low < dot.high for dot in dots) else f"{y} by {x}"
    )
    return f"<figure>\n{figure}\n{_legend(dots, by)}<figcaption>{escape(caption)}</figcaption>\n</figure>"


def _dot(row: Mapping[str, Any], x: str, y: str, by: str | None) -> plot.Dot | None:
    """The row as a dot; None when it has nothing to draw."""
    at, value = row.get(x), row.get(y)
    ends = [value["mean"], value["low"], value["high"]] if _is_interval(value) else [value] * 3
    numbers = [float(end) for end in ends if _is_number(end) and math.isfinite(end)]
    if len(numbers) < 3 or not (isinstance(at, str) or (_is_number(at) and math.isfinite(at))):
        return None
    series = "" if by is None else str(row.get(by, ""))
    name = f"{at}, {series}" if series else f"{at}"
    mean, low, high = numbers
    told = f"{_number(mean)} [{_number(low)}, {_number(high)}]" if low < high else _number(mean)
    return plot.Dot(at, series, mean, low, high, label=f"{name}: {told}")


def _legend(dots: Sequence[plot.Dot], by: str | None) -> str:
    if by is None:
        return ""
    names = dict.fromkeys(dot.by for dot in dots)
    entries = "".join(
        f'<span class="s{at % plot.N_SERIES_STYLES}"><b>●</b> {escape(name)}</span>'
        for at, name in enumerate(names)
    )
    return f'<p class="legend">{entries}</p>\n'


def _is_interval(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and {"mean", "low", "high"} <= set(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
