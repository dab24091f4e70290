"""Settings, from one place: flags over environment over a TOML file over defaults. Standard library only."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_reranker.errors import InvalidArgument

ENVIRONMENT_PREFIX = "EDGE_RERANKER_"
CONFIG_FILE = "config.toml"


@dataclass(frozen=True, slots=True)
class Config:
    """What the service can be told.

    ``model`` is a catalogue name, or "none" to run the tiers that need no model. ``pack`` is a folder;
    empty means the pack that ships. ``key_source`` is "auto" (the OS keyring, else a key file) or "file".
    ``n_threads`` 0 means as many as there are processors, four at most.
    """

    data_dir: Path
    socket: Path
    cache_dir: Path
    model: str
    pack: str = ""
    n_threads: int = 0
    default_budget_ms: float = 200.0
    margin_ms: float = 3.0
    key_source: str = "auto"
    memory_limit_mb: int = 0


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    defaults: Mapping[str, Any],
    *,
    file: Path | None = None,
) -> Config:
    """Puts the sources together; None and "" among ``flags`` mean "not given".

    The file is ``file``, else EDGE_RERANKER_CONFIG, else config.toml in the data directory if it is there.
    The socket follows the data directory unless it is given. Raises InvalidArgument that names the source.
    """
    names = {field.name for field in dataclasses.fields(Config)}
    from_environment = {
        name: environment[key] for name in names if (key := ENVIRONMENT_PREFIX + name.upper()) in environment
    }
    if "EDGE_RERANKER_CACHE" in environment:  # the name that downloads of all kinds share
        from_environment["cache_dir"] = environment["EDGE_RERANKER_CACHE"]
    given = {name: value for name, value in flags.items() if name in names and value not in (None, "")}
    data_dir = Path(given.get("data_dir") or from_environment.get("data_dir") or defaults["data_dir"])
    named = environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    path = file or Path(named or data_dir / CONFIG_FILE)
    from_file = _read(path, names, required=file is not None or bool(named))
    merged: dict[str, Any] = {**defaults}
    for source, values in ((str(path), from_file), ("environment", from_environment), ("flags", given)):
        for name, value in values.items():
            merged[name] = _convert(source, name, value)
    merged.setdefault("socket", Path(merged["data_dir"]) / "run" / "edge-reranker.sock")
    for name in ("data_dir", "socket", "cache_dir"):
        merged[name] = Path(merged[name]).expanduser().absolute()
    return Config(**merged)


def _read(path: Path, names: set[str], *, required: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise InvalidArgument("config", f"{path} does not exist") from None
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument("config", f"{path}: {error}") from error
    for name in values:
        if name not in names:
            raise InvalidArgument(
                "config", f"{path}: no setting is called {name!r}; there are {sorted(names)}"
            )
    return values


def _convert(source: str, name: str, value: Any) -> Any:
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Config)}
    kind = {"Path": Path, "str": str, "int": int, "float": float}[str(kinds[name])]
    try:
        converted = kind(value)
    except (TypeError, ValueError):
        raise InvalidArgument(name, f"{value!r} (from {source}) is not {_WORDS[kind]}") from None
    if kind in (int, float) and not 0 <= converted < float("inf"):
        raise InvalidArgument(name, f"{value!r} (from {source}) must be 0 or more")
    if name == "key_source" and converted not in ("auto", "file"):
        raise InvalidArgument(name, f'{value!r} (from {source}); it is "auto" or "file"')
    return converted


_WORDS = {Path: "a path", str: "text", int: "a whole number", float: "a number"}
