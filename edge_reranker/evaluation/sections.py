"""The evaluation's report in the shape that ``report.html`` draws."""

from __future__ import annotations

from dataclasses import asdict

from edge_reranker.evaluation import run
from edge_reranker.evaluation.metrics import Comparison
from edge_reranker.evaluation.table import Row, Section, Tables

_ACCURACY = (
    "A case is one film that the user liked later. NDCG@10, MRR and HR (hit rate) are means over all cases, "
    "0 for a film that the server's list does not have; hits is NDCG@10 over the cases whose film it has."
)
_CHANGE = (
    "NDCG@10 of the one less that of the other on the same cases, and users by the sign of their change."
)
_BEYOND = (
    "Of the first ten of every list. KL: how far their tags are from those of what the user had liked, in "
    "nats, 0 to 4.6; smaller fits better (Steck 2018). Distance: 1 less the mean cosine of the tags of all "
    "pairs; larger varies more. ECE: how far the chances behind the order are from what was chosen; 95 % of "
    "perfectly calibrated models would stay below ECE by chance. The server's chances are Zipf's law over "
    "its places."
)
_CHANCES = (
    "Predictions in ten bins of equally many, smallest chances first. The gap is the share that was chosen "
    "less the mean chance that was told: at 0 the chances come true, below they boast."
)


def of(report: run.Report) -> Tables:
    """The report's sections; every interval is a 95 % bootstrap over users."""
    return {
        "sections": [_accuracy(report), _changes(report), _beyond(report), _chances(report)],
        "made": {
            "pack": report.pack,
            "users, all later than what was learned from": report.n_users,
            "cases": report.n_cases,
            "share of cases whose film is in the server's list": report.hit_rate,
            "ours / server's order, NDCG@10": report.ratio,
            "with no history it is the server's order": "exactly"
            if report.no_history_is_server_order
            else "NO",
            "intervals": "95 %, bootstrap over users",
        },
    }


def _accuracy(report: run.Report) -> Section:
    rows: list[Row] = [
        {
            "order": title,
            "NDCG@10": asdict(quality.ndcg10),
            "hits": quality.ndcg10_hits_only,
            "MRR": quality.mrr,
            "HR@1": quality.hr1,
            "HR@5": quality.hr5,
            "HR@10": quality.hr10,
        }
        for title, quality in ((title, report.orders[name]) for name, title in run.TITLES.items())
    ]
    return _section("How good the orders are", _ACCURACY, rows, x="order", y="NDCG@10")


def _changes(report: run.Report) -> Section:
    server = run.TITLES[run.SERVER]
    rows: list[Row] = [
        _change(title, server, report.against_server[name])
        for name, title in run.TITLES.items()
        if name != run.SERVER
    ]
    without = run.TITLES[run.WITHOUT_MODEL]
    rows.append(_change(run.TITLES[run.OURS], without, report.against_without_model))
    return _section("What changes", _CHANGE, rows, x="order", y="change of NDCG@10", by="against")


def _change(order: str, against: str, found: Comparison) -> Row:
    return {
        "order": order,
        "against": against,
        "change of NDCG@10": asdict(found.ndcg10),
        "users better": found.users_better,
        "same": found.users_same,
        "worse": found.users_worse,
    }


def _beyond(report: run.Report) -> Section:
    rows: list[Row] = [
        {
            "order": run.TITLES[name],
            "KL to what was liked": asdict(found.divergence) if found.divergence else None,
            "distance": asdict(found.distance) if found.distance else None,
            "ECE": found.reliability.ece if found.reliability else None,
            "ECE by chance": found.reliability.ece_by_chance if found.reliability else None,
        }
        for name, found in report.beyond.items()
    ]
    return _section("Beyond accuracy", _BEYOND, rows, x="order", y="KL to what was liked")


def _chances(report: run.Report) -> Section:
    rows: list[Row] = [
        {
            "order": run.TITLES[name],
            "chance told": each.predicted,
            "chosen": asdict(each.observed),
            "gap": {end: value - each.predicted for end, value in asdict(each.observed).items()},
        }
        for name, found in report.beyond.items()
        if found.reliability
        for each in found.reliability.bins
    ]
    return _section("Whether the chances come true", _CHANCES, rows, x="chance told", y="gap", by="order")


def _section(title: str, note: str, rows: list[Row], *, x: str, y: str, by: str | None = None) -> Section:
    return {"title": title, "note": note, "rows": rows, "plot": {"x": x, "y": y, "by": by}}
