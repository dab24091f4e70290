"""Settings come from one place, in one order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_reranker.config import Config, load
from edge_reranker.errors import InvalidArgument


def loaded(
    tmp_path: Path, flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None
) -> Config:
    defaults = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache", "model": "smollm2-135m"}
    return load(flags or {}, environment or {}, defaults)


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path).n_threads == 0
    (tmp_path / "config.toml").write_text("n_threads = 1\ndefault_budget_ms = 50")
    assert loaded(tmp_path).n_threads == 1
    assert loaded(tmp_path, environment={"EDGE_RERANKER_N_THREADS": "2"}).n_threads == 2
    both = loaded(tmp_path, {"n_threads": 3, "model": None}, {"EDGE_RERANKER_N_THREADS": "2"})
    assert both.n_threads == 3
    assert both.default_budget_ms == 50.0
    assert both.model == "smollm2-135m"


def test_the_socket_follows_the_data_directory(tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert loaded(tmp_path, {"data_dir": other}).socket == other / "run" / "edge-reranker.sock"
    assert loaded(tmp_path, {"socket": tmp_path / "s"}).socket == tmp_path / "s"


def test_the_cache_has_a_variable_of_its_own(tmp_path: Path) -> None:
    assert (
        loaded(tmp_path, environment={"EDGE_RERANKER_CACHE": str(tmp_path / "c")}).cache_dir == tmp_path / "c"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("colour = 'red'", "no setting is called 'colour'"),
        ("margin_ms = -1", "margin_ms: -1 .*config.toml.* is not a number from 0 to 60,000"),
        ("default_budget_ms = nan", "nan .* is not a number from 0 to 60,000"),
        ("default_budget_ms = inf", "inf .* is not a number"),
        ("n_threads = 513", "513 .* is not a whole number from 0 to 512"),
        ("memory_limit_mb = 1_048_577", "is not a whole number from 0 to 1,048,576"),
        ("key_source = 'safe'", '"auto" or "file"'),
        ("mode = 'fast'", '"isolated" or "unified"'),
        ("key_source = ''", "key_source: '' .* is not"),
        ("model = ''", "model: '' .* is not a model's name"),
        ("socket = ''", "socket: '' .* is not a path"),
        ("cache_dir = '~nobody-is-called-so/x'", "cache_dir: '~nobody.* is not a path"),
        ('data_dir = "a\\u0000b"', "data_dir: .* is not a path"),
        ("this is not toml", "config.toml"),
        ("model = 'caf\udce9'", "config.toml"),
        ("a = " + "[" * 100_000, "config.toml"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.toml").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InvalidArgument, match=message):
        loaded(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "n_threads = 2.7",
        "n_threads = true",
        "n_threads = '2'",
        "margin_ms = true",
        "margin_ms = '3'",
        "margin_ms = [3]",
        "model = 5",
        "model = ['a']",
        "pack = 5",
        "socket = 5",
        "key_source = true",
    ],
)
def test_the_type_in_the_file_must_fit(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InvalidArgument, match=rf"^{content.split()[0]}: .*config.toml\) is not "):
        loaded(tmp_path)


def test_a_whole_number_in_the_file_is_also_a_number(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("margin_ms = 5\npack = ''\nsocket = 's'")
    found = loaded(tmp_path)
    assert (found.margin_ms, type(found.margin_ms)) == (5.0, float)
    assert (found.pack, found.socket) == ("", Path("s").absolute())


@pytest.mark.parametrize("value", ["2.7", "many", "nan", "True", "-1", "9" * 5_000])
def test_text_in_environment_and_flags_is_parsed_or_named(tmp_path: Path, value: str) -> None:
    assert loaded(tmp_path, environment={"EDGE_RERANKER_N_THREADS": "2"}).n_threads == 2
    assert loaded(tmp_path, {"margin_ms": "2.5"}).margin_ms == 2.5
    with pytest.raises(InvalidArgument, match=r"n_threads: '.*' \(from environment\) is not a whole number"):
        loaded(tmp_path, environment={"EDGE_RERANKER_N_THREADS": value})
    with pytest.raises(InvalidArgument, match=r"n_threads: '.*' \(from flags\) is not a whole number"):
        loaded(tmp_path, {"n_threads": value})


def test_an_empty_variable_is_one_that_is_not_set(tmp_path: Path) -> None:
    names = ("DATA_DIR", "SOCKET", "CACHE", "CACHE_DIR", "MODEL", "PACK", "N_THREADS", "KEY_SOURCE", "CONFIG")
    assert loaded(tmp_path, environment={f"EDGE_RERANKER_{name}": "" for name in names}) == loaded(tmp_path)


def test_the_file_is_found_in_a_data_directory_below_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.toml").write_text("n_threads = 1")
    found = loaded(tmp_path, environment={"EDGE_RERANKER_DATA_DIR": "~/data"})
    assert (found.n_threads, found.data_dir) == (1, tmp_path / "data")


def test_a_config_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not exist"):
        load({}, {}, {"data_dir": tmp_path}, file=tmp_path / "none.toml")
