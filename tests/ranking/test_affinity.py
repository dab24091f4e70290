"""Tier 1's columns: which candidates each speaks of, and what it says of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_reranker.ranking.affinity import Affinity, Likes
from edge_reranker.ranking.features import evidence
from edge_reranker.ranking.item_to_item import ItemToItem
from edge_reranker.ranking.towers import Towers

NAMES = [f"{number:016x}" * 2 for number in range(4)]
LEARNED, CONTENT = slice(0, 2), slice(2, 4)
ONE = evidence(1)  # what the columns of a user with one item are multiplied by


def towers(n_learned: int = 2) -> Towers:
    identity, zeros = np.eye(4, dtype=np.float32), np.zeros(4, np.float32)
    return Towers(zeros, np.ones(4, np.float32), identity, zeros, np.eye(n_learned, dtype=np.float32))


def vectors(*learned_and_content: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """By name: one of the two directions of each part."""
    found = {}
    for name, (learned, content) in zip(NAMES, learned_and_content, strict=False):
        found[name] = np.zeros(4, np.float32)
        found[name][LEARNED][learned] = found[name][CONTENT][content] = 1.0
    return found


def knows(*names: str) -> ItemToItem:
    """A map of these items, the first of which leads to the last."""
    rows = {name[:16]: row for row, name in enumerate(names)}
    starts = np.array([0] + [1] * len(names))
    return ItemToItem(rows, starts, np.array([len(names) - 1]), np.array([0.5]))


def likes(affinity: Affinity, known: dict[str, NDArray[np.float32]], *names: str) -> Likes:
    weights = np.ones(len(names), np.float32)
    return affinity.likes(known, (names, weights), (names, weights))


def test_learned_and_content_parts_speak_of_different_items() -> None:
    """Of unseen ones the learned part's cosine would be of a place where training never looked."""
    known = vectors((0, 0), (0, 1), (0, 0), (1, 1))
    affinity = Affinity(towers(), knows(NAMES[0], NAMES[1], "f" * 32))
    found = affinity.columns(likes(affinity, known, NAMES[0]), NAMES[1:], known)
    for name in ("towers", "towers_recent", "item_to_item"):
        assert found[name][1].tolist() == [True, False, False], name
    assert found["towers"][0][0] == found["towers_recent"][0][0] == ONE
    for name in ("content", "content_recent"):
        assert found[name][1].tolist() == [False, True, True], name
        assert found[name][0][1:].tolist() == [ONE, 0.0], name
    assert found["unseen"][0].tolist() == [0.0, ONE, ONE]


def test_a_long_history_is_believed_more_by_the_root_of_its_length() -> None:
    known = vectors((0, 0), (0, 0), (1, 0), (0, 1))
    affinity = Affinity(towers(), knows(NAMES[0], NAMES[1], "f" * 32))
    one = affinity.columns(likes(affinity, known, NAMES[0]), NAMES, known)
    four = affinity.columns(likes(affinity, known, *[NAMES[0]] * 4), NAMES, known)
    for name in ("towers", "towers_recent", "content", "content_recent", "unseen"):
        assert one[name][0].any(), name
        assert four[name][0] == pytest.approx(2 * one[name][0]), name


def test_a_pack_that_has_learned_nothing_speaks_of_all_by_their_content() -> None:
    known = vectors((0, 0), (0, 1))
    affinity = Affinity(towers(0))
    found = affinity.columns(likes(affinity, known, NAMES[0]), NAMES[:2], known)
    assert found["content"][1].all()
    assert found["content"][0].tolist() == pytest.approx([ONE, ONE / 2])
    assert not found["towers"][1].any()


def test_a_pack_without_a_map_takes_all_items_as_known() -> None:
    known = vectors((0, 0), (0, 0))
    affinity = Affinity(towers())
    found = affinity.columns(likes(affinity, known, NAMES[0]), NAMES[:2], known)
    assert found["towers"][1].all()
    assert not found["unseen"][0].any()


def test_a_candidate_without_a_vector_is_spoken_of_by_the_map_alone() -> None:
    affinity = Affinity(towers(), knows(NAMES[0], NAMES[1], NAMES[2]))
    known = vectors((0, 0))
    found = affinity.columns(likes(affinity, known, NAMES[0]), NAMES[1:3], known)
    for name in ("towers", "towers_recent", "content", "content_recent", "query_content"):
        assert not found[name][1].any(), name
    assert found["item_to_item"][0].tolist() == [0.0, ONE / 2]


def test_the_query_is_compared_by_content_only() -> None:
    known = vectors((0, 1), (1, 0))
    asked = np.array([1, 0, 0, 1], np.float32)
    affinity = Affinity(towers())
    found = affinity.columns(likes(affinity, known), NAMES[:2], known, asked)
    assert found["query_content"][0].tolist() == [1.0, 0.0]
    assert not found["towers"][0].any(), "nothing is known of this user"


@pytest.mark.parametrize("with_map", [True, False])
def test_nothing_is_said_for_somebody_unknown(with_map: bool) -> None:
    affinity = Affinity(towers(), knows(NAMES[0]) if with_map else None)
    known = vectors((0, 0), (1, 1))
    nobody = likes(affinity, known)
    assert not nobody.has_vector
    for name, (scores, _) in affinity.columns(nobody, NAMES[:2], known).items():
        assert scores.tolist() == [0.0, 0.0], name


def test_centred_on_the_list_what_all_texts_share_says_nothing() -> None:
    """All point the same way but for a little; only the little tells them apart."""
    known = {name: np.array([1.0, 0.0, 0.0, 0.0], np.float32) for name in NAMES}
    for name, step in zip(NAMES, (0.1, 0.1, -0.1, -0.1), strict=True):
        known[name][1] = step
    found = {}
    for centred in ("pack", "list"):
        affinity = Affinity(towers(0), None, centred)
        found[centred] = (
            affinity.columns(likes(affinity, known, NAMES[0]), NAMES[1:], known)["content"][0] / ONE
        )
    assert (found["pack"] > 0.95).all()
    assert found["list"][0] > 0.9
    assert (found["list"][1:] < -0.9).all()


@given(st.permutations(range(4)))
def test_centred_on_the_list_no_order_of_the_candidates_changes_a_bit(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    known = {name: rng.normal(size=4).astype(np.float32) for name in NAMES}
    affinity = Affinity(towers(1), None, "list")
    user = likes(affinity, known, NAMES[0], NAMES[1])
    query = known[NAMES[2]]
    straight = affinity.columns(user, NAMES, known, query)
    mixed = affinity.columns(user, [NAMES[at] for at in order], known, query)
    for name, (scores, _) in straight.items():
        np.testing.assert_array_equal(mixed[name][0], scores[order])
