"""How the client finds socket and token, and what it says when they are not there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_reranker_client import (
    EdgeReranker,
    InvalidArgument,
    PermissionDenied,
    ServiceUnavailable,
    Unauthenticated,
    discovery,
)
from tests.server.fixtures import Running, running


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOCKET", "TOKEN", "DATA_DIR", "NAMESPACE"):
        monkeypatch.delenv(f"EDGE_RERANKER_{name}", raising=False)


def works(client: EdgeReranker) -> bool:
    with client:
        return client.rerank([{"id": "a"}]).ids == ("a",)


def test_data_directory_alone_is_enough(served: Running) -> None:
    assert works(EdgeReranker(data_dir=served.data_dir))
    assert works(EdgeReranker(data_dir=str(served.data_dir)))


def test_data_directory_comes_from_the_environment(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RERANKER_DATA_DIR", str(served.data_dir))
    assert works(EdgeReranker())


def test_socket_and_token_come_from_the_environment(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RERANKER_DATA_DIR", "/nowhere")
    monkeypatch.setenv("EDGE_RERANKER_SOCKET", str(served.socket))
    monkeypatch.setenv("EDGE_RERANKER_TOKEN", served.token("app"))
    assert works(EdgeReranker())


def test_arguments_go_before_the_environment(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RERANKER_DATA_DIR", "/nowhere")
    monkeypatch.setenv("EDGE_RERANKER_SOCKET", "/nowhere/sock")
    monkeypatch.setenv("EDGE_RERANKER_TOKEN", "wrong")
    assert works(EdgeReranker(socket=served.socket, token=served.token("app")))
    assert works(EdgeReranker(data_dir=served.data_dir))


def test_data_directory_of_the_platform_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    found = discovery.default_data_dir()
    assert found.is_relative_to(tmp_path)
    assert found.name == "edge-reranker"
    with running(found):
        assert works(EdgeReranker())


def test_relative_socket_path_works(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(served.socket.parent)
    assert works(EdgeReranker(socket=served.socket.name, data_dir=served.data_dir))


def test_missing_service_says_how_to_start_it_at_once(tmp_path: Path) -> None:
    start_s = time.monotonic()
    with EdgeReranker(data_dir=tmp_path) as client:
        assert not client.healthy()
        with pytest.raises(ServiceUnavailable, match=r"is the service running.*`edge-reranker serve`"):
            client.rerank([{"id": "a"}])
    with EdgeReranker(data_dir=tmp_path, token="given") as client:
        for call in (lambda: client.rerank([{"id": "a"}]), lambda: list(client.events())):
            with pytest.raises(ServiceUnavailable, match=r"is the service running.*`edge-reranker serve`"):
                call()
    assert time.monotonic() - start_s < 3


def test_missing_token_names_the_file_and_the_variables(served: Running, tmp_path: Path) -> None:
    with (
        EdgeReranker(socket=served.socket, data_dir=tmp_path) as client,
        pytest.raises(Unauthenticated, match=r"app\.token; set EDGE_RERANKER_TOKEN, or EDGE_RERANKER_DATA"),
    ):
        client.rerank([{"id": "a"}])


def test_wrong_token_is_refused(served: Running) -> None:
    with EdgeReranker(data_dir=served.data_dir, token="wrong") as client:
        with pytest.raises(Unauthenticated, match="the token is not known"):
            client.rerank([{"id": "a"}])
        assert client.healthy()


def test_new_tokens_are_read_after_the_old_one_was_refused(tmp_path: Path) -> None:
    with EdgeReranker(data_dir=tmp_path) as client:
        with running(tmp_path):
            client.rerank([{"id": "a"}])
        discovery.token_path(tmp_path, "app").unlink()
        with running(tmp_path):
            with pytest.raises(Unauthenticated):
                client.record([{"type": "LIKE", "item": {"id": "a"}}])
            assert client.rerank([{"id": "a"}]).ids == ("a",)


def test_owner_calls_need_the_owners_token(app: EdgeReranker, owner: EdgeReranker) -> None:
    for call in (lambda: app.forget(all=True), app.models, app.warmup, lambda: app.load_model("x")):
        with pytest.raises(PermissionDenied, match="needs the owner's token"):
            call()
    assert owner.forget(all=True).events == 0
    assert [each.name for each in owner.models()] == ["tiny"]
    assert owner.warmup() is True


def test_a_tilde_is_the_home_folder_as_it_is_to_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with running(tmp_path / "data") as served:
        assert works(EdgeReranker(data_dir="~/data"))
        assert works(EdgeReranker(socket="~/data/run/edge-reranker.sock", token=served.token("app")))
        monkeypatch.setenv("EDGE_RERANKER_DATA_DIR", "~/data")
        assert works(EdgeReranker())
        monkeypatch.setenv("EDGE_RERANKER_DATA_DIR", "~nobody-is-called-so/data")
        with pytest.raises(InvalidArgument, match="data_dir"):
            EdgeReranker()


def test_a_socket_that_the_services_own_settings_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, data_dir = tmp_path / "s.sock", tmp_path / "data"
    with running(data_dir, socket_path=elsewhere):
        (data_dir / "config.toml").write_text(f'socket = "{elsewhere}"\n')
        assert works(EdgeReranker(data_dir=data_dir))
        monkeypatch.setenv("EDGE_RERANKER_DATA_DIR", str(data_dir))
        assert works(EdgeReranker())
        monkeypatch.setenv("EDGE_RERANKER_SOCKET", "/nowhere/sock")
        with pytest.raises(ServiceUnavailable, match="/nowhere/sock"):
            works(EdgeReranker())


@pytest.mark.parametrize("text", ["nice = 3", "socket = ", "\xff", "socket = 3"])
def test_settings_that_name_no_socket_mean_the_usual_one(served: Running, text: str) -> None:
    (served.data_dir / "config.toml").write_bytes(text.encode("latin-1"))
    assert works(EdgeReranker(data_dir=served.data_dir))


def recorded_by(client: EdgeReranker, served: Running) -> str:
    """The namespace that a client's events go to."""
    before = {name: len(events) for name, events in served.core.stored.items()}
    with client:
        client.record([{"type": "LIKE", "item": {"id": "1"}}])
    (found,) = (name for name, events in served.core.stored.items() if len(events) > before.get(name, 0))
    return found


def test_an_app_finds_the_token_of_its_namespace(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with EdgeReranker(data_dir=served.data_dir, owner=True) as owner:
        owner.namespaces.create("news")
    assert recorded_by(EdgeReranker(data_dir=served.data_dir, namespace="news"), served) == "news"
    assert recorded_by(EdgeReranker(data_dir=served.data_dir, namespace="default"), served) == "default"
    monkeypatch.setenv("EDGE_RERANKER_DATA_DIR", str(served.data_dir))
    monkeypatch.setenv("EDGE_RERANKER_NAMESPACE", "news")
    assert recorded_by(EdgeReranker(), served) == "news"
    assert recorded_by(EdgeReranker(namespace="default"), served) == "default"
    assert recorded_by(EdgeReranker(data_dir=served.data_dir), served) == "default"
    assert recorded_by(EdgeReranker(owner=True), served) == "default"


@pytest.mark.parametrize("name", ["", "app", "owner", "../owner", "News", "a.b", 3])
def test_no_namespace_leads_to_another_token(served: Running, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^namespace: "):
        EdgeReranker(data_dir=served.data_dir, namespace=name)


def test_an_owner_has_no_namespace_of_an_app(served: Running) -> None:
    with pytest.raises(InvalidArgument, match=r"^namespace: is for an app"):
        EdgeReranker(data_dir=served.data_dir, namespace="news", owner=True)


def test_an_app_whose_namespace_is_not_there_is_told_where_its_token_would_be(served: Running) -> None:
    told = r"there is no token at .*tokens/news\.token"
    with (
        EdgeReranker(data_dir=served.data_dir, namespace="news") as news,
        pytest.raises(Unauthenticated, match=told),
    ):
        news.rerank([{"id": "a"}])
