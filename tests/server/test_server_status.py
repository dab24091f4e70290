"""One table from errors to status, and the client's table back."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import grpc
import pytest

import edge_reranker_client.errors as theirs
from edge_reranker import errors as ours
from edge_reranker.server.status import INTERNAL_MESSAGE, KIND_KEY, STATUS, status_of

EVERY_ERROR = [
    kind for _, kind in inspect.getmembers(ours, inspect.isclass) if issubclass(kind, ours.EdgeRerankerError)
]


def make(kind: type[ours.EdgeRerankerError]) -> ours.EdgeRerankerError:
    return kind("field", "is bad") if kind is ours.InvalidArgument else kind("it went wrong")


class Failed(grpc.RpcError):
    """A failed call, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, details: str, kind: str) -> None:
        super().__init__()
        self._parts = code, details, kind

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> Any:
        return ((KIND_KEY, self._parts[2]),) if self._parts[2] else ()


def test_every_error_has_a_status() -> None:
    assert set(STATUS) == set(EVERY_ERROR)


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_its_own_kind_with_its_message(kind: type[ours.EdgeRerankerError]) -> None:
    code, message, name = status_of(make(kind))
    back = theirs.from_rpc(Failed(code, message, name), "/run/sock")
    assert type(back).__name__ == kind.__name__
    assert str(back) == str(make(kind))
    assert back.status is code


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_status_alone_gives_the_kind_or_one_above_it_or_an_unavailable_service(
    kind: type[ours.EdgeRerankerError],
) -> None:
    code, message, _ = status_of(make(kind))
    back = theirs.from_rpc(Failed(code, message, ""), "/run/sock")
    above = {each.__name__ for each in theirs.KINDS[kind.__name__].__mro__}
    shared = {"StoreFull": "Overloaded"}.get(kind.__name__, "ServiceUnavailable")
    assert type(back).__name__ in above | {shared}


def test_every_status_of_the_table_has_a_way_back() -> None:
    for code in set(STATUS.values()) - {grpc.StatusCode.INTERNAL}:
        assert code in theirs.STATUSES


def test_the_kinds_of_each_status_are_documented() -> None:
    """docs/serving.md is where whoever writes a client in another language reads them."""
    documented: set[tuple[str, str]] = set()
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    for line in text.partition("| gRPC status |")[2].partition("\n\n")[0].splitlines()[2:]:
        _, statuses, kinds, *_ = (cell.strip() for cell in line.split("|"))
        for status in statuses.split(", "):
            documented |= {(status, kind) for kind in kinds.split(", ") if kind}
    for kind, status in STATUS.items():
        assert (status.name, kind.__name__) in documented
    assert {kind for _, kind in documented} == {kind.__name__ for kind in STATUS}


def test_error_of_a_class_below_gets_its_parents_status() -> None:
    class Fuller(ours.StoreFull):
        pass

    assert status_of(Fuller("no space")) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "no space", "StoreFull")


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), OSError(28, "secret")])
def test_foreign_error_is_internal_with_a_fixed_message(error: Exception) -> None:
    assert status_of(error) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, "EdgeRerankerError")


def test_client_and_server_name_the_metadata_alike() -> None:
    assert theirs.KIND_KEY == KIND_KEY
