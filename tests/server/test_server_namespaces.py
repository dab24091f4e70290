"""Namespaces at the edge: names, tokens that are honoured at once, and the calls about them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks


@pytest.mark.parametrize("name", ["a", "news", "my-app_2", "a" * 64, "default"])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert checks.namespace("name", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "News",
        "2news",
        "-a",
        "_a",
        "a" * 65,
        "..",
        "a/b",
        "a.b",
        "a\n",
        "a\0",
        "ä",
        "\uff41",
        "app",
        "owner",
    ],
)
def test_a_name_that_could_be_another_file_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checks.namespace("name", name)
    assert caught.value.field == "name"


@given(st.text(max_size=70), st.text(max_size=70))
def test_no_two_names_are_one_file_where_case_does_not_matter(one: str, other: str) -> None:
    names = []
    for given_ in (one, other):
        try:
            names.append(checks.namespace("name", given_))
        except InvalidArgument:
            continue
    assert all(name == name.casefold() and "/" not in name and name.isascii() for name in names)


def test_no_name_means_ones_own() -> None:
    assert checks.namespace("namespace", "", "news") == "news"
    assert checks.namespace("namespace", "mail", "news") == "mail"
