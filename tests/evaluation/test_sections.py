"""The evaluation's own report as a page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge_reranker.evaluation import report, run, sections
from edge_reranker.evaluation.beyond import Beyond, Bin, Reliability
from edge_reranker.evaluation.metrics import Comparison, Interval, Quality


@pytest.fixture(scope="module")
def found() -> run.Report:
    """Every figure is another number, so that none can stand for another."""
    numbers = iter(range(1, 1000))

    def share() -> float:
        return next(numbers) / 1000

    def interval() -> Interval:
        return Interval(share(), share(), share())

    def comparison() -> Comparison:
        return Comparison(interval(), next(numbers), next(numbers), next(numbers))

    def beyond() -> Beyond:
        bins = tuple(Bin(share(), interval()) for _ in range(2))
        return Beyond(interval(), interval(), Reliability(share(), share(), next(numbers), bins))

    names = list(run.TITLES)
    return run.Report(
        pack="pack-1",
        n_users=next(numbers),
        n_cases=next(numbers),
        hit_rate=share(),
        ratio=1.5,
        orders={n: Quality(interval(), share(), share(), share(), share(), share()) for n in names},
        against_server={n: comparison() for n in names if n != run.SERVER},
        against_without_model=comparison(),
        beyond={n: beyond() for n in (run.SERVER, run.WITHOUT_MODEL, run.OURS)},
        no_history_is_server_order=True,
    )


def test_every_figure_of_the_report_is_on_the_page(found: run.Report) -> None:
    text = report.html(json.loads(json.dumps(sections.of(found))))

    def shown(value: object) -> list[str]:
        if isinstance(value, dict):
            return [one for part in value.values() for one in shown(part)]
        return [f"{value:.4f}" if isinstance(value, float) else f">{value}<"]

    told = found.as_dict() | {"no_history_is_server_order": "exactly", "beyond": {}}
    assert [one for one in shown(told) if one not in text] == []
    for each in found.beyond.values():
        assert each.divergence is not None
        assert each.distance is not None
        assert each.reliability is not None
        for value in (each.divergence.low, each.distance.mean, each.reliability.ece):
            assert f"{value:.4f}" in text
        assert f"{each.reliability.ece_by_chance:.4f}" in text
        for part in each.reliability.bins:
            assert f"{part.predicted:.4f}" in text
            assert f"{part.observed.high:.4f}" in text
            assert f"{part.observed.mean - part.predicted:.4f}" in text
    assert text.count("<svg") == 4


def test_what_is_plotted(found: run.Report) -> None:
    assert [tuple(each["plot"].values()) for each in sections.of(found)["sections"]] == [
        ("order", "NDCG@10", None),
        ("order", "change of NDCG@10", "against"),
        ("order", "KL to what was liked", None),
        ("chance told", "gap", "order"),
    ]


def test_a_page_does_not_claim_the_servers_order_where_it_was_not(found: run.Report) -> None:
    made = sections.of(replace(found, no_history_is_server_order=False))["made"]
    assert "exactly" not in made.values()


def test_each_comparison_stands_in_a_row_of_its_own(found: run.Report) -> None:
    rows = sections.of(found)["sections"][1]["rows"]
    assert {(row["order"], row["against"]) for row in rows} == {
        *((title, "server's order") for name, title in run.TITLES.items() if name != run.SERVER),
        ("ours", "ours without the model"),
    }
    ours = next(row for row in rows if row["against"] == "ours without the model")
    assert ours["users better"] == found.against_without_model.users_better


def test_what_could_not_be_measured_is_left_open(found: run.Report) -> None:
    bare = replace(found, beyond=dict.fromkeys(found.beyond, Beyond(None, None, None)))
    shape = sections.of(bare)
    assert shape["sections"][2]["rows"][0]["ECE"] is None
    assert report.html(shape).count("Nothing to plot.") == 2
