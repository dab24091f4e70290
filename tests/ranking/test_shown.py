"""What was shown and what was chosen, as bytes and back, and what is refused."""

from __future__ import annotations

import zlib
from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.ranking.features import server_rank
from edge_reranker.ranking.learning import feedback
from edge_reranker.ranking.learning.feedback import Choice, choice_of
from edge_reranker.ranking.learning.shown import Shown, examination
from edge_reranker.types import EventType
from tests.ranking.made_up import NAMES, a_list

numbers = st.floats(-1e6, 1e6, width=32)
FOR = (EventType.VIEW, EventType.CLICK, EventType.LIKE, EventType.SHARE, EventType.PURCHASE)
AGAINST = (EventType.DISLIKE, EventType.HIDE, EventType.SKIP)


@st.composite
def lists(draw: st.DrawFn) -> Shown:
    """Any list: ids with every character, zero columns, candidates left out, drawn at random or not."""
    ids = draw(st.lists(st.text(max_size=4), min_size=1, max_size=50, unique=True))
    n = len(ids)
    more = draw(st.lists(st.text(max_size=3), max_size=3, unique=True).map(lambda x: [f"x{y}" for y in x]))
    matrix = np.zeros((n, 1 + len(more)))
    matrix[:, 0] = server_rank(n)
    for at in range(1, matrix.shape[1]):
        if draw(st.booleans()):
            matrix[:, at] = draw(st.lists(numbers, min_size=n, max_size=n))
    return Shown(
        ids=tuple(ids),
        names=("server_rank", *more),
        weights=np.array(draw(st.lists(numbers, min_size=1 + len(more), max_size=1 + len(more)))),
        matrix=matrix,
        order=np.array(draw(st.permutations(range(n))), np.intp)[: draw(st.integers(0, n))],
        ours=np.array(draw(st.permutations(range(n))), np.intp),
        with_model=draw(st.booleans()),
        by_server=draw(st.booleans()),
        pack=draw(st.text(max_size=5)),
        exposure=np.array(draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
        if draw(st.booleans())
        else None,
    )


def same(one: Shown | Choice, other: Shown | Choice) -> bool:
    """Equal in every field, arrays in every bit and in their type."""
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
                return False
        elif a != b:
            return False
    return True


@given(lists())
def test_what_was_shown_comes_back_as_it_was(shown: Shown) -> None:
    assert same(Shown.decode(shown.encode()), shown)


@given(lists(), st.sampled_from(EventType), st.floats(0, 100), st.none() | st.integers(0, 60), st.data())
def test_a_choice_comes_back_as_it_was(
    shown: Shown, type_: EventType, dwell_s: float, position: int | None, data: st.DataObject
) -> None:
    choice = choice_of(shown, data.draw(st.sampled_from(shown.ids)), type_, dwell_s, position)
    if choice is not None:
        assert same(Choice.decode(choice.encode()), choice)


@settings(max_examples=30)
@given(st.data())
def test_damaged_bytes_are_refused_or_still_mean_what_they_meant(data: st.DataObject) -> None:
    shown = a_list(np.random.default_rng(0))
    choice = choice_of(shown, "i3", EventType.LIKE)
    assert choice is not None
    for record in (shown, choice):
        whole = bytearray(record.encode())
        at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
        whole[at] ^= 1 << bit
        try:
            again = type(record).decode(bytes(whole))
        except ValueError:
            continue
        assert same(again, record)  # a bit of the compression that stands for nothing


@given(st.binary(max_size=200), st.booleans())
def test_any_other_bytes_are_refused(data: bytes, compressed: bool) -> None:
    for kind in (Shown, Choice):
        with pytest.raises(ValueError, match=r"damaged|another version"):
            kind.decode(zlib.compress(data) if compressed else data)


@pytest.mark.parametrize("cut", [0, 1, 10, 100])
def test_bytes_that_were_cut_off_are_refused(cut: int) -> None:
    shown = a_list(np.random.default_rng(0))
    with pytest.raises(ValueError, match="damaged"):
        Shown.decode(shown.encode()[:cut])


def test_bytes_of_another_version_are_refused() -> None:
    plain = msgspec.msgpack.decode(zlib.decompress(a_list(np.random.default_rng(0)).encode()))
    plain[0] = 99
    with pytest.raises(ValueError, match="another version than 1"):
        Shown.decode(zlib.compress(msgspec.msgpack.encode(plain)))


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused() -> None:
    with pytest.raises(ValueError, match="damaged"):
        Shown.decode(zlib.compress(bytes(64 * 1024 * 1024)))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"ids": ("a",) * 20}, "each id once"),
        ({"names": ("tags",) * len(NAMES)}, "distinct"),
        ({"matrix": np.zeros((3, len(NAMES)))}, "are not 20 x 6"),
        ({"matrix": np.full((20, len(NAMES)), np.nan)}, "finite"),
        ({"matrix": np.full((20, len(NAMES)), 1e300)}, "finite"),
        ({"weights": np.zeros(2)}, "are not 20 x 6"),
        ({"ours": np.zeros(20, np.intp)}, "permutation"),
        ({"order": np.array([1, 2, 2])}, "twice"),
        ({"order": np.array([20])}, "not there"),
        ({"exposure": np.full(20, -1.0)}, "exposure"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changed: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(a_list(np.random.default_rng(0)), **changed)  # type: ignore[arg-type]


def test_an_event_that_is_neither_for_nor_against_an_item_is_no_choice() -> None:
    shown = a_list(np.random.default_rng(0))
    for type_ in (EventType.IMPRESSION, EventType.SEARCH, EventType.UNSPECIFIED):
        assert choice_of(shown, "i0", type_) is None
    assert choice_of(shown, "i0", EventType.DWELL, dwell_s=0.0) is None


def test_an_item_that_was_not_served_cannot_be_chosen() -> None:
    shown = a_list(np.random.default_rng(0), order=np.arange(1, 20))
    assert choice_of(shown, "i0", EventType.CLICK) is None
    assert choice_of(shown, "unheard of", EventType.CLICK) is None
    assert choice_of(a_list(np.random.default_rng(0), order=np.array([3])), "i3", EventType.CLICK) is None


def test_what_costs_the_user_more_counts_more() -> None:
    shown = a_list(np.random.default_rng(0))
    counts = [getattr(choice_of(shown, "i0", type_), "count", 0) for type_ in FOR]
    assert counts == sorted(counts)
    stays = [choice_of(shown, "i0", EventType.DWELL, dwell_s) for dwell_s in (3.0, 30.0, 3000.0)]
    assert [stay.count for stay in stays if stay] == pytest.approx([0.1, 1.0, 1.0])


@pytest.mark.parametrize("type_", AGAINST)
def test_dislikes_and_their_like_are_against(type_: EventType) -> None:
    choice = choice_of(a_list(np.random.default_rng(0)), "i0", type_)
    assert choice is not None
    assert choice.against


@given(st.integers(0, 199), st.integers(0, 50))
def test_a_long_list_is_kept_in_part_and_the_chosen_item_always(place: int, seed: int) -> None:
    shown = a_list(np.random.default_rng(seed), n=200)
    item = shown.ids[shown.order[place]]
    choice = choice_of(shown, item, EventType.CLICK)
    assert choice is not None
    assert len(choice.served) == feedback.HEAD + feedback.TAIL
    assert choice.served[choice.chosen] == place + 1
    assert choice.stands_for.sum() == pytest.approx(200)
    row = shown.matrix[shown.ids.index(item)]
    assert (choice.matrix[choice.chosen] == row[[shown.names.index(name) for name in choice.names]]).all()
    assert len(choice.encode()) < 2_000


def test_places_count_only_what_was_served() -> None:
    shown = a_list(
        np.random.default_rng(0),
        n=5,
        order=np.array([4, 2, 1]),
        ours=np.array([0, 4, 2, 3, 1]),
        exposure=None,
    )
    places = {}
    for index in (4, 2, 1):
        choice = choice_of(shown, f"i{index}", EventType.CLICK)
        assert choice is not None
        places[index] = (choice.served[choice.chosen], choice.our_place, choice.server_place)
    assert places == {4: (1, 1, 3), 2: (2, 2, 2), 1: (3, 3, 1)}


def test_the_apps_word_on_where_an_item_was_goes_for_that_item() -> None:
    shown = a_list(np.random.default_rng(0))
    item = shown.ids[shown.order[2]]
    choice = choice_of(shown, item, EventType.CLICK, position=9)
    far = choice_of(shown, item, EventType.CLICK, position=10**9)
    assert choice is not None
    assert far is not None
    assert (choice.served[choice.chosen], choice.exposure) == (10, examination(10))
    assert far.served[far.chosen] == 20
    assert np.delete(choice.served, choice.chosen).tolist() == [1, 2, *range(4, 21)]


def test_where_the_order_was_drawn_at_random_the_expected_examination_counts() -> None:
    shown = a_list(np.random.default_rng(0), exposure=np.linspace(0.2, 0.6, 20))
    choice = choice_of(shown, "i19", EventType.CLICK)
    assert choice is not None
    assert choice.exposure == pytest.approx(0.6)
