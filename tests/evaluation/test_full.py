"""The whole protocol on a made-up world, with a trainer that knows the answer or looks at what it gets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_reranker.evaluation import full, lists, protocol, table
from edge_reranker.evaluation.lists import Listed
from edge_reranker.evaluation.log import Interaction
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder, Head, Manifest, Pack, Prior, TasteSettings
from edge_reranker.ranking import fusion
from edge_reranker.ranking.towers import Towers
from edge_reranker.types import Item
from tests.planted import N_EMBD, N_ITEMS, World, world


def plain_pack() -> Pack:
    """Vectors are the hidden states themselves."""
    prior = Prior(("server_rank", "towers"), (-0.9, 5.0), ((1.0, 0.0), (0.0, 1.0)))
    identity = np.eye(N_EMBD, dtype=np.float16)
    zeros, ones = np.zeros(N_EMBD, np.float16), np.ones(N_EMBD, np.float16)
    taste = TasteSettings({"LIKE": 1.0}, 30.0, 50, 7.0)
    manifest = Manifest("plain", "1", Encoder("made-up", 1, N_EMBD), taste, prior, prior)
    return packs.make(manifest, Head(zeros, ones, identity, zeros, identity))


@dataclass
class Watched:
    """A trainer that keeps what it was shown; what it learns is the pack's."""

    saw: list[tuple[set[str], set[str], set[str], int]] = field(default_factory=list)
    weights_saw: list[set[str]] = field(default_factory=list)

    def learn(
        self,
        items: Sequence[Item],
        hidden: NDArray[np.floating],
        users: Sequence[Sequence[Interaction]],
        seed: int,
    ) -> tuple[Towers, None]:
        assert len(items) == len(hidden)
        met = {each.item_id for past in users for each in past}
        names = {each.user_id for past in users for each in past}
        self.saw.append(({item.id for item in items}, met, names, seed))
        return Towers.of(plain_pack().head), None

    def weights(self, listed: Sequence[Listed], unseen: Sequence[Listed], model: bool) -> fusion.Weights:
        self.weights_saw.append({each.cut.user_id for each in (*listed, *unseen)})
        mean = np.array([-0.9, 5.0 if model else 0.0])
        return fusion.Weights(("server_rank", "towers"), mean, np.eye(2))


@pytest.fixture(scope="module")
def planted() -> World:
    return world(n_users=60)


@pytest.fixture(scope="module")
def trainer() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def tables(planted: World, trainer: Watched) -> table.Tables:
    data, hidden = planted
    return full.evaluate(
        data, plain_pack(), hidden, trainer, pools=(10, 40), seeds=(0, 1, 2), few=(10,), curve=(10,)
    )


def rows(tables: table.Tables, title: str) -> list[table.Row]:
    return next(each["rows"] for each in tables["sections"] if each["title"].startswith(title))


def ndcg(found: list[table.Row], **wanted: object) -> float:
    (row,) = [each for each in found if all(each.get(name) == value for name, value in wanted.items())]
    return row["ndcg10"]["mean"]  # type: ignore[index,return-value]


def test_the_report_is_plain_json_in_the_documented_shape(tables: table.Tables) -> None:
    assert json.loads(json.dumps(tables)) == tables
    for section in tables["sections"]:
        assert set(section) == {"title", "note", "rows", "plot"}
        assert section["rows"]
        for name in (section["plot"] or {}).values():
            assert all(name in row for row in section["rows"])


def test_every_server_and_pool_has_its_orders_and_hit_rate(tables: table.Tables) -> None:
    for name in full.SERVERS:
        found = rows(tables, f"Behind {name}")
        assert len(found) == 2 * 3
        rates = [row["hit_rate"] for row in found if row["order"] == "server"]
        assert rates[0] < rates[1] <= 1


def test_a_server_that_knows_the_user_is_better_than_one_that_does_not(tables: table.Tables) -> None:
    def own(name: str) -> float:
        return ndcg(rows(tables, f"Behind {name}"), server=name, pool=40, order="server")

    for name in (full.KNN, full.EASE):
        assert own(name) > 1.5 * own(full.POPULARITY)


def test_in_every_plot_place_and_series_tell_the_rows_apart(tables: table.Tables) -> None:
    for section in tables["sections"]:
        if (plot := section["plot"]) is not None:
            assert plot["by"] is not None
            points = [(row[plot["x"]], row[plot["by"]]) for row in section["rows"]]
            assert len(set(points)) == len(points), section["title"]  # type: ignore[arg-type]


def test_who_is_known_longer_is_served_better_and_the_server_is_as_good_to_all(tables: table.Tables) -> None:
    found = rows(tables, "Newcomers")
    first, last = min(full.KNOWN), max(full.KNOWN)
    assert ndcg(found, order="server", known=first) == ndcg(found, order="server", known=last)
    assert ndcg(found, order="ours", known=last) > ndcg(found, order="ours", known=first)


def test_placebos_gain_nothing_and_ours_does(tables: table.Tables) -> None:
    found = {row["order"]: row["change"] for row in rows(tables, "Placebos")}
    assert found["ours"]["low"] > 0  # type: ignore[index]
    assert found["no history"]["mean"] == 0  # type: ignore[index]
    for name in ("another user's history", "shuffled titles", "shuffled candidates, server"):
        assert found[name]["low"] <= 0, name  # type: ignore[index]
    assert found["shuffled candidates, ours"]["low"] > 0  # type: ignore[index]


def test_no_training_for_cold_items_sees_them(tables: table.Tables, trainer: Watched) -> None:
    assert tables
    cold = [saw for saw in trainer.saw if len(saw[0]) < N_ITEMS]
    assert all(saw[1] <= saw[0] for saw in cold)
    packs, unaware = cold[::2], cold[1::2]
    assert len(packs) == len(unaware) == 3 * 3
    assert {saw[3] for saw in packs} == {0, 1, 2}
    assert {len(saw[0]) for saw in packs} == {round(0.8 * N_ITEMS)}
    left_out = [frozenset(map(str, range(N_ITEMS))) - saw[0] for saw in packs]
    assert len(set(left_out)) == 3
    assert len(frozenset.union(*left_out)) == sum(map(len, set(left_out)))
    # What the fusion learns of unseen items, it learns from others than those that test.
    for whole, fewer in zip(packs, unaware, strict=True):
        assert fewer[0] < whole[0]
        assert len(fewer[0]) == round(0.64 * N_ITEMS)


def test_cold_and_warm_targets_are_reported_apart(tables: table.Tables) -> None:
    found = rows(tables, "Cold items")
    sizes = {row["targets"]: row["n_targets"] for row in found}
    assert 0 < sizes["cold"] < sizes["warm"]
    assert ndcg(found, targets="cold", order="popularity") < 0.2
    assert ndcg(found, targets="cold", order="cosine of the towers") > 0.3


def test_the_learning_curve_learns_from_as_many_users_as_it_says(
    tables: table.Tables, trainer: Watched
) -> None:
    assert [row["n_users"] for row in rows(tables, "Learning curve") if row["order"] == "ours"] == [10, 29]
    whole = [saw for saw in trainer.saw if len(saw[0]) == N_ITEMS]
    assert [len(saw[2]) for saw in whole] == [10, 10, 10, 29, 29, 29]


def test_nothing_is_learned_from_users_who_test(
    planted: World, tables: table.Tables, trainer: Watched
) -> None:
    assert tables
    split = protocol.split(planted[0])
    fusion_users = {cut.user_id for cut in split.fusion}
    assert all(saw and saw <= fusion_users for saw in trainer.weights_saw)
    assert all(saw[2] <= set(split.head) for saw in trainer.saw)


def test_shuffled_candidates_keep_their_features_and_targets(planted: World) -> None:
    data, hidden = planted
    split = protocol.split(data)
    lister = full.run.lister(data, split, plain_pack(), hidden, n_candidates=20)
    before = next(
        each for each in map(lister.listed, split.test) if any(at is not None for at in each.targets)
    )
    after = full._shuffled(before, np.random.default_rng(0))
    assert sorted(after.ids) == sorted(before.ids)
    assert after.ids != before.ids
    tower = lists.NAMES.index("towers")
    for item_id in before.ids:
        assert (
            after.matrix[after.ids.index(item_id), tower] == before.matrix[before.ids.index(item_id), tower]
        )
    for old, new in zip(before.targets, after.targets, strict=True):
        assert (None if old is None else before.ids[old]) == (None if new is None else after.ids[new])
    assert (np.diff(after.matrix[:, lists.NAMES.index("server_rank")]) < 0).all()


def test_the_text_has_every_section_and_row(tables: table.Tables) -> None:
    text = table.as_text(tables)
    assert text.count("== ") == len(tables["sections"])
    assert len([line for line in text.splitlines() if line]) == sum(
        len(each["rows"]) + 3 for each in tables["sections"]
    )


def test_a_rows_change_is_over_all_seeds_and_its_interval_over_users() -> None:
    before = [np.array([2, 2, 0]), np.array([1, 2, 0])]
    after = [np.array([1, 2, 0]), np.array([1, 1, 0])]
    row = table.row("ours", after, ["a", "b", "c"], before, pool=3)
    second = 1 / np.log2(3)
    assert row["ndcg10"]["mean"] == pytest.approx((3 + second) / 6)  # type: ignore[index]
    assert row["change"]["mean"] == pytest.approx(2 * (1 - second) / 6)  # type: ignore[index]
    assert row["change_percent"] == pytest.approx(100 * 2 * (1 - second) / (1 + 3 * second))
    assert (row["users_better"], row["users_same"], row["users_worse"]) == (2, 1, 0)
    assert row["pool"] == 3
