"""List policy: what the app asked for holds, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.ranking import policy
from edge_reranker.types import Candidate, Item, Pin, Policy, RerankQuery


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], RerankQuery]:
    n = draw(st.integers(1, 20))
    tags = draw(st.lists(st.sampled_from([(), ("War",), ("jazz", "War"), ("Jazz",)]), min_size=n, max_size=n))
    order = draw(st.permutations(range(n)))
    pinned = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    positions = draw(st.permutations(range(n)))
    pins = tuple(Pin(str(at), position) for at, position in zip(pinned, positions, strict=False))
    blocked = draw(st.sampled_from([(), ("war",), ("JAZZ",), ("war", "jazz")]))
    candidates = tuple(Candidate(Item(str(at), tags=tags[at])) for at in range(n))
    return order, RerankQuery(candidates, policy=Policy(blocked, pins))


def is_blocked(query: RerankQuery, at: int) -> bool:
    return bool(
        {t.casefold() for t in query.candidates[at].item.tags}
        & {t.casefold() for t in query.policy.blocked_tags}
    )


@given(cases())
def test_every_candidate_is_there_exactly_once(case: tuple[list[int], RerankQuery]) -> None:
    order, query = case
    assert sorted(policy.apply(order, query)) == list(range(len(order)))


@given(cases())
def test_pins_are_at_their_place(case: tuple[list[int], RerankQuery]) -> None:
    order, query = case
    result = policy.apply(order, query)
    for pin in query.policy.pins:
        assert result[pin.position] == int(pin.id)


@given(cases())
def test_blocked_candidates_that_are_not_pinned_come_after_all_others(
    case: tuple[list[int], RerankQuery],
) -> None:
    order, query = case
    pinned = {int(pin.id) for pin in query.policy.pins}
    flags = [is_blocked(query, at) for at in policy.apply(order, query) if at not in pinned]
    assert flags == sorted(flags)


@given(cases())
def test_candidates_of_one_kind_keep_their_order(case: tuple[list[int], RerankQuery]) -> None:
    order, query = case
    pinned = {int(pin.id) for pin in query.policy.pins}
    result = policy.apply(order, query)
    for kind in (True, False):
        chosen = [at for at in result if at not in pinned and is_blocked(query, at) is kind]
        assert chosen == [at for at in order if at in set(chosen)]


def test_without_a_policy_the_order_stays() -> None:
    query = RerankQuery(tuple(Candidate(Item(str(at), tags=("War",))) for at in range(4)))
    assert policy.apply([2, 0, 3, 1], query) == [2, 0, 3, 1]
