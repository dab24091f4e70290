"""Tokens on disk, and who gets in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge_reranker.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from edge_reranker.server.access import Access, Identity, Scope
from edge_reranker_client import discovery
from tests.server.fixtures import Running
from tests.server.requests import rerank

RERANK = "/edge_reranker.v1.RerankService/Rerank"
FORGET = "/edge_reranker.v1.ContextService/Forget"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def token(data_dir: Path, scope: str) -> str:
    return discovery.token_path(data_dir, scope).read_text().strip()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("open_umask")
def test_tokens_are_private_whatever_the_umask(tmp_path: Path) -> None:
    Access.open(tmp_path)
    for scope in ("app", "owner"):
        path = discovery.token_path(tmp_path, scope)
        assert mode(path) == 0o600
        assert len(path.read_text().strip()) == 43  # 32 bytes in URL-safe base64
    assert mode(tmp_path / "tokens") == 0o700
    assert sorted(each.name for each in (tmp_path / "tokens").iterdir()) == ["app.token", "owner.token"]


def test_tokens_differ_and_stay_over_restarts(tmp_path: Path) -> None:
    Access.open(tmp_path)
    first = token(tmp_path, "app"), token(tmp_path, "owner")
    Access.open(tmp_path)
    assert (token(tmp_path, "app"), token(tmp_path, "owner")) == first
    assert first[0] != first[1]


def test_token_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    Access.open(tmp_path)
    discovery.token_path(tmp_path, "owner").chmod(0o644)
    Access.open(tmp_path)
    assert mode(discovery.token_path(tmp_path, "owner")) == 0o600


@pytest.mark.parametrize("content", ["", "short\n"])
def test_token_too_short_to_be_safe_is_refused(tmp_path: Path, content: str) -> None:
    Access.open(tmp_path)
    discovery.token_path(tmp_path, "app").write_text(content)
    with pytest.raises(FailedPrecondition, match=r"app\.token: fewer than 32 characters; delete the file"):
        Access.open(tmp_path)


def test_each_token_has_its_scope(tmp_path: Path) -> None:
    access = Access.open(tmp_path)
    app = [("authorization", f"Bearer {token(tmp_path, 'app')}")]
    owner = [("x-other", "1"), ("authorization", f"bearer {token(tmp_path, 'owner')}")]
    assert access.admit(RERANK, app) == Identity(Scope.APP, "default")
    assert access.admit(RERANK, owner) == Identity(Scope.OWNER, "default")
    assert access.admit(FORGET, owner) == Identity(Scope.OWNER, "default")
    with pytest.raises(PermissionDenied, match=r"^Forget needs the owner's token"):
        access.admit(FORGET, app)


def test_rpc_that_nobody_listed_needs_the_owner(tmp_path: Path) -> None:
    access = Access.open(tmp_path)
    with pytest.raises(PermissionDenied):
        access.admit("/other.Service/Rpc", [("authorization", f"Bearer {token(tmp_path, 'app')}")])


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer x{}", "Bearer é"])
def test_missing_or_wrong_token_is_refused_and_not_repeated(tmp_path: Path, value: str) -> None:
    access = Access.open(tmp_path)
    given = value.format(token(tmp_path, "app"))
    with pytest.raises(Unauthenticated) as caught:
        access.admit(RERANK, [("authorization", given)])
    assert token(tmp_path, "app") not in str(caught.value)


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)])
def test_stranger_is_refused_before_the_message_is_parsed(
    served: Running, metadata: tuple[tuple[str, str], ...]
) -> None:
    with served.channel() as channel:
        call: Any = channel.unary_unary(RERANK)
        for payload in (rerank("a").SerializeToString(), b"\xff\xff"):
            with pytest.raises(grpc.RpcError) as caught:
                call(payload, metadata=metadata, timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert served.core.seen == []
