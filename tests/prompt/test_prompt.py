"""What a model reads."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from edge_reranker.prompt import TEMPLATES, clean, content_hash, item_pieces, item_text
from edge_reranker.types import Context, Event, EventType, Item

TEMPLATE = TEMPLATES["default"]
text = st.text(max_size=60)
items = st.builds(Item, id=st.just("x"), title=text, text=text, tags=st.lists(text, max_size=3).map(tuple))


@given(st.text(), st.integers(1, 50))
@example("0 \u200b 0", 50)  # two spaces are left
@example("e\u200b\u0301", 50)  # a letter and its accent are left
def test_cleaning_is_bounded_printable_and_stable(value: str, limit: int) -> None:
    once = clean(value, limit)
    assert len(once) <= limit
    assert once.isprintable()
    assert clean(once, limit) == once


def test_invisible_characters_go_and_white_space_folds() -> None:
    assert clean("a\u200bb\u202e\x00c\n\t d", 99) == "abc d"
    assert clean("e\u0301", 99) == "é"


def test_an_item_reads_as_title_tags_and_text() -> None:
    item = Item("1", "Toy Story (1995)", tags=("Animation", "Comedy"))
    assert item_text(item) == "Toy Story (1995). Animation, Comedy"
    assert item_text(Item("1", text="only text")) == "only text"
    assert item_text(Item("1")) == ""


@given(items)
def test_all_of_an_item_is_data(item: Item) -> None:
    assert not any(piece.structure for piece in item_pieces(item))


def test_the_hash_names_the_text_and_nothing_else() -> None:
    one = Item("1", "Heat", tags=("Crime",), attributes={"year": "1995"})
    assert content_hash(one) == content_hash(Item("2", "Heat", tags=("Crime",)))
    assert content_hash(one) != content_hash(Item("1", "Heat", tags=("Drama",)))


def event(number: int, kind: EventType = EventType.LIKE) -> Event:
    return Event(str(number), kind, float(number), Item(str(number), f"Film {number}"))


@given(st.integers(0, 8))
def test_a_new_event_only_adds_to_the_end_of_the_prefix(n: int) -> None:
    *before, closing = TEMPLATE.prefix(Context(tuple(event(i) for i in range(n))), "")
    after = TEMPLATE.prefix(Context(tuple(event(i) for i in range(n + 1))), "")
    assert after[: len(before)] == before
    assert after[len(before) + 1 :] == [closing]


@given(items)
def test_structure_never_holds_what_a_candidate_says(item: Item) -> None:
    suffix = TEMPLATE.suffix(item)
    assert [piece.text for piece in suffix if piece.structure] == [TEMPLATE.after_candidate]


def test_impressions_say_nothing_and_searches_are_words() -> None:
    context = Context(
        (event(1, EventType.IMPRESSION), Event("2", EventType.SEARCH, 2.0, query="space opera"))
    )
    lines = [piece.text for piece in TEMPLATE.prefix(context, "heist")]
    assert lines[2:] == ["- searched for space opera\n", "Now they search for: heist\n", "?"]


def test_titles_alone_tell_of_more_events_in_less_room() -> None:
    item = Item("1", "Heat (1995)", tags=("Crime", "Drama"))
    context = Context((Event("e", EventType.LIKE, 0.0, item),))
    assert TEMPLATES["default"].lines(context) == [("e", "- liked Heat (1995) [Crime, Drama]\n")]
    assert TEMPLATES["titles"].lines(context) == [("e", "- liked Heat\n")]
    assert TEMPLATES["titles"].suffix(item) == TEMPLATES["default"].suffix(item)
