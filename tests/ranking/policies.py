"""Lists and policies for tests of the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from edge_reranker.ranking import fusion
from edge_reranker.ranking.policy import Given
from edge_reranker.types import Candidate, Cap, DiversityMethod, Item, Pin, Policy, RerankQuery

DAY = 86_400.0
NOW_S = 100 * DAY
TAGS = ("War", "jazz", "Crime", "comedy", "Drama")
SOURCES = ("", "one", "two", "three")


def given(
    tags: Sequence[Sequence[str]],
    scores: Sequence[float] | None = None,
    *,
    sources: Sequence[str] = (),
    ages_days: Sequence[float | None] = (),
    **more: Any,
) -> Given:
    """Candidates "0", "1" and so on; scores fall from 0 by default. ``more``: a Given's, a Policy's."""
    n = len(tags)
    candidates = tuple(
        Candidate(
            Item(
                str(at),
                tags=tuple(tags[at]),
                attributes={"source": sources[at]} if sources and sources[at] else {},
            ),
            published_at=NOW_S - ages_days[at] * DAY if ages_days and ages_days[at] is not None else None,  # type: ignore[operator]
        )
        for at in range(n)
    )
    found = np.array(scores if scores is not None else -np.arange(n), np.float64)
    own = {name: more.pop(name) for name in tuple(more) if name in Given.__dataclass_fields__}
    query = RerankQuery(candidates, top_n=more.pop("top_n", 0), policy=Policy(**more))
    return Given(query, found, fusion.order(found), NOW_S, **own)


@st.composite
def lists(draw: st.DrawFn, *, most: int = 30, **fixed: Any) -> Given:
    """Any list, and any policy but for what is ``fixed``."""
    n = draw(st.integers(1, most))

    def each(of: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(of, min_size=n, max_size=n))

    strength = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
    pinned = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3))
    positions = draw(st.permutations(range(n)))
    more: dict[str, Any] = {
        "blocked_tags": draw(st.sampled_from([(), (), ("war",), ("JAZZ", "crime")])),
        "muted": draw(st.sampled_from([(), (), ("drama",)])),
        "pins": tuple(Pin(str(at), place) for at, place in zip(pinned, positions, strict=False)),
        "diversity": draw(strength),
        "diversity_method": draw(st.sampled_from(DiversityMethod)),
        "calibration": draw(strength),
        "caps": tuple(draw(st.lists(caps(), max_size=2))),
        "top_n": draw(st.sampled_from([0, 3, 10])),
        "taste": draw(st.sampled_from([{}, {"war": 0.6, "jazz": 0.3, "opera": 0.1}, {"comedy": 1.0}])),
    }
    return given(
        each(st.lists(st.sampled_from(TAGS), max_size=3, unique=True)),
        each(st.floats(-5, 5, width=32)),
        sources=each(st.sampled_from(SOURCES)),
        ages_days=each(st.sampled_from([None, 0.5, 3.0])),
        **more | fixed,
    )


@st.composite
def caps(draw: st.DrawFn) -> Cap:
    kind = draw(
        st.sampled_from([{"attribute": "source"}, {"tag": "WAR"}, {"each_tag": True}, {"max_age_days": 1.0}])
    )
    return Cap(draw(st.integers(0, 3)), draw(st.integers(1, 8)), **kind)  # type: ignore[arg-type]
