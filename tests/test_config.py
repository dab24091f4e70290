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
        ("n_threads = 'many'", "'many' .* is not a whole number"),
        ("margin_ms = -1", "must be 0 or more"),
        ("default_budget_ms = nan", "must be 0 or more"),
        ("key_source = 'safe'", '"auto" or "file"'),
        ("this is not toml", "config.toml"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InvalidArgument, match=message):
        loaded(tmp_path)


def test_a_config_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not exist"):
        load({}, {}, {"data_dir": tmp_path}, file=tmp_path / "none.toml")
