"""Every claim of the two pages about privacy names the test that proves it, and that test exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("privacy.md", "threat-model.md")
# What is told there is not promised.
NO_CLAIMS = ("Out of scope", "What it does not protect against")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def claims(text: str) -> Iterator[str]:
    """Rows of tables and items of lists, whole, outside of the sections that claim nothing."""
    heading, item, in_table = "", "", False
    for line in [*text.splitlines(), ""]:
        if item and line.startswith("  "):
            item += " " + line.strip()
            continue
        if item and heading not in NO_CLAIMS:
            yield item
        item = line if line.startswith("- ") else ""
        if line.startswith("#"):
            heading = line.lstrip("# ")
        is_row = line.startswith("|")
        # The first two lines of a table are its head.
        if is_row and in_table and not re.fullmatch(r"[|\- :]+", line) and heading not in NO_CLAIMS:
            yield line
        in_table = is_row


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file; none when it is not there."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def problems(text: str) -> list[str]:
    found = []
    for claim in claims(text):
        named = _TEST.findall(claim)
        if not named:
            found.append(f"no test is named: {claim[:80]}")
        found += [f"{path} has no {name}" for path, name in named if name not in names_in(path)]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_claim_names_a_test_that_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert len(list(claims(text))) >= 8, "the test's own premise: the page makes claims"
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- It is safe.\n", "no test is named"),
        ("- It is safe,\n  for sure.\n- So. `tests/test_privacy_docs.py::test_no`", "no test is named"),
        ("- So. `tests/test_privacy_docs.py::test_that_is_nowhere`\n", "has no test_that_is_nowhere"),
        ("- So. `tests/nowhere.py::test_that`\n", "tests/nowhere.py has no test_that"),
        ("| a | b |\n|---|---|\n| it is safe | |\n", "no test is named"),
    ],
    ids=["item", "two lines", "no such test", "no such file", "row"],
)
def test_a_claim_without_proof_is_found(text: str, problem: str) -> None:
    assert any(problem in each for each in problems(text))


def test_what_is_out_of_scope_needs_no_proof() -> None:
    assert problems("## Out of scope\n\n- **Root** can do anything.\n") == []
    proven = "`tests/test_privacy_docs.py::test_what_is_out_of_scope_needs_no_proof`"
    assert problems(f"| a | b |\n|---|---|\n| so | {proven} |\n- And,\n  so. {proven}\n") == []
