"""Dots with error bars, as SVG that the page's style sheet colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

N_SERIES_STYLES = 6  # s0 to s5 in the style sheet; more series share them
_WIDTH, _HEIGHT, _MARGIN, _LINE = 760, 320, 14, 17
_CHARACTER = 6.6  # pixels: a mean of sans-serif letters at 12 px


@dataclass(frozen=True, slots=True)
class Dot:
    """One figure: at ``x`` (a number, or a name) of the series ``by``; ``low`` and ``high`` end its bar."""

    x: str | float
    by: str
    value: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """Numbers to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        by = math.log10 if self.log else float
        low, high = by(self.low), by(self.high)
        return self.start + (by(value) - low) / (high - low) * (self.end - self.start)


def svg(dots: Sequence[Dot], x: str, y: str) -> str:
    """The plot of at least one dot; ``x`` and ``y`` name the axes. All numbers must be finite.

    Where every ``x`` is a number, a line joins each series, over a logarithmic axis when the largest is
    ten times the smallest. Names get a row each, values across.
    """
    height, parts = _drawing(dots, x, y)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(f"{y} by {x}")}">'
        f"{''.join(parts)}</svg>"
    )


def _drawing(dots: Sequence[Dot], x: str, y: str) -> tuple[int, list[str]]:
    names = list(dict.fromkeys(dot.by for dot in dots))
    style_of = {name: f"s{at % N_SERIES_STYLES}" for at, name in enumerate(names)}
    numeric = not any(isinstance(dot.x, str) for dot in dots)
    return (_curves if numeric else _rows)(dots, style_of, x, y)


def standalone(dots: Sequence[Dot], x: str, y: str, title: str, style: str) -> str:
    """``svg`` as a file of its own: with the style sheet, a title, and which colour is which series."""
    names = list(dict.fromkeys(dot.by for dot in dots))
    parts = [_text(_MARGIN, _LINE, title, "start")]
    at = float(_MARGIN)
    for number, name in enumerate(names if names != [""] else []):
        mark = f'<circle cx="{at + 4:.1f}" cy="{2 * _LINE - 4}" r="4"/>'
        told = _text(at + 14, 2 * _LINE, name, "start")
        parts.append(f'<g class="s{number % N_SERIES_STYLES}">{mark}{told}</g>')
        at += 14 + (len(name) + 3) * _CHARACTER
    top = 3 * _LINE
    height, drawing = _drawing(dots, x, y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height + top}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}\n.page {{ fill: var(--page); }}\n</style>\n"
        f'<rect class="page" width="{_WIDTH}" height="{height + top}"/>\n'
        f'{"".join(parts)}<g transform="translate(0 {top})">{"".join(drawing)}</g>\n</svg>\n'
    )


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at most ``low`` to at least ``high``."""
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, 1e-12):  # one value, but for rounding
        half = largest / 2 if largest > 1e-9 else 0.5
        low, high = low - half, high + half
    rough = (high - low) / (wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * by for by in (1.0, 2.0, 5.0, 10.0) if power * by >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [at * step for at in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from at most ``low`` to at least ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [by * 10.0**power for power in powers for by in (1, 2, 5)]
    first = max(at for at, mark in enumerate(marks) if mark <= low * (1 + 1e-9))
    last = min(at for at, mark in enumerate(marks) if mark >= high * (1 - 1e-9))
    return marks[first : last + 1]


def _curves(dots: Sequence[Dot], style_of: dict[str, str], x: str, y: str) -> tuple[int, list[str]]:
    marks = _value_ticks(dots)
    left = _MARGIN + max(len(f"{mark:g}") for mark in marks) * _CHARACTER + 8
    up = _Scale(marks[0], marks[-1], _HEIGHT - 44.0, 2.0 * _LINE)
    places = sorted({float(dot.x) for dot in dots})
    log = places[0] > 0 and places[-1] >= 10 * places[0]
    across_marks = _log_ticks(places[0], places[-1]) if log else ticks(places[0], places[-1])
    across = _Scale(across_marks[0], across_marks[-1], left + 12, _WIDTH - 24.0, log)
    parts = [_text(_MARGIN, _LINE, y, "start"), _text(_WIDTH - _MARGIN, _HEIGHT - 6, x, "end")]
    for mark in marks:
        parts.append(_line(left, up(mark), _WIDTH - _MARGIN, up(mark), "zero" if mark == 0 else "grid"))
        parts.append(_text(left - 6, up(mark) + 4, f"{mark:g}", "end"))
    parts += [_text(across(mark), _HEIGHT - 26, f"{mark:g}", "middle") for mark in across_marks]
    for at, (name, style) in enumerate(style_of.items()):
        # Series stand a little apart, so that bars at the same x can be told from each other.
        aside = 5.0 * (at - (len(style_of) - 1) / 2)
        mine = sorted((dot for dot in dots if dot.by == name), key=lambda dot: float(dot.x))
        spots = [(across(float(dot.x)) + aside, dot) for dot in mine]
        path = " ".join(f"{spot:.1f},{up(dot.value):.1f}" for spot, dot in spots)
        parts.append(f'<g class="{style}"><polyline points="{path}"/>')
        for spot, dot in spots:
            bar = _line(spot, up(dot.low), spot, up(dot.high), "bar")
            parts.append(_dot(spot, up(dot.value), bar, dot.label))
        parts.append("</g>")
    return _HEIGHT, parts


def _rows(dots: Sequence[Dot], style_of: dict[str, str], x: str, y: str) -> tuple[int, list[str]]:
    names = list(dict.fromkeys(str(dot.x) for dot in dots))
    row = _LINE * (1 + max(1, len(style_of)))
    top, bottom = 2.0 * _LINE, 2.0 * _LINE + row * len(names)
    left = min(_MARGIN + max(len(name) for name in names) * _CHARACTER + 12, _WIDTH / 2)
    marks = _value_ticks(dots)
    across: Callable[[float], float] = _Scale(marks[0], marks[-1], left + 8, _WIDTH - 30.0)
    parts = [_text(_MARGIN, _LINE, x, "start"), _text(_WIDTH - _MARGIN, _LINE, y, "end")]
    for mark in marks:
        parts.append(_line(across(mark), top, across(mark), bottom, "zero" if mark == 0 else "grid"))
        parts.append(_text(across(mark), bottom + _LINE, f"{mark:g}", "middle"))
    for at, name in enumerate(names):
        parts.append(_text(left - 4, top + row * (at + 0.5) + 4, name, "end"))
    for at, (series, style) in enumerate(style_of.items()):
        parts.append(f'<g class="{style}">')
        for dot in (dot for dot in dots if dot.by == series):
            spot = top + row * names.index(str(dot.x)) + _LINE * (at + 1)
            bar = _line(across(dot.low), spot, across(dot.high), spot, "bar")
            parts.append(_dot(across(dot.value), spot, bar, dot.label))
        parts.append("</g>")
    return round(bottom + 2 * _LINE), parts


def _value_ticks(dots: Sequence[Dot]) -> list[float]:
    ends = [end for dot in dots for end in (dot.low, dot.value, dot.high)]
    return ticks(min(ends), max(ends))


def _dot(x: float, y: float, bar: str, label: str) -> str:
    """A dot over its bar; pointing at either shows ``label``."""
    return f'<g><title>{escape(label)}</title>{bar}<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
