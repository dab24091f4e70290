"""Settings, from one place: flags over environment over a TOML file over defaults. Standard library only."""

from __future__ import annotations

import dataclasses
import reprlib
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
    ``n_threads`` 0 means as many as there are physical cores within the CPU quota, four at most. ``nice`` is
    what the model's processes add to be behind other programs. ``mode`` is how tier 2 lays candidates out,
    "isolated" or "unified"; see EngineSpec. ``backups`` of the store are kept; with 0 none is made unasked.
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
    nice: int = 0
    mode: str = "isolated"
    backups: int = 3


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    defaults: Mapping[str, Any],
    *,
    file: Path | None = None,
) -> Config:
    """Puts the sources together; None and "" among ``flags``, and "" in the environment, mean "not given".

    The file is ``file``, else EDGE_RERANKER_CONFIG, else config.toml in the data directory if it is there.
    The socket follows the data directory unless it is given. Text from flags and environment is parsed; in
    the file the type must fit. Raises InvalidArgument that names the source.
    """
    names = {field.name for field in dataclasses.fields(Config)}
    found = {name: value for name in names if (value := environment.get(ENVIRONMENT_PREFIX + name.upper()))}
    if cache := environment.get("EDGE_RERANKER_CACHE"):  # the name that downloads of all kinds share
        found["cache_dir"] = cache
    from_environment = _fitting("environment", found)
    from_flags = _fitting("flags", {n: v for n, v in flags.items() if n in names and v not in (None, "")})
    outer = {**defaults, **from_environment, **from_flags}
    named = environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    path = file or Path(named or Path(outer["data_dir"]) / CONFIG_FILE)
    values = _read(path, names, required=file is not None or bool(named))
    from_file = _fitting(str(path), values, parse=False)
    merged = {**defaults, **from_file, **from_environment, **from_flags}
    merged.setdefault("socket", Path(merged["data_dir"]) / "run" / "edge-reranker.sock")
    for name in ("data_dir", "socket", "cache_dir"):
        merged[name] = Path(merged[name]).absolute()
    return Config(**merged)


def _read(path: Path, names: set[str], *, required: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise InvalidArgument("config", f"{path} does not exist") from None
        return {}
    except (OSError, RecursionError, ValueError) as error:  # not TOML, or not even UTF-8
        raise InvalidArgument("config", f"{path}: {error}") from error
    for name in values:
        if name not in names:
            raise InvalidArgument(
                "config", f"{path}: no setting is called {name!r}; there are {sorted(names)}"
            )
    return values


def _fitting(source: str, values: Mapping[str, Any], *, parse: bool = True) -> dict[str, Any]:
    fitting = {}
    for name, value in values.items():
        try:
            fitting[name] = _convert(name, value, parse=parse)
        except (OverflowError, RuntimeError, TypeError, ValueError):
            shown = reprlib.repr(str(value) if isinstance(value, Path) else value)
            raise InvalidArgument(name, f"{shown} (from {source}) is not {_ALLOWED[name]}") from None
    return fitting


def _convert(name: str, value: Any, *, parse: bool) -> Any:
    """The value in the setting's own type; raises when it does not fit."""
    if name in _MOST:
        return _number(name, value, parse=parse)
    if not isinstance(value, str if not parse else (str, Path)):
        raise TypeError
    if name in ("data_dir", "socket", "cache_dir", "pack"):
        return _path(name, str(value))
    if not value or (name in _CHOICES and value not in _CHOICES[name]):
        raise ValueError
    return str(value)


def _number(name: str, value: Any, *, parse: bool) -> int | float:
    kind = type(_MOST[name])
    if parse and isinstance(value, str):
        value = kind(value)
    # True is an int to Python, but to nobody who writes settings.
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not 0 <= value <= _MOST[name]:
        raise ValueError
    return kind(value)


def _path(name: str, value: str) -> Path | str:
    if name == "pack" and not value:
        return ""
    if not value or "\0" in value:
        raise ValueError
    path = Path(value).expanduser()  # RuntimeError: nobody is called so
    return str(path) if name == "pack" else path


_CHOICES = {"key_source": ("auto", "file"), "mode": ("isolated", "unified")}
# Numbers go from 0 to these. More threads than this abort llama.cpp (GGML_MAX_N_THREADS); calls never work
# longer than a minute; a limit of more than a tebibyte is none.
_MOST: dict[str, int | float] = {
    "n_threads": 512,
    "default_budget_ms": 60_000.0,
    "margin_ms": 60_000.0,
    "memory_limit_mb": 1024 * 1024,
    "nice": 19,
    "backups": 100,
}
_ALLOWED = {
    "data_dir": "a path",
    "socket": "a path",
    "cache_dir": "a path",
    "pack": "a path",
    "model": "a model's name",
    **{name: " or ".join(f'"{choice}"' for choice in choices) for name, choices in _CHOICES.items()},
    **{
        name: f"a {'whole ' if isinstance(most, int) else ''}number from 0 to {most:,.0f}"
        for name, most in _MOST.items()
    },
}
