"""Training: it finds a planted preference, it can be repeated, and it says what it made."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

from edge_reranker.errors import FailedPrecondition, Missing
from edge_reranker.evaluation import run
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder
from edge_reranker.ranking import features, fusion
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.training import head, item_to_item, prior, recipe
from edge_reranker.training.head import History, Recipe
from edge_reranker.types import EventType, Item
from tests.planted import N_EMBD, N_GROUPS, World, world

SMALL = Recipe(n_dims=8, n_components=16, n_steps=60, batch_size=16)
ENCODER = Encoder("made-up", 1, N_EMBD)


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


@pytest.fixture(scope="module")
def trained(planted: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[recipe.Trained, Path]:
    data, hidden = planted
    folder = tmp_path_factory.mktemp("pack")
    made = recipe.train(
        data,
        hidden,
        folder,
        more_seeds=(1,),
        recipe=SMALL,
        encoder=ENCODER,
        name="planted",
        command="edge-reranker train --here",
    )
    return made, folder


def test_the_towers_find_the_planted_preference(trained: tuple[recipe.Trained, Path]) -> None:
    made, _ = trained
    ours = made.report.orders[run.OURS].ndcg10.mean
    server = made.report.orders[run.SERVER].ndcg10.mean
    assert ours > 1.5 * server


def test_either_part_alone_finds_the_planted_preference(planted: World) -> None:
    data, hidden = planted

    def made(items: item_to_item.Settings | None) -> run.Report:
        pack = recipe.make_pack(
            data, hidden, seed=0, recipe=SMALL, items=items, encoder=ENCODER, name="planted"
        )
        return run.evaluate(data, pack, hidden)

    towers, both = made(None), made(recipe.ITEMS)
    assert towers.against_without_model.ndcg10.low > 0
    # Without the model, only the map can tell the groups apart: titles do not.
    assert both.against_server[run.WITHOUT_MODEL].ndcg10.low > 0
    assert towers.against_server[run.WITHOUT_MODEL].ndcg10.low <= 0


def test_towers_of_a_large_catalogue_find_it_among_a_share_of_the_items(
    planted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, hidden = planted
    monkeypatch.setattr(head, "MAX_ITEMS", 40)
    monkeypatch.setattr(head, "N_DRAWN", 4)
    few = replace(SMALL, batch_size=4)  # or a batch has all 80 items itself
    pack = recipe.make_pack(data, hidden, seed=0, recipe=few, items=None, encoder=ENCODER, name="planted")
    again = recipe.make_pack(data, hidden, seed=0, recipe=few, items=None, encoder=ENCODER, name="planted")
    assert again.id == pack.id
    assert run.evaluate(data, pack, hidden).against_without_model.ndcg10.low > 0


def test_items_that_are_drawn_stand_for_all_that_the_batch_does_not_have() -> None:
    rng = np.random.default_rng(0)
    known, wanted = np.zeros((2, 3, 9_000), np.float32)
    known[0, 5], wanted[2, [7, 5]] = 0.3, 1.0
    rows, stand_for = head.drawn(known, wanted, rng)
    assert len(set(rows.tolist())) == len(rows) == 2 + head.N_DRAWN
    assert {5, 7} <= set(rows.tolist())
    assert (stand_for[np.isin(rows, [5, 7])] == 0).all()
    assert np.exp(stand_for[~np.isin(rows, [5, 7])]).sum() == pytest.approx(9_000 - 2, rel=1e-4)
    # In the mean over draws, the denominator is that of all items.
    logits = rng.normal(size=9_000)
    sums = []
    for _ in range(50):
        rows, stand_for = head.drawn(known, wanted, rng)
        sums.append(np.exp(logits[rows] + stand_for).sum())
    assert np.mean(sums) == pytest.approx(np.exp(logits).sum(), rel=0.02)


def test_directions_of_a_large_catalogue_are_those_of_a_small_one(
    planted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hidden = planted
    centred = np.concatenate([hidden - hidden.mean(axis=0), np.zeros((len(hidden), 2))], axis=1)
    directions, singular = head.principal(centred, 100)
    monkeypatch.setattr(head, "MAX_ITEMS", 40)
    others, values = head.principal(centred, 100)
    assert directions.shape == others.shape == (N_EMBD, N_EMBD + 2), "what never changes has no direction"
    np.testing.assert_allclose(values, singular, rtol=1e-6)
    np.testing.assert_allclose(others, directions, atol=1e-5)


def test_another_users_history_gains_nothing(trained: tuple[recipe.Trained, Path]) -> None:
    made, _ = trained
    assert made.report.against_server[run.OTHER_HISTORY].ndcg10.low <= 0


def test_no_history_is_exactly_the_servers_order(trained: tuple[recipe.Trained, Path]) -> None:
    made, _ = trained
    assert made.report.no_history_is_server_order
    assert made.report.against_server[run.NO_HISTORY].ndcg10.mean == 0.0


def test_numbers_that_never_change_are_not_magnified(planted: World) -> None:
    """Some encoders have them; their deviation's inverse is beyond half precision."""
    data, hidden = planted
    noise = np.random.default_rng(0).normal(size=(len(hidden), 2)) * 1e-9
    dead = np.concatenate([hidden, noise.astype(np.float32), np.zeros((len(hidden), 1), np.float32)], axis=1)
    made = recipe.make_pack(
        data, dead, seed=0, recipe=SMALL, encoder=replace(ENCODER, n_embd=N_EMBD + 3), name="planted"
    )
    assert (made.head.scale[N_EMBD:] == 0).all()
    assert (made.head.scale[:N_EMBD] > 0).all()


def test_the_pack_on_disk_is_the_one_that_was_measured(trained: tuple[recipe.Trained, Path]) -> None:
    made, folder = trained
    assert packs.load(folder).id == made.pack.id == made.report.pack
    assert made.pack.manifest.encoder == ENCODER


def test_the_card_tells_data_licence_figures_seeds_and_command(trained: tuple[recipe.Trained, Path]) -> None:
    made, folder = trained
    text = (folder / packs.CARD_FILE).read_text()
    assert made.pack.id in text
    assert "forbid redistribution" in text
    assert made.report.as_text() in text
    assert "seed 0" in text
    assert "seed 1" in text
    assert "random numbers" in text
    assert f"{made.report.n_users} tested. Fewer than 50 of a kind are little" in text
    assert "edge-reranker train --here" in text


def test_training_again_gives_the_same_pack(planted: World, trained: tuple[recipe.Trained, Path]) -> None:
    data, hidden = planted
    made, _ = trained
    again = recipe.make_pack(data, hidden, seed=0, recipe=SMALL, encoder=ENCODER, name="planted")
    assert again.id == made.pack.id


def test_an_item_met_again_is_one_item_where_it_was_first_liked() -> None:
    view, purchase = EventType.VIEW, EventType.PURCHASE
    times = enumerate([("a", view), ("b", view), ("a", purchase), ("a", purchase)])
    met = [Interaction("u", item, type_, day * 86_400.0) for day, (item, type_) in times]
    found = recipe.history(Log.of([Item("a"), Item("b")], met).interactions, recipe.TASTE)
    assert found.rows.tolist() == [1, 0]
    assert found.liked.tolist() == [False, True]
    assert found.weights == pytest.approx([0.3 * 0.5 ** (2 / 30), 0.5 ** (1 / 30)])


def test_another_seed_gives_another_head(planted: World, trained: tuple[recipe.Trained, Path]) -> None:
    data, hidden = planted
    made, _ = trained
    other = recipe.make_pack(data, hidden, seed=1, recipe=SMALL, encoder=ENCODER, name="planted")
    assert other.manifest.weights_sha256 != made.pack.manifest.weights_sha256


def test_later_users_do_not_change_the_pack(planted: World, trained: tuple[recipe.Trained, Path]) -> None:
    data, hidden = planted
    made, _ = trained
    turned = {EventType.LIKE: EventType.DISLIKE, EventType.DISLIKE: EventType.LIKE}
    last = max(data.at_s)
    changed = [i._replace(type=turned[i.type]) if i.at_s > 0.75 * last else i for i in data.interactions]
    other = recipe.make_pack(
        Log.of(data.items, changed), hidden, seed=0, recipe=SMALL, encoder=ENCODER, name="planted"
    )
    assert other.id == made.pack.id


def test_training_leaves_torch_as_it_was(planted: World) -> None:
    import torch

    _, hidden = planted
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    rows = np.arange(0, 80, N_GROUPS)
    history = History(rows, np.ones(len(rows), np.float32), np.ones(len(rows), bool))
    head.train_head(hidden, [history], replace(SMALL, n_steps=3), seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_histories_that_cannot_teach_are_refused(planted: World) -> None:
    _, hidden = planted
    nothing_liked = History(np.arange(8), np.ones(8, np.float32), np.zeros(8, bool))
    with pytest.raises(FailedPrecondition, match="of the 1 users who teach the towers, none has"):
        head.train_head(hidden, [nothing_liked], SMALL, seed=0)


def test_without_torch_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Missing, match=r"pip install 'edge-reranker\[train\]'"):
        head.require_torch()


@pytest.mark.parametrize("model", [True, False])
def test_before_any_choice_every_column_has_a_belief_and_only_a_model_fills_its_own(model: bool) -> None:
    weights = prior.before(model=model)
    assert ("towers" in weights.names) is model
    left_out = set(features.FEATURES) - set(weights.names)
    assert left_out == features.OF_THE_USER | (set() if model else prior.OF_A_MODEL)
    assert (np.diag(weights.covariance) > 0).all()


def test_the_prior_is_as_wide_as_users_differ() -> None:
    rng = np.random.default_rng(0)
    names = ("server_rank", "towers")
    centre, spread = np.array([-0.5, 2.0]), np.array([0.3, 1.5])
    chosen = []
    for _ in range(150):
        own = centre + spread * rng.normal(size=2)
        matrix = rng.normal(size=(4, 30, 2))
        matrix[:, :, 0] = features.server_rank(30)
        offset = matrix[:, :, 0]
        logits = offset + matrix @ own
        counts = np.stack([rng.multinomial(5, np.exp(row) / np.exp(row).sum()) for row in logits])
        chosen.append([fusion.Choices(matrix, counts.astype(float), offset)])
    found = prior.between_users(chosen, fusion.Weights(names, centre, np.eye(2)), np.array([True, True]))
    assert np.sqrt(np.diag(found)) == pytest.approx(spread, rel=0.3)


def test_columns_that_the_data_never_fills_keep_the_belief(trained: tuple[recipe.Trained, Path]) -> None:
    made, _ = trained
    fitted = fusion.Weights.of(made.pack.manifest.fusion)
    at = fitted.names.index("query_text")
    assert fitted.mean[at] == pytest.approx(prior.BEFORE["query_text"][0])
    assert fitted.covariance[at, at] == pytest.approx(prior.BEFORE["query_text"][1] ** 2)


def test_the_map_keeps_the_largest_weights_of_the_best_known_items() -> None:
    rng = np.random.default_rng(0)
    histories = [
        History(np.sort(rng.permutation(12)[:6]), np.ones(6, np.float32), rng.random(6) < 0.7)
        for _ in range(50)
    ]
    hashes = [f"{(row * 2654435761) % 2**32:08x}" * 4 for row in range(14)]
    whole = item_to_item.learn(histories, hashes, item_to_item.Settings(n_weights=10_000))
    assert len(whole.keys) == 12, "two of the items nobody knows"
    assert len(whole.others) == 12 * 11
    few = item_to_item.learn(histories, hashes, item_to_item.Settings(n_weights=20))
    assert few.problem == whole.problem == ""
    assert 20 <= len(few.others) <= 24, "equal weights stay together"
    smallest = np.abs(few.weights.astype(int)).min()
    assert (np.abs(whole.weights.astype(int)) > smallest).sum() <= len(few.others)


def test_items_that_the_same_people_like_find_each_other() -> None:
    pairs = [(0, 1), (2, 3), (4, 5)] * 20
    histories = [History(np.array(pair), np.ones(2, np.float32), np.ones(2, np.bool_)) for pair in pairs]
    hashes = [f"{row + 1:032x}" for row in range(6)]
    hashes = [name[16:] + name[:16] for name in hashes]
    found = ItemToItem.of(item_to_item.learn(histories, hashes, item_to_item.Settings(ridge=5.0)))
    for known, other in ((0, 1), (3, 2), (4, 5)):
        scores = found.scores(found.user([hashes[known]], np.ones(1)), hashes)
        assert scores.argmax() == other
