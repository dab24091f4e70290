"""Time against ranking agreement, one dot a variant, with the Pareto front: an SVG of its own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edge_reranker.evaluation.plot import ticks
from edge_reranker_quantize.measure import Measured, Report

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 46, 54
_LABEL = 15  # between two lines of text
_LONGEST = 70  # a label is no wider
_STYLE = """\
svg { font: 12px sans-serif; background: #fff; }
text { fill: #222; } .grid { stroke: #ddd; } .bar { stroke: #4a78b5; stroke-width: 1.5; }
circle { fill: #4a78b5; } .best circle { fill: #c0392b; } .best .bar { stroke: #c0392b; }
polyline { fill: none; stroke: #c0392b; stroke-dasharray: 5 4; }
@media (prefers-color-scheme: dark) {
  svg { background: #16181c; } text { fill: #ddd; } .grid { stroke: #333; }
}
"""


def milliseconds(each: Measured) -> float:
    """What 100 tokens take, of a text of the longest length."""
    return 100_000.0 / each.speed.prefill[max(each.speed.prefill)]


def pareto(variants: Sequence[Measured]) -> list[Measured]:
    """Those that no other beats in both time and tau, fastest first."""
    front: list[Measured] = []
    for each in sorted(variants, key=lambda one: (milliseconds(one), -one.rankings.tau.mean)):
        if not front or each.rankings.tau.mean > front[-1].rankings.tau.mean:
            front.append(each)
    return front


def svg(report: Report) -> str:
    """The plot of a report of at least one variant."""
    found = report.variants
    across = ticks(0.0, max(map(milliseconds, found)))
    up = ticks(min(each.rankings.tau.low for each in found), 1.0)

    def x(value: float) -> float:
        return _LEFT + (value - across[0]) / (across[-1] - across[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - up[0]) / (up[-1] - up[0]) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_LEFT, 18, f"{report.model}, {report.role}: {report.machine.processor}", "start")]
    parts.append(_text(_LEFT, 36, f"Kendall's tau to {report.reference}, 95 % intervals", "start"))
    parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 12, "milliseconds for 100 tokens", "end"))
    for mark in across:
        parts += [_line(x(mark), _TOP, x(mark), _HEIGHT - _BOTTOM), _text(x(mark), _HEIGHT - 34, f"{mark:g}")]
    for mark in up:
        parts += [_line(_LEFT, y(mark), _WIDTH - _RIGHT, y(mark))]
        parts += [_text(_LEFT - 8, y(mark) + 4, f"{mark:g}", "end")]
    front = pareto(found)
    path = " ".join(f"{x(milliseconds(each)):.1f},{y(each.rankings.tau.mean):.1f}" for each in front)
    parts.append(f'<polyline points="{path}"/>')
    taken: list[tuple[float, float]] = []
    for each in sorted(found, key=lambda one: -one.rankings.tau.mean):
        at = (x(milliseconds(each)), y(each.rankings.tau.mean))
        right = at[0] + 8 + _LONGEST <= _WIDTH
        label = _free(at[0] + 8 if right else at[0] - 8 - _LONGEST, at[1] + 4, taken)
        taken.append(label)
        text = _text(label[0] + (0 if right else _LONGEST), label[1], each.type, "start" if right else "end")
        tau = each.rankings.tau
        bar = _line(at[0], y(tau.low), at[0], y(tau.high), "bar")
        told = f"{each.type}: {tau.mean:.3f} [{tau.low:.3f}, {tau.high:.3f}], {each.size_bytes / 1e6:.0f} MB"
        kind = "best" if each in front else "other"
        parts.append(
            f'<g class="{kind}"><title>{escape(told)}</title>{bar}'
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4"/>{text}</g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Time against tau"><style>{_STYLE}</style>{"".join(parts)}</svg>\n'
    )


def _free(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The place for a label, moved down until it covers none that is there."""
    while any(abs(x - other[0]) < _LONGEST and abs(y - other[1]) < _LABEL for other in taken):
        y += _LABEL
    return x, y


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
