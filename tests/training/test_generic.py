"""The pack for domains without a log."""

from pathlib import Path

import numpy as np
import pytest

from edge_reranker.evaluation import lists, metrics, protocol, run
from edge_reranker.models import pack as packs
from edge_reranker.models.pack import Encoder, Pack
from edge_reranker.ranking import fusion
from edge_reranker.training import generic, prior
from tests.planted import N_EMBD, World, world


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


@pytest.fixture(scope="module")
def pack(planted: World) -> Pack:
    return generic.make_pack(*planted, encoder=Encoder("made-up", 1, N_EMBD))


def test_it_has_learned_nothing_of_any_item(pack: Pack) -> None:
    assert pack.item_to_item is None
    assert pack.manifest.centred == "list"
    assert len(pack.head.turn) == 0
    hidden = np.arange(N_EMBD, dtype=np.float16)
    np.testing.assert_array_equal(hidden @ pack.head.project, hidden)


def test_it_has_learned_how_far_to_trust_texts_and_is_no_surer_than_before(pack: Pack) -> None:
    fusion_prior = pack.manifest.fusion
    weight = dict(zip(fusion_prior.names, fusion_prior.mean, strict=True))
    assert weight["towers"] == weight["item_to_item"] == 0.0
    assert weight["content"] + weight["content_recent"] > 1.0, "the planted states tell what people like"
    before = prior.before()
    assert (np.diag(np.array(fusion_prior.covariance)) >= np.diag(before.covariance) * (1 - 1e-5)).all()


def test_it_orders_lists_of_a_catalogue_better_than_the_server_does(planted: World, pack: Pack) -> None:
    data, hidden = planted
    split = protocol.split(data)
    make = run.lister(data, split, pack, hidden)
    listed = [make.listed(cut) for cut in split.test]
    ours = lists.places(listed, fusion.Weights.of(pack.manifest.fusion))
    change = metrics.compare(ours, lists.server_places(listed), lists.users(listed))
    assert change.ndcg10.low > 0


def test_a_state_far_from_all_of_training_is_no_different(planted: World, pack: Pack) -> None:
    """What is common to all texts of a domain is taken away, list by list."""
    data, hidden = planted
    split = protocol.split(data)
    far = hidden + np.float32(5.0)
    weights = fusion.Weights.of(pack.manifest.fusion)
    gains = []
    for states in (hidden, far):
        make = run.lister(data, split, pack, states)
        listed = [make.listed(cut) for cut in split.test]
        gains.append(metrics.ndcg(lists.places(listed, weights)).mean())
    assert gains[1] > 0.9 * gains[0]


def test_it_is_kept_and_read_again_as_it_was(pack: Pack, tmp_path: Path) -> None:
    packs.save(pack, tmp_path)
    assert packs.load(tmp_path).id == pack.id
