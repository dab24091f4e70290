"""Tier 0: every column of every candidate."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_reranker.ranking import features, lexical
from edge_reranker.ranking.features import FEATURES, PERSONAL, evidence
from edge_reranker.ranking.profile import Profile, Taste, profile
from edge_reranker.types import Candidate, Context, Event, EventType, Item, Neighbour, RerankQuery

NOW_S = 1.7e9
DAY_S = 86_400.0
ONE = evidence(1)  # what the columns of a user with one item are multiplied by


def liked(*items: Item) -> Profile:
    return profile(Context(tuple(Event(i.id, EventType.LIKE, NOW_S, item=i) for i in items)))


def column(
    name: str, user: Profile, candidates: Iterable[Candidate], query: str = "", **more: Any
) -> NDArray[np.float64]:
    matrix = features.features(user, RerankQuery(tuple(candidates), query=query), now_s=NOW_S, **more)
    return matrix[:, (*FEATURES, *more.get("named", ())).index(name)]


texts = st.text(max_size=40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
items = st.builds(
    Item,
    id=st.text(min_size=1, max_size=3),
    title=texts,
    text=texts,
    tags=st.lists(texts, max_size=4).map(tuple),
    attributes=st.dictionaries(texts, texts, max_size=3),
)
candidates_lists = st.lists(
    st.builds(
        Candidate,
        item=items,
        server_score=st.none() | numbers,
        published_at=st.none() | st.floats(-1e12, 1e12),
        features=st.dictionaries(st.sampled_from(["price", "stars"]), numbers),
        neighbours=st.lists(
            st.builds(Neighbour, id=st.text(max_size=2), weight=st.floats(0, 1e6)), max_size=3
        ).map(tuple),
        vector=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3).map(tuple),
        vector_space=st.just("theirs"),
    ),
    min_size=1,
    max_size=12,
)
events = st.builds(
    Event,
    event_id=st.just("e"),
    type=st.sampled_from(list(EventType)),
    occurred_at=st.floats(9e8, 4e9),
    item=st.none() | items,
    query=texts,
)


@settings(max_examples=60, deadline=None)
@given(candidates_lists, st.lists(events, max_size=8), texts)
def test_every_value_is_finite_whatever_comes_in(
    candidates: list[Candidate], history: list[Event], query: str
) -> None:
    user = profile(Context(tuple(history)))
    vectors = {"theirs": {item.id: np.array([1.0, -2.0, 0.5], np.float32) for item in user.items}}
    matrix = features.features(
        user,
        RerankQuery(tuple(candidates), query=query),
        now_s=NOW_S,
        named=("price",),
        history_vectors=vectors,
    )
    assert matrix.shape == (len(candidates), len(FEATURES) + 1)
    assert np.isfinite(matrix).all()


@settings(max_examples=40, deadline=None)
@given(candidates_lists)
def test_without_a_history_every_personal_column_is_exactly_zero(candidates: list[Candidate]) -> None:
    vectors = {"theirs": {"a": np.ones(3, np.float32)}}
    matrix = features.features(
        profile(Context()), RerankQuery(tuple(candidates)), now_s=NOW_S, history_vectors=vectors
    )
    personal = [at for at, name in enumerate(FEATURES) if name in PERSONAL]
    assert (matrix[:, personal] == 0).all()
    assert (matrix[:, FEATURES.index("query_text")] == 0).all()


def test_server_rank_falls_strictly_and_is_centred() -> None:
    prior = features.server_rank(1000)
    assert (np.diff(prior) < 0).all()
    assert prior.mean() == pytest.approx(0.0, abs=1e-12)


def test_server_scores_are_standardised_only_when_all_are_there_and_agree_with_the_list() -> None:
    def scored(*scores: float | None) -> list[float]:
        found = [Candidate(Item(str(at)), server_score=score) for at, score in enumerate(scores)]
        return [float(value) for value in column("server_score", Profile(), found)]

    assert scored(30.0, 20.0, 10.0) == pytest.approx([math.sqrt(1.5), 0.0, -math.sqrt(1.5)])
    assert scored(3e300, 2e300, 1e300) == pytest.approx(scored(3.0, 2.0, 1.0))
    assert scored(30.0, None, 10.0) == [0.0, 0.0, 0.0]
    assert scored(10.0, 20.0, 30.0) == [0.0, 0.0, 0.0]
    assert scored(5.0, 5.0) == [0.0, 0.0]


def test_history_text_prefers_the_candidate_that_shares_a_rare_word_with_a_liked_item() -> None:
    user = liked(Item("h", title="Star Wars"))
    found = column(
        "history_text", user, [Candidate(Item("a", title="Star Trek")), Candidate(Item("b", title="Babe"))]
    )
    assert found[0] > found[1] == 0.0


def test_query_text_finds_words_in_title_text_and_tags_whatever_their_case() -> None:
    candidates = [
        Candidate(Item("none", title="Babe")),
        Candidate(Item("title", title="JAZZ night")),
        Candidate(Item("text", text="all about jazz")),
        Candidate(Item("tag", tags=("Jazz",))),
    ]
    found = column("query_text", Profile(), candidates, query="jazz")
    assert found[0] == 0.0
    assert (found[1:] > 0).all()


def test_matching_more_of_the_query_scores_higher() -> None:
    candidates = [Candidate(Item("a", title="jazz piano")), Candidate(Item("b", title="jazz drums"))]
    found = column(
        "query_text", Profile(), [*candidates, Candidate(Item("c", title="x y"))], query="jazz piano"
    )
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("n", [5, 100, 1000])
def test_text_columns_stay_of_unit_scale_whatever_the_lists_length(n: int) -> None:
    candidates = [Candidate(Item(str(at), title=f"word{at} filler")) for at in range(n)]
    found = column("query_text", Profile(), candidates, query="word3")
    assert 0.2 < found[3] <= 1.5


def test_tags_are_the_cosine_of_the_candidates_and_the_historys() -> None:
    user = liked(Item("h", tags=("War", "Drama")))
    candidates = [
        Candidate(Item("both", tags=("drama", "WAR"))),
        Candidate(Item("one", tags=("Drama",))),
        Candidate(Item("none", tags=("Comedy",))),
        Candidate(Item("bare")),
    ]
    assert column("tags", user, candidates) == pytest.approx(ONE * np.array([1.0, math.sqrt(0.5), 0.0, 0.0]))


def test_a_long_history_is_believed_more_by_the_root_of_its_length() -> None:
    candidates = [Candidate(Item("a", "Solaris", tags=("War",))), Candidate(Item("b"))]
    one = liked(Item("0", "Solaris", tags=("War",)))
    many = liked(*(Item(str(at), "Solaris", tags=("War",)) for at in range(16)))
    for name in ("tags", "history_text"):
        found = [column(name, user, candidates, query="Solaris")[0] for user in (one, many)]
        assert found[0] > 0
        assert found[1] == pytest.approx(4 * found[0])
    for name in ("server_rank", "query_text"):
        found = [column(name, user, candidates, query="Solaris")[0] for user in (one, many)]
        assert found[1] == found[0] > 0


def test_somebody_who_only_searched_is_known_a_little() -> None:
    searched = profile(Context((Event("e", EventType.SEARCH, NOW_S, query="solaris"),)))
    assert column("history_text", searched, [Candidate(Item("a", "Solaris")), Candidate(Item("b"))])[0] > 0


def test_attributes_are_the_share_of_the_history_with_the_same_value() -> None:
    user = liked(*(Item(str(at), attributes={"author": "Le Guin" if at else "Lem"}) for at in range(4)))
    candidates = [
        Candidate(Item("a", attributes={"author": "Le Guin"})),
        Candidate(Item("b", attributes={"author": "Lem", "year": "1961"})),
        Candidate(Item("c", attributes={"editor": "Lem"})),
    ]
    found = column("attributes", user, candidates)
    assert found == pytest.approx(evidence(4) * np.array([0.75, 0.125, 0.0]))


def test_recency_halves_with_every_half_life_and_an_unknown_age_counts_neither_way() -> None:
    ages = [0.0, 7.0, None, 14.0]
    candidates = [
        Candidate(Item(str(at)), published_at=None if age is None else NOW_S - age * DAY_S)
        for at, age in enumerate(ages)
    ]
    found = column("recency", Profile(), candidates, taste=Taste(fresh_half_life_days=7.0))
    assert found[2] == 0.0
    assert found[0] - found[1] == pytest.approx(0.5)
    assert found[1] - found[3] == pytest.approx(0.25)


def test_neighbours_add_up_the_liked_items_that_the_backend_calls_similar() -> None:
    user = liked(Item("x"), Item("y"))
    candidates = [
        Candidate(Item("two"), neighbours=(Neighbour("x", 10.0), Neighbour("y", 10.0))),
        Candidate(Item("one"), neighbours=(Neighbour("x", 10.0), Neighbour("unknown", 10.0))),
        Candidate(Item("weak"), neighbours=(Neighbour("x", 5.0),)),
        Candidate(Item("none")),
    ]
    half = math.sqrt(0.5)
    found = column("neighbours", user, candidates)
    assert found == pytest.approx(evidence(2) * np.array([2 * half, half, half / 2, 0.0]))


def test_public_vectors_compare_only_within_one_space() -> None:
    user = liked(Item("x"))
    vectors = {"theirs": {"x": np.array([2.0, 0.0], np.float32)}}
    candidates = [
        Candidate(Item("near"), vector=(3.0, 0.0), vector_space="theirs"),
        Candidate(Item("far"), vector=(0.0, 1.0), vector_space="theirs"),
        Candidate(Item("other"), vector=(3.0, 0.0), vector_space="another"),
        Candidate(Item("none")),
    ]
    found = column("public_vector", user, candidates, history_vectors=vectors)
    assert found == pytest.approx(ONE * np.array([0.5, -0.5, 0.0, 0.0]))


def test_named_features_are_standardised_and_a_missing_one_counts_neither_way() -> None:
    candidates = [
        Candidate(Item("a"), features={"stars": 1.0, "ignored": 9.0}),
        Candidate(Item("b"), features={"stars": 3.0}),
        Candidate(Item("c")),
    ]
    assert column("stars", Profile(), candidates, named=("stars",)) == pytest.approx([-1.0, 1.0, 0.0])


def test_a_column_of_a_later_tier_is_centred_over_the_reached_and_zero_elsewhere() -> None:
    matrix = features.features(
        Profile(), RerankQuery(tuple(Candidate(Item(str(at))) for at in range(4))), now_s=NOW_S
    )
    reached = np.array([True, False, True, False])
    changed = features.with_columns(matrix, {"towers": (np.array([0.9, 7.0, 0.5, -7.0]), reached)})
    assert changed[:, FEATURES.index("towers")] == pytest.approx([0.2, 0.0, -0.2, 0.0])
    assert (matrix[:, FEATURES.index("towers")] == 0).all()


def test_a_column_that_reached_nobody_is_zero() -> None:
    matrix = np.ones((2, len(FEATURES)))
    changed = features.with_columns(matrix, {"scorer": (np.array([1.0, 2.0]), np.zeros(2, bool))})
    assert (changed[:, FEATURES.index("scorer")] == 0).all()


def test_bm25_equals_its_formula() -> None:
    documents = [["a", "b", "b"], ["a"], ["c", "c"]]
    found = lexical.scores(documents, [{"b": 2.0}, {"a": 1.0, "zzz": 1.0}])

    def score(tf: int, n_words: int, n_with: int) -> float:
        idf = math.log(1 + (3 - n_with + 0.5) / (n_with + 0.5))
        return idf * tf / (tf + 1.5 * (0.25 + 0.75 * n_words / 2)) / math.log(4)

    assert found[0] == pytest.approx([2 * score(2, 3, 1), 0.0, 0.0], rel=1e-5)
    assert found[1] == pytest.approx([score(1, 3, 2), score(1, 1, 2), 0.0], rel=1e-5)


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    assert lexical.words("a" * 600 + " tail", "b") == ["a" * lexical.MAX_CHARS, "b"]
