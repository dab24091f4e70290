"""What the full evaluation trains anew is what a pack would have got."""

from dataclasses import fields

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make torch` installs it; CI does")

from edge_reranker.evaluation import lists, protocol, run
from edge_reranker.models.pack import Encoder
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.towers import Towers
from edge_reranker.training import prior, recipe
from edge_reranker.training.head import Recipe
from edge_reranker.training.retrain import Trainer
from tests.planted import N_EMBD, World, world

SMALL = Recipe(n_dims=8, n_components=16, n_steps=20, batch_size=16)


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


def same(one: Towers, other: Towers) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Towers))


def test_with_all_users_and_items_it_trains_the_packs_towers_and_weights(planted: World) -> None:
    data, hidden = planted
    pack = recipe.make_pack(
        data, hidden, seed=1, recipe=SMALL, encoder=Encoder("made-up", 1, N_EMBD), name="planted"
    )
    split = protocol.split(data)
    trainer = Trainer(recipe.TASTE, SMALL)
    towers, item_to_item = trainer.learn(data.items, hidden, list(split.head.values()), 1)
    assert same(towers, Towers.of(pack.head))
    assert pack.item_to_item is not None
    assert item_to_item is not None
    kept_map = ItemToItem.of(pack.item_to_item)
    assert item_to_item.row_of == kept_map.row_of
    assert np.array_equal(item_to_item.weights, kept_map.weights)
    listed = [run.lister(data, split, pack, hidden).listed(cut) for cut in split.fusion]
    histories = [recipe.history(past, recipe.TASTE) for past in split.head.values()]
    unseen = recipe.unaware(
        data, hidden, listed, histories, seed=1, recipe=SMALL, items=recipe.ITEMS, taste=recipe.TASTE
    )
    for model, kept in ((True, pack.manifest.fusion), (False, pack.manifest.without_model)):
        assert prior.as_prior(trainer.weights(listed, unseen, model)).mean == pytest.approx(
            kept.mean, rel=1e-4
        )


def test_interactions_with_items_left_out_are_as_if_they_had_not_been(planted: World) -> None:
    data, hidden = planted
    users = list(protocol.split(data).head.values())
    kept, rows = data.items[:60], hidden[:60]
    ids = {item.id for item in kept}
    without = [[each for each in past if each.item_id in ids] for past in users]
    trainer = Trainer(recipe.TASTE, SMALL)
    (towers, item_to_item), (other, other_map) = (
        trainer.learn(kept, rows, of_users, 0) for of_users in (users, without)
    )
    assert same(towers, other)
    assert item_to_item is not None
    assert other_map is not None
    assert len(item_to_item.row_of) == 60
    assert np.array_equal(item_to_item.weights, other_map.weights)


def test_a_pack_that_is_older_than_some_items_says_of_them_only_what_their_texts_say(planted: World) -> None:
    data, hidden = planted
    pack = recipe.make_pack(
        data, hidden, seed=1, recipe=SMALL, encoder=Encoder("made-up", 1, N_EMBD), name="planted"
    )
    split = protocol.split(data)
    listed = [run.lister(data, split, pack, hidden).listed(cut) for cut in split.fusion]
    histories = [recipe.history(past, recipe.TASTE) for past in split.head.values()]
    unseen = recipe.unaware(
        data, hidden, listed, histories, seed=1, recipe=SMALL, items=recipe.ITEMS, taste=recipe.TASTE
    )
    column = {name: at for at, name in enumerate(lists.NAMES)}
    matrix = np.concatenate([each.matrix for each in unseen])
    new = matrix[:, column["content"]] != 0
    assert 0.1 < new.mean() < 0.3, "a fifth of the items"
    assert not matrix[new][:, [column["towers"], column["item_to_item"]]].any()
    assert (matrix[~new][:, column["towers"]] != 0).all()
    assert all(
        one.cut is other.cut and one.ids == other.ids for one, other in zip(listed, unseen, strict=True)
    )
