"""The evaluation as a whole, on a made-up world, and the pack that ships."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_reranker.evaluation import beyond, lists, metrics, movielens, policies, protocol, run
from edge_reranker.evaluation.log import Interaction
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder, Head, Manifest, Pack, Prior, TasteSettings
from edge_reranker.ranking import fusion, profile
from edge_reranker.types import EventType, Policy
from tests.planted import N_EMBD, N_GROUPS, N_ITEMS, World, world

SHIPPED = Path(__file__).parents[2] / "packs" / "movielens-minilm"


@pytest.fixture(scope="module")
def data_and_hidden() -> World:
    return world()


@pytest.fixture(scope="module")
def pack() -> Pack:
    """Vectors are the hidden states themselves; only they and the server have a say."""
    prior = Prior(("server_rank", "towers"), (-0.9, 5.0), ((1.0, 0.0), (0.0, 1.0)))
    without = Prior(("server_rank",), (0.0,), ((1.0,),))
    identity = np.eye(N_EMBD, dtype=np.float16)
    zeros, ones = np.zeros(N_EMBD, np.float16), np.ones(N_EMBD, np.float16)
    manifest = Manifest(
        "plain",
        "1",
        Encoder("made-up", 1, N_EMBD),
        TasteSettings({"LIKE": 1.0}, 30.0, 50, 7.0),
        prior,
        without,
    )
    return packs.make(manifest, Head(zeros, ones, identity, zeros, identity))


@pytest.fixture(scope="module")
def report(data_and_hidden: World, pack: Pack) -> run.Report:
    data, hidden = data_and_hidden
    return run.evaluate(data, pack, hidden)


def test_vectors_that_show_the_preference_beat_the_servers_order(report: run.Report) -> None:
    assert report.ratio > 1.5
    assert report.against_server[run.OURS].ndcg10.low > 0


def test_policies_do_what_they_are_for_and_none_is_the_order(
    data_and_hidden: World, pack: Pack, report: run.Report
) -> None:
    data, hidden = data_and_hidden
    tagged = [item._replace(tags=(f"tag {at % 7}",)) for at, item in enumerate(data.items)]
    data = replace(data, items=tuple(tagged))
    split = protocol.split(data)
    lister = run.lister(data, split, pack, hidden)
    found = policies.compare(
        [lister.listed(cut) for cut in split.test],
        lister,
        fusion.Weights.of(pack.manifest.fusion),
        {"varied": Policy(diversity=0.9), "calibrated": Policy(calibration=0.9)},
    )
    none, varied, calibrated = found["none"], found["varied"], found["calibrated"]
    assert none.ndcg10 == report.orders[run.OURS].ndcg10
    assert none.users_worse == 0
    assert none.distance is not None
    assert varied.distance is not None
    assert varied.distance.low > none.distance.high
    assert none.from_taste is not None
    assert calibrated.from_taste is not None
    assert calibrated.from_taste.high < none.from_taste.low
    assert (calibrated.from_taste_of <= none.from_taste_of + 1e-9).all()


def test_with_no_say_of_its_own_the_fusion_is_the_servers_order(report: run.Report) -> None:
    assert report.orders[run.WITHOUT_MODEL] == report.orders[run.SERVER]
    assert report.against_server[run.WITHOUT_MODEL].users_same == report.n_users


def test_an_empty_history_is_exactly_the_servers_order(report: run.Report) -> None:
    assert report.no_history_is_server_order
    assert report.orders[run.NO_HISTORY] == report.orders[run.SERVER]


def test_another_users_history_gains_nothing(report: run.Report) -> None:
    assert report.against_server[run.OTHER_HISTORY].ndcg10.low <= 0


def test_the_report_is_json_and_a_table_with_every_order(report: run.Report) -> None:
    assert json.loads(json.dumps(report.as_dict()))["orders"]["ours"]["ndcg10"]["mean"] > 0
    text = report.as_text()
    for title in ("server's order", "ours without the model", "no history", "another user's history"):
        assert title in text
    assert f"{report.ratio:.2f} x" in text


def test_without_tags_only_the_chances_can_be_measured(report: run.Report) -> None:
    assert list(report.beyond) == [run.SERVER, run.WITHOUT_MODEL, run.OURS]
    for found in report.beyond.values():
        assert found.divergence is None
        assert found.distance is None
        assert found.reliability is not None
    # With no say of its own the fusion has the server's chances too.
    assert report.beyond[run.WITHOUT_MODEL] == report.beyond[run.SERVER]


def test_lists_that_show_the_preference_fit_the_users_tags_and_vary_less(
    data_and_hidden: World, pack: Pack
) -> None:
    data, hidden = data_and_hidden
    tagged = tuple(item._replace(tags=(f"group {int(item.id) % N_GROUPS}",)) for item in data.items)
    found = run.evaluate(replace(data, items=tagged), pack, hidden)
    server, ours = found.beyond[run.SERVER], found.beyond[run.OURS]
    assert server.divergence is not None
    assert ours.divergence is not None
    assert ours.divergence.high < server.divergence.low
    assert server.distance is not None
    assert ours.distance is not None
    assert ours.distance.high < server.distance.low
    plain = json.loads(json.dumps(found.as_dict()))["beyond"]["ours"]
    assert plain["divergence"]["mean"] == ours.divergence.mean
    assert len(plain["reliability"]["bins"]) == 10
    line = next(line for line in found.as_text().splitlines() if f"{ours.divergence.mean:.4f} [" in line)
    assert line.startswith("ours ")
    assert f"{ours.distance.mean:.4f} [{ours.distance.low:.4f}, {ours.distance.high:.4f}]" in line
    assert ours.reliability is not None
    assert f"{ours.reliability.ece:.5f} (by chance {ours.reliability.ece_by_chance:.5f})" in line


def test_the_truth_is_never_put_into_a_list(data_and_hidden: World, pack: Pack) -> None:
    data, hidden = data_and_hidden
    split = protocol.split(data)
    make = run.lister(data, split, pack, hidden, n_candidates=5)
    listed = [make.listed(cut) for cut in split.test]
    assert {len(each.matrix) for each in listed} == {5}
    assert any(None in each.targets for each in listed)


def test_who_has_seen_all_that_the_server_knows_has_an_empty_list_and_a_missed_target(
    data_and_hidden: World, pack: Pack
) -> None:
    data, hidden = data_and_hidden
    make = run.lister(data, protocol.split(data), pack, hidden)
    met = [Interaction("u", item.id, EventType.LIKE, float(at)) for at, item in enumerate(data.items)]
    listed = make.listed(protocol.Cut("u", len(met), met, ("unknown",)))
    assert lists.places([listed], fusion.Weights.of(pack.manifest.fusion)).tolist() == [0]
    assert lists.choices([listed]) == []
    assert beyond.measure([listed], make.items) == beyond.Beyond(None, None, None)


def test_lists_that_packs_share_are_the_lists_of_each(
    data_and_hidden: World, pack: Pack, report: run.Report
) -> None:
    data, hidden = data_and_hidden
    plain = run.Plain.of(data, profile.Taste.of(pack.manifest.taste))
    make = run.lister(data, plain.split, pack, hidden)
    for lists_, cuts in ((plain.fusion, plain.split.fusion), (plain.test, plain.split.test)):
        for found, cut in zip(plain.knowing(lists_, pack, hidden), cuts, strict=True):
            own = make.listed(cut)
            assert found.ids == own.ids
            assert found.targets == own.targets
            np.testing.assert_array_equal(found.matrix, own.matrix)
    assert run.evaluate(data, pack, hidden, plain=plain) == report


def test_strangers_are_other_users_after_as_many_events(data_and_hidden: World) -> None:
    cuts = protocol.split(data_and_hidden[0]).test
    for cut, stranger in zip(cuts, run.another_users(cuts), strict=True):
        assert stranger.user_id != cut.user_id
        assert stranger.n_events == cut.n_events


def test_hidden_states_must_be_one_row_per_item(data_and_hidden: World, pack: Pack) -> None:
    data, hidden = data_and_hidden
    with pytest.raises(ValueError, match=f"{N_ITEMS} items but {N_ITEMS - 1} rows"):
        run.evaluate(data, pack, hidden[:-1])


def test_choices_count_only_targets_that_the_list_has(data_and_hidden: World, pack: Pack) -> None:
    data, hidden = data_and_hidden
    split = protocol.split(data)
    make = run.lister(data, split, pack, hidden, n_candidates=30)
    listed = [make.listed(cut) for cut in split.test]
    counted = sum(part.counts.sum() for part in lists.choices(listed))
    assert counted == sum(at is not None for each in listed for at in each.targets)
    assert 0 < counted < sum(len(each.targets) for each in listed)


def test_the_shipped_pack_loads_is_small_and_has_its_card() -> None:
    found = packs.load(SHIPPED)
    assert found.manifest.encoder.model == "minilm"
    assert found.n_dims == 128
    assert len(found.head.turn) == 64, "the other half is the content part"
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 200 * 1024
    assert found.id in (SHIPPED / packs.CARD_FILE).read_text()


@pytest.mark.model
def test_the_shipped_pack_without_vectors_is_not_worse_than_the_server(movielens_dir: Path) -> None:
    data = movielens.load(movielens_dir)
    found = packs.load(SHIPPED)
    split = protocol.split(data)
    hidden = np.zeros((len(data.items), found.manifest.encoder.n_embd), np.float32)
    make = run.lister(data, split, found, hidden)
    listed = [make.listed(cut) for cut in split.test]
    places = lists.places(listed, fusion.Weights.of(found.manifest.without_model))
    change = metrics.compare(places, lists.server_places(listed), lists.users(listed))
    assert change.ndcg10.low > 0
