"""What a pack knows of items that the same people like, from its arrays to the order."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.deadline import Deadline
from edge_reranker.engine.fake import FakeEngine
from edge_reranker.errors import PackInvalid
from edge_reranker.models import pack as packs
from edge_reranker.models.item_to_item import ItemToItem as Arrays
from edge_reranker.models.pack import Pack
from edge_reranker.prompt import content_hash
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.types import EventType, RerankQuery, Selector
from tests.parts import film, films, liked, pipeline, prior, small_pack

LONG = Deadline()


def arrays(pairs: dict[tuple[int, int], int], n_items: int = 40) -> Arrays:
    """The map of ``pairs`` of films, each weight in hundredths."""
    hashes = sorted(content_hash(film(number)) for number in range(n_items))
    row_of = {name: row for row, name in enumerate(hashes)}
    dense = np.zeros((n_items, n_items), np.int8)
    for (known, other), weight in pairs.items():
        dense[row_of[content_hash(film(known))], row_of[content_hash(film(other))]] = weight
    rows, others = np.nonzero(dense)
    return Arrays(
        keys=np.array([int(name[:16], 16) for name in hashes], np.uint64),
        starts=np.searchsorted(rows, np.arange(n_items + 1)).astype(np.uint32),
        others=others.astype(np.uint16),
        weights=dense[rows, others],
        unit=np.asarray(0.01, np.float16),
    )


def knowing(pairs: dict[tuple[int, int], int]) -> Pack:
    """The small pack, which listens to nothing but this map."""
    small = small_pack()
    listens = prior(server_rank=-1.0, item_to_item=5.0)
    manifest = dataclasses.replace(small.manifest, fusion=listens, without_model=listens)
    return packs.make(manifest, small.head, item_to_item=arrays(pairs))


def order(whole: Any, n: int = 20) -> list[str]:
    return [each.id for each in whole.rerank("default", RerankQuery(films(n)), LONG).results]


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 9), st.integers(0, 9)), st.integers(-127, 127).filter(bool), max_size=30
    ),
    st.lists(st.integers(0, 12), max_size=6),
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
)
def test_scores_are_the_sums_over_what_is_known(
    pairs: dict[tuple[int, int], int], known: list[int], candidates: list[int]
) -> None:
    of = ItemToItem.of(arrays(pairs, 10))
    weights = np.linspace(0.5, 1.0, len(known))
    user = of.user([content_hash(film(each)) for each in known], weights)
    scores = of.scores(user, [content_hash(film(each)) for each in candidates])
    wanted = [
        sum(w * pairs.get((i, j), 0) for i, w in zip(known, weights, strict=True)) * float(np.float16(0.01))
        for j in candidates
    ]
    assert scores == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("with_model", [True, False])
def test_what_the_same_people_like_rises_with_a_model_and_without(tmp_path: Path, with_model: bool) -> None:
    encoder = FakeEngine() if with_model else None
    with pipeline(tmp_path, encoder=encoder, pack=knowing({(30, 7): 100, (30, 3): -100})) as whole:
        whole.record("default", liked(30))
        found = order(whole)
    assert found[0] == "f7"
    assert found[-1] == "f3"


def test_only_the_newest_items_say_what_somebody_is_up_to(tmp_path: Path) -> None:
    with pipeline(tmp_path, pack=knowing({(30, 7): 100})) as whole:
        whole.record("default", liked(30, 31, 32, 33, 34))
        assert order(whole)[0] == "f7"
        whole.record("default", liked(35, at_s=2e9))
        assert order(whole) == [f"f{number}" for number in range(20)]


def test_what_was_taken_back_or_forgotten_says_nothing(tmp_path: Path) -> None:
    with pipeline(tmp_path, pack=knowing({(30, 7): 100})) as whole:
        whole.record("default", liked(30, 31))
        hidden = dataclasses.replace(liked(30, at_s=2e9)[0], event_id="later", type=EventType.HIDE)
        whole.record("default", [hidden])
        assert order(whole)[0] == "f0"
        whole.forget("default", Selector(event_id="later"))
        assert order(whole)[0] == "f7"
        whole.forget("default", Selector(item_id="f30"))
        assert order(whole)[0] == "f0"


def test_a_pack_keeps_its_map_and_its_id_names_it(tmp_path: Path) -> None:
    pack = knowing({(1, 2): 50, (2, 1): -3})
    packs.save(pack, tmp_path)
    loaded = packs.load(tmp_path)
    assert loaded.item_to_item is not None
    assert pack.item_to_item is not None
    for name, array in pack.item_to_item.named().items():
        assert np.array_equal(array, loaded.item_to_item.named()[name])
    assert loaded.id == pack.id != knowing({(1, 2): 51, (2, 1): -3}).id


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"keys": np.zeros(40, np.uint64)}, "keys do not ascend"),
        ({"keys": np.arange(40, dtype=np.int64)}, "keys is int64"),
        ({"starts": np.zeros(41, np.uint32)}, "starts do not part 1 entries"),
        ({"starts": np.zeros(7, np.uint32)}, "starts is uint32"),
        ({"others": np.array([40], np.uint16)}, "beyond the 40"),
        ({"weights": np.zeros(3, np.int8)}, "weights is int8"),
        ({"unit": np.asarray(np.inf, np.float16)}, "unit is not finite"),
    ],
)
def test_a_map_that_cannot_be_used_is_refused(changes: dict[str, Any], problem: str) -> None:
    small = small_pack()
    bad = dataclasses.replace(arrays({(1, 2): 50}), **changes)
    with pytest.raises(PackInvalid, match=problem):
        packs.make(small.manifest, small.head, item_to_item=bad)


def test_a_map_without_one_of_its_parts_is_refused(tmp_path: Path) -> None:
    packs.save(knowing({(1, 2): 50}), tmp_path)
    with np.load(tmp_path / packs.WEIGHTS_FILE) as file:
        kept = {name: file[name] for name in file if name != "item_to_item_unit"}
    np.savez(tmp_path / packs.WEIGHTS_FILE, **kept)
    manifest = json.loads((tmp_path / packs.MANIFEST_FILE).read_text())
    manifest["weights_sha256"] = hashlib.sha256((tmp_path / packs.WEIGHTS_FILE).read_bytes()).hexdigest()
    (tmp_path / packs.MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(PackInvalid, match="item_to_item_unit"):
        packs.load(tmp_path)
