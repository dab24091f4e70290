"""The page: every value shown, nothing loaded, dots and bars where the figures say."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.evaluation import plot, report

VOID = {"meta"}
ROWS = [
    {"server": "popularity", "pool": 20, "ndcg": {"mean": 0.05, "low": 0.04, "high": 0.07}, "hits": 0.2},
    {"server": "popularity", "pool": 100, "ndcg": {"mean": 0.06, "low": 0.05, "high": 0.08}, "hits": 0.4},
    {"server": "EASE", "pool": 300, "ndcg": {"mean": -0.01, "low": -0.02, "high": 0.0}, "hits": None},
]


def page(rows: list[dict[str, Any]] | None = None, **plotted: str | None) -> str:
    return report.html(
        {
            "sections": [
                {
                    "title": "Pools",
                    "note": "By server.",
                    "rows": ROWS if rows is None else rows,
                    "plot": plotted or None,
                }
            ],
            "made": {"pack": "p-1", "users": 12345},
        }
    )


def svg(text: str) -> ElementTree.Element:
    (found,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    return ElementTree.fromstring(found)


def circles(figure: ElementTree.Element, style: str) -> list[tuple[float, float]]:
    (group,) = figure.findall(f"g[@class='{style}']")
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in group.iter("circle")]


def bars(figure: ElementTree.Element, style: str, ends: tuple[str, str]) -> list[tuple[float, float]]:
    (group,) = figure.findall(f"g[@class='{style}']")
    return [(float(each.attrib[ends[0]]), float(each.attrib[ends[1]])) for each in group.iter("line")]


class Checked(HTMLParser):
    """Fails on a tag that is not closed, and gathers the text of the table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data


def test_every_value_is_in_the_table_with_its_interval_and_gaps_are_marked() -> None:
    assert Checked(page()).cells == [
        ["server", "pool", "ndcg", "hits"],
        ["popularity", "20", "0.0500 [0.0400, 0.0700]", "0.2000"],
        ["popularity", "100", "0.0600 [0.0500, 0.0800]", "0.4000"],
        ["EASE", "300", "-0.0100 [-0.0200, 0.0000]", "-"],
    ]


def test_rows_may_have_columns_of_their_own() -> None:
    found = Checked(page([{"a": 1}, {"b": "x"}])).cells
    assert found == [["a", "b"], ["1", "-"], ["-", "x"]]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        (0, "0"),
        (0.0, "0.0000"),
        (1600.0, "1,600"),
        (12.345, "12.35"),
        (1.62, "1.6200"),
        (0.00083, "0.00083"),
        (-0.0086, "-0.0086"),
        (math.nan, "-"),
        (math.inf, "-"),
        (None, "-"),
        (True, "True"),
    ],
)
def test_numbers_are_short_and_small_ones_do_not_vanish(value: object, shown: str) -> None:
    assert Checked(page([{"x": value}])).cells[1] == [shown]


def test_text_is_shown_as_it_is_never_read_as_markup() -> None:
    odd = '<script>alert("1")</script> & <b>'
    text = report.html(
        {
            "sections": [
                {
                    "title": odd,
                    "note": odd,
                    "rows": [{odd: odd, "y": 1, "z": odd}],
                    "plot": {"x": odd, "y": "y", "by": "z"},
                }
            ],
            "made": {odd: odd},
        },
        title=odd,
    )
    found = Checked(text)
    assert "script" not in found.tags
    assert found.tags.count("b") == 1  # the legend's own
    assert found.cells[1] == [odd, "1", odd]
    assert odd in "".join(svg(text).itertext())


def test_the_page_loads_nothing_and_says_so_to_the_browser() -> None:
    text = page(x="pool", y="ndcg", by="server")
    assert "default-src 'none'" in text
    tags = Checked(text).tags
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(tags)
    assert tags.count("style") == 1
    assert not re.search(r"https?:|url\(|@import|src=|href=", text)


def test_the_page_follows_light_and_dark_and_every_colour_has_both() -> None:
    light, dark = re.search(r":root \{(.*?)\}.*?dark\) \{ :root \{(.*?)\}", page(), re.DOTALL).groups()
    names = set(re.findall(r"(--\w+):", light))
    assert names == set(re.findall(r"(--\w+):", dark))
    assert {f"--s{at}" for at in range(plot.N_SERIES_STYLES)} <= names


def test_how_it_was_made_is_told() -> None:
    assert "<dt>pack</dt><dd>p-1</dd><dt>users</dt><dd>12,345</dd>" in page()


def test_dots_stand_where_the_figures_say_and_bars_reach_their_ends() -> None:
    figure = svg(page(x="pool", y="ndcg", by="server"))
    first, second = circles(figure, "s0")
    (third,) = circles(figure, "s1")
    assert first[0] < second[0] < third[0]
    # Logarithmic from ten times on: 20 to 100 is a factor of 5, 100 to 300 one of 3. Series are 5 px apart.
    assert (second[0] - first[0]) / (third[0] - second[0] - 5) == pytest.approx(
        math.log(5) / math.log(3), 0.01
    )
    assert second[1] < first[1] < third[1]  # up is more
    per_unit = (first[1] - second[1]) / 0.01
    (low, high), _ = bars(figure, "s0", ("y1", "y2"))
    assert low - first[1] == pytest.approx(0.01 * per_unit, abs=0.2)
    assert first[1] - high == pytest.approx(0.02 * per_unit, abs=0.2)
    (line,) = figure.findall("g[@class='s0']/polyline")
    assert line.attrib["points"] == " ".join(f"{x},{y}" for x, y in (first, second))
    (zero,) = figure.findall("line[@class='zero']")
    assert third[1] - float(zero.attrib["y1"]) == pytest.approx(0.01 * per_unit, abs=0.2)


def test_a_plot_says_what_it_shows_to_those_who_cannot_see_it() -> None:
    assert svg(page(x="pool", y="ndcg", by="server")).attrib["aria-label"] == "ndcg by pool"


def test_names_get_a_row_each_and_values_go_across() -> None:
    figure = svg(page(x="server", y="hits", by="pool"))
    (first,), (second,) = circles(figure, "s0"), circles(figure, "s1")
    assert first[0] < second[0]
    assert first[1] < second[1]  # two series in one row do not cover each other
    assert figure.find(".//polyline") is None
    assert "popularity" in [each.text for each in figure.iter("text")]


def test_pointing_at_a_dot_tells_its_figures() -> None:
    titles = [each.text for each in svg(page(x="pool", y="ndcg", by="server")).iter("title")]
    assert titles[0] == "20, popularity: 0.0500 [0.0400, 0.0700]"
    assert svg(page(x="pool", y="hits", by=None)).findtext(".//title") == "20: 0.2000"


def test_the_legend_names_the_series_with_their_colours() -> None:
    text = page(x="pool", y="ndcg", by="server")
    assert re.findall(r'<span class="(s\d)"><b>●</b> (\w+)</span>', text) == [
        ("s0", "popularity"),
        ("s1", "EASE"),
    ]
    assert '<p class="legend">' not in page(x="pool", y="ndcg", by=None)


def test_rows_without_a_figure_are_not_drawn() -> None:
    rows = [{"x": 1, "y": 2}, {"x": 2, "y": None}, {"x": 3, "y": math.nan}, {"y": 4}, {"x": 4, "y": "high"}]
    assert len(circles(svg(page(rows, x="x", y="y", by=None)), "s0")) == 1
    assert "Nothing to plot" in page(rows[1:], x="x", y="y", by=None)
    assert "Nothing to plot" in page([], x="x", y="y", by=None)


@pytest.mark.parametrize("wrong", ["x", "y", "by"])
def test_a_plot_of_a_column_that_no_row_has_is_refused(wrong: str) -> None:
    plotted = {"x": "pool", "y": "ndcg", "by": "server"} | {wrong: "nonsense"}
    with pytest.raises(ValueError, match=r"'Pools': its plot names 'nonsense'"):
        page(**plotted)


def test_ticks_are_what_a_person_would_choose() -> None:
    assert plot.ticks(0.042, 0.097) == pytest.approx([0.04, 0.06, 0.08, 0.1])
    assert plot.ticks(0, 5) == [0, 1, 2, 3, 4, 5]
    assert plot.ticks(-3, 21) == [-5, 0, 5, 10, 15, 20, 25]
    assert plot.ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert plot.ticks(2, 2) == pytest.approx([1, 1.5, 2, 2.5, 3])


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_round_and_enclose_the_range(low: float, width: float) -> None:
    high = low + width
    found = plot.ticks(low, high)
    assert 4 <= len(found) <= 9
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    steps = [b - a for a, b in pairwise(found)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(-1e3, 1e3)), min_size=1, max_size=20))
def test_every_dot_is_inside_the_plot(points: list[tuple[int, float]]) -> None:
    figure = ElementTree.fromstring(plot.svg([plot.Dot(x, "", y, y, y, "") for x, y in points], "x", "y"))
    _, _, width, height = map(float, figure.attrib["viewBox"].split())
    found = circles(figure, "s0")
    assert len(found) == len(points)
    assert all(0 < x < width and 0 < y < height for x, y in found)
