"""Namespaces at the edge: names, tokens that are honoured at once, and the calls about them."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_reranker_client
from edge_reranker import errors
from edge_reranker.errors import InvalidArgument
from edge_reranker.server import checks
from edge_reranker.server.access import Access, Identity, Scope
from edge_reranker.v1.context_service_pb2 import ExportRequest
from edge_reranker_client import EdgeReranker, Event, Grant, Item, Namespace, Unauthenticated
from tests.server.fake_core import FakeCore
from tests.server.fixtures import Running, running


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


def app_of(served: Running, name: str) -> EdgeReranker:
    return EdgeReranker(data_dir=served.data_dir, namespace=name)


def tokens(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / "tokens").iterdir()}


def test_a_namespace_is_there_at_once_and_its_app_sees_only_its_own(
    served: Running, owner: EdgeReranker, app: EdgeReranker
) -> None:
    made = owner.namespaces.create("news")
    assert made == Namespace("news", 0, str(served.data_dir / "tokens" / "news.token"), ())
    file = Path(made.token_file)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    app.record([Event("LIKE", Item("1"), "mine")])
    with app_of(served, "news") as news:
        news.record([Event("LIKE", Item("2"), "theirs")])
        assert [event.event_id for event in news.events()] == ["theirs"]
    assert [event.event_id for event in app.events()] == ["mine"]
    assert [(each.name, each.events) for each in owner.namespaces.list()] == [("default", 1), ("news", 1)]


def test_making_a_namespace_again_leaves_its_token(served: Running, owner: EdgeReranker) -> None:
    file = Path(owner.namespaces.create("news").token_file)
    token = file.read_text()
    owner.namespaces.create("news")
    assert file.read_text() == token
    assert owner.namespaces.create("default").token_file == str(served.data_dir / "tokens" / "app.token")


def test_a_token_file_that_is_gone_is_made_anew_and_the_old_token_is_not_honoured(
    served: Running, owner: EdgeReranker
) -> None:
    file = Path(owner.namespaces.create("news").token_file)
    with app_of(served, "news") as before:
        assert list(before.events()) == []
        file.unlink()
        owner.namespaces.create("news")
        with pytest.raises(Unauthenticated):
            list(before.events())
        assert list(before.events()) == [], "it has read the file again"


def test_a_deleted_namespace_has_no_token_from_that_moment(served: Running, owner: EdgeReranker) -> None:
    owner.namespaces.create("news")
    with app_of(served, "news") as news:
        news.record([Event("LIKE", Item("1"))])
        token = served.token("news")
        assert owner.namespaces.delete("news") == 1
        with pytest.raises(Unauthenticated):
            list(news.events())
    assert tokens(served.data_dir) == {"app.token", "owner.token"}
    assert [each.name for each in owner.namespaces.list()] == ["default"]
    assert owner.namespaces.delete("news") == 0
    owner.namespaces.create("news")
    assert served.token("news") != token
    with app_of(served, "news") as news:
        assert list(news.events()) == []


def test_the_token_goes_before_the_events_do(served: Running, owner: EdgeReranker) -> None:
    """Forgetting much takes a while; nobody adds to it meanwhile."""
    owner.namespaces.create("news")
    seen: list[bool] = []
    served.core.before = lambda deadline: seen.append((served.data_dir / "tokens/news.token").exists())
    owner.namespaces.delete("news")
    assert seen[0] is False


def test_grants_are_made_listed_and_revoked(served: Running, owner: EdgeReranker) -> None:
    owner.namespaces.create("news")
    made = owner.namespaces.grant(source="default", reader="news")
    assert made == Grant("default", "news", made.granted_at)
    assert {each.name: each.grants for each in owner.namespaces.list()} == {"default": (), "news": (made,)}
    owner.namespaces.revoke(source="default", reader="news")
    assert all(not each.grants for each in owner.namespaces.list())
    owner.namespaces.revoke(source="default", reader="news")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda it: it.namespaces.create("../x"), 'name: "../x" is not a name'),
        (lambda it: it.namespaces.create("app"), 'name: "app" is reserved'),
        (lambda it: it.namespaces.create(""), 'name: "" is not a name'),
        (lambda it: it.namespaces.delete("default"), 'name: "default" stays'),
        (lambda it: it.namespaces.grant(source="News", reader="default"), 'source: "News" is not a name'),
        (lambda it: it.namespaces.grant(source="default", reader=""), 'reader: "" is not a name'),
        (lambda it: it.namespaces.grant(source="default", reader="default"), "reader: is the source itself"),
        (lambda it: it.namespaces.revoke(source="default", reader="a b"), 'reader: "a b" is not a name'),
    ],
)
def test_bad_names_are_refused_and_nothing_is_made(
    served: Running, owner: EdgeReranker, call: Callable[[EdgeReranker], object], says: str
) -> None:
    with pytest.raises(edge_reranker_client.InvalidArgument, match=re.escape(says)):
        call(owner)
    assert tokens(served.data_dir) == {"app.token", "owner.token"}
    assert len(owner.namespaces.list()) == 1


def test_a_grant_to_nobody_is_refused(owner: EdgeReranker) -> None:
    with pytest.raises(edge_reranker_client.NotFound):
        owner.namespaces.grant(source="default", reader="nobody")


def test_no_app_has_a_say_in_namespaces(served: Running, owner: EdgeReranker, app: EdgeReranker) -> None:
    owner.namespaces.create("news")
    for call in (
        app.namespaces.list,
        lambda: app.namespaces.create("x"),
        lambda: app.namespaces.grant(source="news", reader="default"),
    ):
        with pytest.raises(edge_reranker_client.PermissionDenied):
            call()


def test_at_a_start_the_files_follow_the_store(tmp_path: Path) -> None:
    """A row without a file gets one; a file without a row goes, so that its token is nobody's."""
    Access.open(tmp_path, ["news"])
    kept = (tmp_path / "tokens" / "news.token").read_text().strip()
    (tmp_path / "tokens" / "gone.token").write_text("g" * 43)
    (tmp_path / "tokens" / ".half.token.x7").write_text("")
    (tmp_path / "tokens" / "notes.txt").write_text("mine")
    access = Access.open(tmp_path, ["news", "shop"])
    assert tokens(tmp_path) == {"app.token", "owner.token", "news.token", "shop.token", "notes.txt"}
    rerank = "/edge_reranker.v1.RerankService/Rerank"
    assert access.admit(rerank, [("authorization", f"Bearer {kept}")]) == Identity(Scope.APP, "news")
    with pytest.raises(errors.Unauthenticated):
        access.admit(rerank, [("authorization", f"Bearer {'g' * 43}")])


def test_one_token_for_two_is_refused(tmp_path: Path) -> None:
    Access.open(tmp_path, ["news"])
    (tmp_path / "tokens" / "news.token").write_text((tmp_path / "tokens" / "owner.token").read_text())
    with pytest.raises(errors.FailedPrecondition, match="another file has the same token"):
        Access.open(tmp_path, ["news"])


@pytest.mark.parametrize(
    ("limits", "others"), [({"max_rerank_calls": 2}, ["default"]), ({"max_rerank_calls": 1}, list("bcdef"))]
)
def test_an_app_that_floods_takes_nobodys_place(
    tmp_path: Path, limits: dict[str, int], others: list[str]
) -> None:
    """Also where many others do: who has no call under way gets one in."""
    go_on = threading.Event()
    core = FakeCore()

    def hold(_: object) -> None:
        go_on.wait(10)

    most = limits["max_rerank_calls"]
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(running(tmp_path, core, **limits))
        owner = stack.enter_context(EdgeReranker(data_dir=tmp_path, owner=True))
        apps = {}
        for name in {"news", *others} - {"default"}:
            owner.namespaces.create(name)
        for name in ("news", *others):
            apps[name] = stack.enter_context(EdgeReranker(data_dir=tmp_path, namespace=name))
        core.before = hold
        threads = stack.enter_context(ThreadPoolExecutor(20))
        stack.callback(go_on.set)
        held = [threads.submit(apps["news"].rerank, [{"id": "a"}]) for _ in range(most)]
        while len(served.core.seen) < most:
            time.sleep(0.01)
        with pytest.raises(edge_reranker_client.Overloaded, match=f"{most} rerank calls"):
            apps["news"].rerank([{"id": "a"}])
        held += [threads.submit(apps[name].rerank, [{"id": "a"}]) for name in others]
        while len(served.core.seen) < most + len(others):
            time.sleep(0.01)
        go_on.set()
        assert all(each.result(10).ids == ("a",) for each in held)


def test_what_an_owner_asks_about_a_namespace_that_nobody_made_is_not_found(owner: EdgeReranker) -> None:
    with pytest.raises(edge_reranker_client.NotFound):
        list(owner._transport.stream(owner._context.Export, ExportRequest(namespace="nobody"), timeout_s=5))
    owner.namespaces.create("news")
    assert list(owner._transport.stream(owner._context.Export, ExportRequest(namespace="news"), timeout_s=5))
